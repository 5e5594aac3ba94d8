use super::*;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

fn route(version: &str, generation: i64, host: &str, status: bool) -> Object {
    let mut route: HttpRoute = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "r", "uid": "1", "resourceVersion": version, "generation": generation},
        "spec": {"hostnames": [host]},
    }))
    .unwrap();
    route.status = status.then(Default::default);
    route.wrap()
}

fn slice(name: &str, service: &str) -> Object {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": name, "labels": {SERVICE_NAME: service}},
        "addressType": "IPv4", "endpoints": [],
    }))
    .unwrap();
    slice.wrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("a", name)
}

#[test]
fn a_status_alone_is_no_reason_to_translate() {
    let mut cluster = Cluster::default();
    let is: BTreeSet<_> = [(Kind::HttpRoute, name("r"))].into();
    let itself = Effect { routes: is.clone(), status: is.clone(), ..Effect::default() };
    let looked_at = Effect { status: is, ..Effect::default() };
    assert_eq!(cluster.apply(Change::Upsert(route("1", 1, "x", false))), itself);
    assert!(cluster.apply(Change::Upsert(route("1", 1, "x", false))).is_none());
    assert_eq!(cluster.apply(Change::Upsert(route("2", 1, "x", true))), looked_at);
    // A version that says the same may have overtaken what was to be written.
    assert_eq!(cluster.apply(Change::Upsert(route("3", 1, "x", true))), looked_at);
    assert_eq!(cluster.apply(Change::Upsert(route("4", 2, "y", true))), itself);
    assert_eq!(cluster.apply(Change::Delete(Kind::HttpRoute, name("r"))), itself);
    assert!(cluster.apply(Change::Delete(Kind::HttpRoute, name("r"))).is_none());
}

/// What was translated of a route stays as long as its body is the same one.
#[test]
fn a_status_alone_leaves_the_body_as_it_is() {
    let mut cluster = Cluster::default();
    let body = |cluster: &Cluster| cluster.http_routes[&name("r")].body().clone();
    cluster.apply(Change::Upsert(route("1", 1, "x", false)));
    let first = body(&cluster);
    cluster.apply(Change::Upsert(route("2", 1, "x", true)));
    assert!(Arc::ptr_eq(&first, &body(&cluster)));
    assert_eq!(cluster.route_status(Kind::HttpRoute, &name("r")), Some(RouteStatus::default()));
    cluster.apply(Change::Upsert(route("3", 2, "y", true)));
    assert!(!Arc::ptr_eq(&first, &body(&cluster)));
    let kept = cluster.http_routes[&name("r")].unpack();
    assert_eq!((kept.metadata.generation, kept.spec.hostnames), (Some(2), Some(vec!["y".to_owned()])));
    assert!(kept.metadata.uid.is_none() && kept.status.is_none());
}

#[test]
fn slices_are_found_by_service_also_after_they_moved() {
    let mut cluster = Cluster::default();
    let effect = cluster.apply(Change::Upsert(slice("s", "old")));
    assert_eq!((effect.routing, effect.endpoints), (false, [name("old")].into()));
    let effect = cluster.apply(Change::Upsert(slice("s", "new")));
    assert_eq!(effect.endpoints, [name("old"), name("new")].into());
    assert_eq!(cluster.slices_of(&name("old")).count(), 0);
    assert_eq!(cluster.slices_of(&name("new")).count(), 1);
    cluster.apply(Change::Delete(Kind::EndpointSlice, name("s")));
    assert_eq!(cluster.slices_of(&name("new")).count(), 0);
}

#[test]
fn a_list_replaces_what_was_there() {
    let mut cluster = Cluster::default();
    let kind = Kind::EndpointSlice;
    assert!(!cluster.is_complete(&[kind]));
    let list = |objects| Change::Replace { kind, objects, undecodable: vec![] };
    assert!(cluster.apply(list(vec![slice("a", "x"), slice("b", "x")])).routing);
    assert!(cluster.is_complete(&[kind]) && !cluster.is_complete(Kind::ALL));
    let effect = cluster.apply(list(vec![slice("b", "x")]));
    assert_eq!((effect.routing, effect.endpoints), (false, [name("x")].into()));
    assert_eq!(cluster.slices_of(&name("x")).count(), 1);
}

#[test]
fn what_cannot_be_read_leaves_what_could() {
    let mut cluster = Cluster::default();
    cluster.apply(Change::Upsert(route("1", 1, "x", false)));
    let broken = Change::Undecodable(Kind::HttpRoute, name("r"), "spec: no".into());
    assert!(cluster.apply(broken.clone()).routing);
    assert!(cluster.apply(broken).is_none());
    assert!(cluster.http_routes.contains_key(&name("r")));
    assert_eq!(cluster.undecodable.len(), 1);
    assert!(cluster.apply(Change::Upsert(route("1", 1, "x", false))).routing);
    assert!(cluster.undecodable.is_empty());
    // A list without it: it is gone, readable or not.
    cluster.apply(Change::Undecodable(Kind::HttpRoute, name("never"), "no".into()));
    cluster.apply(Change::Replace { kind: Kind::HttpRoute, objects: vec![], undecodable: vec![] });
    assert!(cluster.undecodable.is_empty() && cluster.http_routes.is_empty());
}

#[test]
fn of_services_ports_are_kept_and_of_ours_all() {
    let kept = |labels: &serde_json::Value| {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "s", "uid": "u", "labels": labels},
            "spec": {"type": "ClusterIP", "clusterIPs": ["192.0.2.1"], "ports": [{"name": "web", "port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}},
        }))
        .unwrap();
        let Object::Service(kept) = service.wrap() else { unreachable!("a Service") };
        serde_json::to_value(&*kept).unwrap()
    };
    let somebodys = kept(&json!({"app": "web"}));
    assert_eq!(somebodys["metadata"], json!({"namespace": "a", "name": "s", "uid": "u"}));
    assert_eq!(somebodys["spec"], json!({"type": "ClusterIP", "ports": [{"name": "web", "port": 80}]}));
    let ours = kept(&json!({crate::infra::CONTROLLER: "us"}));
    assert_eq!(ours["spec"]["clusterIPs"], json!(["192.0.2.1"]));
}

#[test]
fn only_what_is_read_is_kept() {
    let mut cluster = Cluster::default();
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "s", "managedFields": [{}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "data": {"tls.crt": "YQ==", "password": "YQ=="},
    }))
    .unwrap();
    cluster.apply(Change::Upsert(secret.wrap()));
    let kept = &cluster.secrets[&name("s")];
    assert_eq!(kept.data.as_ref().unwrap().keys().collect::<Vec<_>>(), ["tls.crt"]);
    assert!(kept.metadata.managed_fields.is_none() && kept.metadata.annotations.is_none());
}
