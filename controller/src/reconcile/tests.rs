//! The loop, with a publisher whose sockets are a list, an API server that takes everything, and a paused clock.

use super::*;
use crate::cluster::Object;
use crate::settings::Mode;
use crate::translate::pod_port;
use headgate_proxy::model::PortProtocol;
use headgate_proxy::snapshot::Ports as Sockets;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::client::Body;
use serde_json::{from_value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tower_test::mock;

/// Which port can't be opened, if any.
struct Taken(watch::Receiver<Option<u16>>);

impl Sockets for Taken {
    fn apply(&self, wanted: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)> {
        let taken = *self.0.borrow();
        let failed = wanted.iter().filter(|(_, address, _)| Some(address.port()) == taken);
        failed.map(|(id, ..)| (id.clone(), "somebody has it".to_owned())).collect()
    }
}

struct Case {
    publisher: Publisher,
    changes: mpsc::Sender<Vec<Change>>,
    leads: watch::Sender<bool>,
    taken: watch::Sender<Option<u16>>,
    /// Method and path of what was written, with the body.
    written: mpsc::Receiver<(String, Value)>,
    metrics: Metrics,
    _stop: watch::Sender<bool>,
}

impl Case {
    fn start(leads: bool) -> Self {
        let (taken, receiver) = watch::channel(None);
        let publisher = Publisher::new(headgate_proxy::metrics::Metrics::new(1), Box::new(Taken(receiver)));
        let (service, handle) = mock::pair::<http::Request<Body>, http::Response<Body>>();
        let (sender, written) = mpsc::channel(256);
        tokio::spawn(take_all(handle, sender));
        let (leads, leading) = watch::channel(leads);
        let (changes, receiver) = mpsc::channel(CHANGES);
        let (stop, stopped) = watch::channel(false);
        let metrics = Metrics::default();
        let reconciler = Reconciler::for_cluster(
            Settings::new(Mode::Cluster { bind: [0, 0, 0, 0].into() }),
            publisher.clone(),
            metrics.clone(),
            Writer::new(Client::new(service, "default")),
            Infrastructure { ports: 20000..=20009, service: Default::default() },
            leading,
        );
        tokio::task::spawn_local(reconciler.run(receiver, stopped));
        Self { publisher, changes, leads, taken, written, metrics, _stop: stop }
    }

    /// Tells of objects of a kind, all of them.
    async fn list(&self, kind: Kind, objects: Vec<Object>) {
        let change = Change::Replace { kind, objects, undecodable: Vec::new() };
        self.changes.send(vec![change]).await.unwrap();
    }

    async fn list_all(&self, objects: Vec<Object>) {
        for kind in Kind::ALL {
            self.list(*kind, objects.iter().filter(|object| object.kind() == *kind).cloned().collect()).await;
        }
    }

    async fn upsert(&self, object: Object) {
        self.changes.send(vec![Change::Upsert(object)]).await.unwrap();
    }

    /// What was written until nothing is any more: by path, the last body of each.
    async fn settle(&mut self) -> BTreeMap<String, Value> {
        let mut written = BTreeMap::new();
        while let Ok(Some((asked, body))) =
            tokio::time::timeout(Duration::from_secs(1), self.written.recv()).await
        {
            written.insert(asked, body);
        }
        written
    }

    fn ports(&self) -> Vec<u16> {
        self.publisher.model().ports.values().map(|port| port.bind.port()).collect()
    }
}

/// Runs a test on one thread, where the loop may be that never leaves its own.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), test);
}

async fn take_all(
    mut handle: mock::Handle<http::Request<Body>, http::Response<Body>>,
    written: mpsc::Sender<(String, Value)>,
) {
    while let Some((request, answer)) = handle.next_request().await {
        let asked = format!("{} {}", request.method(), request.uri().path());
        let body = request.into_body().collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        written.send((asked, body)).await.unwrap();
        let reply = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}}).to_string();
        answer.send_response(http::Response::new(Body::from(reply.into_bytes())));
    }
}

fn class() -> Object {
    Object::GatewayClass(Arc::new(
        from_value(json!({
            "metadata": {"name": "headgate", "generation": 1, "resourceVersion": "1"},
            "spec": {"controllerName": crate::settings::CONTROLLER_NAME},
        }))
        .unwrap(),
    ))
}

fn gateway(version: &str) -> Object {
    Object::Gateway(Arc::new(
        from_value(json!({
            "metadata": {"namespace": "a", "name": "gw", "uid": "u", "generation": 1, "resourceVersion": version},
            "spec": {"gatewayClassName": "headgate", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        }))
        .unwrap(),
    ))
}

/// The Service as it was applied, with an address.
fn service(applied: &Value) -> Object {
    let mut service: Service = from_value(applied.clone()).unwrap();
    service.metadata.resource_version = Some("5".to_owned());
    service.status = from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}})).unwrap();
    Object::Service(Arc::new(service))
}

const GATEWAY: &str = "PATCH /apis/gateway.networking.k8s.io/v1/namespaces/a/gateways/gw/status";
const CLASS: &str = "PATCH /apis/gateway.networking.k8s.io/v1/gatewayclasses/headgate/status";

fn applied_service(written: &BTreeMap<String, Value>) -> Value {
    let found = written.iter().find(|(asked, _)| asked.starts_with("PATCH /api/v1/namespaces/a/services/"));
    found.expect("a Service").1.clone()
}

fn condition(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
}

#[test]
fn nothing_is_served_or_said_before_everything_was_read() {
    run(async {
        let mut case = Case::start(true);
        let (last, kinds) = Kind::ALL.split_last().unwrap();
        for kind in kinds {
            let objects = [class(), gateway("1")].into_iter().filter(|object| object.kind() == *kind);
            case.list(*kind, objects.collect()).await;
        }
        assert_eq!(case.settle().await.len(), 0);
        assert_eq!(case.publisher.readiness(), headgate_proxy::snapshot::Readiness::Starting);
        case.list(*last, Vec::new()).await;
        assert!(case.settle().await.contains_key(CLASS));
        assert_eq!(case.publisher.readiness(), headgate_proxy::snapshot::Readiness::Ready);
    });
}

#[test]
fn a_gateway_is_programmed_when_it_is_served_and_said_once() {
    run(async {
        let mut case = Case::start(true);
        case.list_all(vec![class(), gateway("1")]).await;
        let written = case.settle().await;
        assert_eq!(condition(&written[GATEWAY]["status"], "Programmed"), "False AddressNotAssigned");
        assert_eq!(written[GATEWAY]["metadata"]["resourceVersion"], "1");
        assert_eq!(case.ports(), [] as [u16; 0]);
        // The Service comes back with what we asked for: its target port is where we listen.
        let service = service(&applied_service(&written));
        let Object::Service(seen) = &service else { unreachable!("a Service") };
        let port = pod_port(seen, 80, headgate_proxy::model::Transport::Tcp).unwrap();
        case.upsert(service).await;
        let written = case.settle().await;
        assert_eq!(case.ports(), [port]);
        let status = &written[GATEWAY]["status"];
        assert_eq!(condition(status, "Programmed"), "True Programmed");
        assert_eq!(status["addresses"][0]["value"], "192.0.2.7");
        // What is there already is not said again, whatever else moves.
        case.upsert(class()).await;
        assert_eq!(case.settle().await.keys().collect::<Vec<_>>(), [] as [&String; 0]);
    });
}

#[test]
fn what_comes_after_a_pause_is_served_at_once_and_a_rollout_is_gathered() {
    run(async {
        let mut case = Case::start(true);
        case.list_all(vec![class(), gateway("1")]).await;
        case.settle().await;
        let (begin, before) = (Instant::now(), case.metrics.translations.get());
        let gone = || Change::Delete(Kind::Gateway, ObjectName::new("a", "gw"));
        case.changes.send(vec![gone()]).await.unwrap();
        while case.metrics.translations.get() == before {
            tokio::task::yield_now().await;
        }
        for change in [Change::Upsert(gateway("2")), gone(), Change::Upsert(gateway("3"))] {
            case.changes.send(vec![change]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(Instant::now(), begin, "nobody has waited");
        case.settle().await;
        assert_eq!(case.metrics.translations.get(), before + 2);
    });
}

#[test]
fn only_the_leader_tells() {
    run(async {
        let mut case = Case::start(false);
        case.list_all(vec![class(), gateway("1")]).await;
        assert_eq!(case.settle().await.len(), 0);
        case.leads.send_replace(true);
        let written = case.settle().await;
        assert!(written.contains_key(CLASS) && written.contains_key(GATEWAY), "{:?}", written.keys());
        case.leads.send_replace(false);
        case.upsert(gateway("2")).await;
        assert_eq!(case.settle().await.len(), 0);
        // Who leads anew says everything anew: another may have said otherwise.
        case.leads.send_replace(true);
        assert_eq!(case.settle().await[GATEWAY]["metadata"]["resourceVersion"], "2");
    });
}

#[test]
fn a_port_that_cannot_be_opened_is_told_and_tried_again() {
    run(async {
        let mut case = Case::start(true);
        case.list_all(vec![class(), gateway("1")]).await;
        let written = case.settle().await;
        case.taken.send_replace(Some(20000));
        case.upsert(service(&applied_service(&written))).await;
        let listener = |written: &BTreeMap<String, Value>| {
            condition(&written[GATEWAY]["status"]["listeners"][0], "Accepted")
        };
        assert_eq!(listener(&case.settle().await), "False PortUnavailable");
        case.taken.send_replace(None);
        tokio::time::sleep(RETRY_PORTS).await;
        assert_eq!(listener(&case.settle().await), "True Accepted");
    });
}

/// A Service of somebody's, as it is after `conditions` were written.
fn somebodys(version: &str, conditions: &Value) -> Object {
    Object::Service(Arc::new(
        from_value(json!({
            "metadata": {"namespace": "a", "name": "web", "uid": "s", "resourceVersion": version},
            "spec": {"ports": [{"port": 80}]},
            "status": {"loadBalancer": {}, "conditions": conditions},
        }))
        .unwrap(),
    ))
}

#[test]
fn a_service_is_told_of_its_policies_as_long_as_it_has_them() {
    const SERVICE: &str = "PATCH /api/v1/namespaces/a/services/web/status";
    run(async {
        let mut case = Case::start(true);
        let policy = Object::CircuitBreakerPolicy(Arc::new(
            from_value(json!({
                "apiVersion": "headgate.dev/v1alpha1", "kind": "CircuitBreakerPolicy",
                "metadata": {"namespace": "a", "name": "web", "generation": 1, "resourceVersion": "1"},
                "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}]},
            }))
            .unwrap(),
        ));
        case.list_all(vec![class(), policy, somebodys("1", &json!([]))]).await;
        let mut written = case.settle().await;
        let patch = written.remove(SERVICE).expect("the Service is told");
        assert_eq!(patch["metadata"]["resourceVersion"], "1");
        let affected = "headgate.dev/CircuitBreakerPolicyAffected";
        assert_eq!(condition(&patch["status"], affected), "True PolicyAttached");
        // What it then says is no reason to write, nor to translate.
        case.upsert(somebodys("2", &patch["status"]["conditions"])).await;
        assert_eq!(case.settle().await, BTreeMap::new());
        // Somebody's hand, and then a leader who finds what another has left.
        case.upsert(somebodys("3", &json!([]))).await;
        assert_eq!(case.settle().await[SERVICE]["metadata"]["resourceVersion"], "3");
        case.upsert(somebodys("4", &patch["status"]["conditions"])).await;
        case.leads.send_replace(false);
        let gone = ObjectName::new("a", "web");
        case.changes.send(vec![Change::Delete(Kind::CircuitBreakerPolicy, gone)]).await.unwrap();
        assert_eq!(case.settle().await, BTreeMap::new());
        case.leads.send_replace(true);
        let written = case.settle().await;
        assert_eq!(written[SERVICE]["status"]["conditions"], json!([]));
    });
}
