//! Against an API server whose answers are written down here, by a clock that stands still but for waiting.

use super::*;
use headgate_proxy::model::{BackendKind, ObjectName, RouteId, RouteKind, Transport};
use kube::client::Body;
use serde_json::Value;
use tokio::task::JoinHandle;
use tower_test::mock;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

struct Server {
    handle: mock::Handle<http::Request<Body>, http::Response<Body>>,
    notices: mpsc::Sender<Notice>,
    running: JoinHandle<()>,
}

fn notice(name: &str, subject: Subject, change: Change) -> Notice {
    let name = ObjectName::new("shop", name);
    let backend = BackendId { kind: BackendKind::Service, name, port: 80, transport: Transport::Tcp };
    Notice { backend, subject, change, shadow: false }
}

fn opened(name: &str) -> Notice {
    notice(name, Subject::Backend, Change::Opened)
}

impl Server {
    fn new() -> Self {
        let (service, handle) = mock::pair();
        let (notices, heard) = mpsc::channel(MOST * 2);
        let events = Events::new(Client::new(service, "default"), "headgate.dev/controller", "pod-1");
        Self { handle, notices, running: tokio::spawn(events.run(heard)) }
    }

    fn tell(&self, notice: Notice) {
        self.notices.try_send(notice).unwrap();
    }

    /// Answers the next request, and says its method, path and body.
    async fn answer(&mut self, code: u16) -> (String, Value) {
        let (request, answer) = self.handle.next_request().await.expect("a request");
        let asked = format!("{} {}", request.method(), request.uri().path());
        let body = request.into_body().collect_bytes().await.unwrap();
        let said = match code {
            200 if asked.contains("/services/") => json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"uid": "u-1"},
            }),
            200 => {
                json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}, "eventTime": null})
            }
            code => json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "R", "message": "m",
            }),
        };
        let said = Body::from(said.to_string().into_bytes());
        answer.send_response(http::Response::builder().status(code).body(said).unwrap());
        (asked, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Answers what a new Event asks for, and says the Event.
    async fn event(&mut self) -> Value {
        let (asked, _) = self.answer(200).await;
        assert!(asked.starts_with("GET /api/v1/namespaces/shop/services/"), "{asked}");
        let (asked, event) = self.answer(200).await;
        assert_eq!(asked, format!("POST {EVENTS}"));
        event
    }

    async fn is_left_alone(&mut self) {
        let waited = tokio::time::timeout(Duration::from_secs(300), self.handle.next_request()).await;
        assert!(waited.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_an_event_of_the_service() {
    let mut server = Server::new();
    server.tell(opened("cart"));
    let event = server.event().await;
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "cart", "uid": "u-1"})
    );
    assert_eq!(event["metadata"]["namespace"], "shop");
    assert!(event["metadata"]["name"].as_str().unwrap().starts_with("cart."));
    let said = ["reason", "action", "type", "reportingController", "reportingInstance"].map(|at| &event[at]);
    assert_eq!(said, ["BreakerOpened", "Open", "Warning", "headgate.dev/controller", "pod-1"]);
    assert_eq!(event["note"], "the circuit breaker of port 80 opened: too many requests failed");
    assert!(event["eventTime"].is_string() && event["series"].is_null());
    server.is_left_alone().await;
    drop(server.notices);
    server.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_change_has_its_words() {
    let mut server = Server::new();
    let route = RouteId { kind: RouteKind::Http, name: ObjectName::new("shop", "web") };
    let endpoint = Subject::Endpoint(([10, 0, 0, 7], 8080).into());
    server.tell(notice("a", Subject::Route(route), Change::HalfOpened));
    server.tell(notice("a", endpoint.clone(), Change::Closed));
    server.tell(notice("a", endpoint.clone(), Change::Ejected));
    server.tell(Notice { shadow: true, ..notice("a", endpoint, Change::Restored) });
    let mut said = Vec::new();
    for _ in 0..4 {
        let event = server.event().await;
        said.push(["type", "reason", "note"].map(|at| event[at].as_str().unwrap().to_owned()).join(" "));
    }
    assert_eq!(
        said,
        [
            "Normal BreakerHalfOpen the circuit breaker of port 80 for HTTPRoute shop/web is half open: probes pass",
            "Normal BreakerClosed the circuit breaker of endpoint 10.0.0.7:8080 of port 80 closed: probes were answered",
            "Warning EndpointEjected endpoint 10.0.0.7:8080 of port 80 is ejected: it fails, and gets no requests for a while",
            "Normal EndpointRestored endpoint 10.0.0.7:8080 of port 80 is restored: it answers again \
             (in shadow: nothing is kept away)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_is_a_series_written_once_in_a_while() {
    let mut server = Server::new();
    server.tell(opened("cart"));
    let name = server.event().await["metadata"]["name"].as_str().unwrap().to_owned();
    let began = Instant::now();
    for _ in 0..100 {
        server.tell(opened("cart"));
    }
    let (asked, body) = server.answer(200).await;
    assert_eq!(asked, format!("PATCH {EVENTS}/{name}"));
    assert_eq!(body["series"]["count"], 101);
    assert!(body["series"]["lastObservedTime"].is_string() && body.as_object().unwrap().len() == 1);
    assert!(began.elapsed() >= GAP - PACE);
    server.is_left_alone().await;
    // After a long while it is news.
    tokio::time::sleep(FORGET).await;
    server.tell(opened("cart"));
    assert!(server.event().await["series"].is_null());
}

#[tokio::test(start_paused = true)]
async fn many_are_written_one_after_the_other_and_some_not_at_all() {
    let mut server = Server::new();
    for n in 0..MOST + 10 {
        server.tell(opened(&format!("s{n:05}")));
    }
    let began = Instant::now();
    for n in 0..MOST {
        assert_eq!(server.event().await["regarding"]["name"], format!("s{n:05}"));
    }
    assert!(began.elapsed() >= PACE * u32::try_from(MOST - 1).unwrap());
    server.is_left_alone().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_not_told_of_and_an_event_that_is_gone_comes_anew() {
    let mut server = Server::new();
    server.tell(opened("cart"));
    assert_eq!(server.answer(404).await.0, "GET /api/v1/namespaces/shop/services/cart");
    server.is_left_alone().await;
    server.tell(opened("cart"));
    server.event().await;
    server.tell(opened("cart"));
    assert!(server.answer(404).await.0.starts_with("PATCH "));
    assert!(server.event().await["series"].is_null());
    server.is_left_alone().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_written_is_given_up() {
    let mut server = Server::new();
    server.tell(opened("cart"));
    for _ in 0..TRIES {
        assert!(server.answer(200).await.0.starts_with("GET "));
        assert!(server.answer(403).await.0.starts_with("POST "));
    }
    server.is_left_alone().await;
    // One that is there already is: the answer got lost.
    server.tell(opened("cart"));
    assert!(server.answer(200).await.0.starts_with("GET "));
    assert!(server.answer(409).await.0.starts_with("POST "));
    server.is_left_alone().await;
}
