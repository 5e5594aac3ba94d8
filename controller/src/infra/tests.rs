use super::*;
use crate::cluster::{Change, Cluster, Object};
use crate::settings::Mode;
use serde_json::from_value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn infrastructure() -> Infrastructure {
    Infrastructure { ports: 20000..=20009, service: ServiceParameters::default() }
}

fn settings() -> Settings {
    Settings::new(Mode::Cluster { bind: [0, 0, 0, 0].into() })
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for object in [
        Object::GatewayClass(Arc::new(
            from_value(json!({
                "metadata": {"name": "headgate"},
                "spec": {"controllerName": "headgate.dev/gateway-controller"},
            }))
            .unwrap(),
        )),
        gateway("one", &[80, 443]),
        pod("a", true, false),
        pod("b", true, true),
        Object::Node(Arc::new(
            from_value(json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}}))
                .unwrap(),
        )),
    ] {
        cluster.apply(Change::Upsert(object));
    }
    cluster
}

fn gateway(name: &str, ports: &[u16]) -> Object {
    let listeners: Vec<_> = ports
        .iter()
        .map(|port| json!({"name": format!("l{port}"), "port": port, "protocol": "HTTP"}))
        .collect();
    Object::Gateway(Arc::new(
        from_value(json!({
            "metadata": {"namespace": "apps", "name": name, "uid": format!("uid-{name}")},
            "spec": {
                "gatewayClassName": "headgate",
                "listeners": listeners,
                "addresses": [{"value": "192.0.2.1"}],
                "infrastructure": {"labels": {"team": "web"}, "annotations": {"note": "x"}},
            },
        }))
        .unwrap(),
    ))
}

fn pod(name: &str, ready: bool, leaving: bool) -> Object {
    let mut pod = json!({
        "metadata": {"namespace": "headgate-system", "name": name, "uid": name},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}}]},
    });
    if leaving {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Object::Pod(Arc::new(from_value(pod).unwrap()))
}

/// Puts a planned Service into the cluster, as the API server would.
fn put(cluster: &mut Cluster, body: &Value) {
    let mut body = body.clone();
    body["metadata"]["uid"] = json!("uid-service");
    cluster.apply(Change::Upsert(Object::Service(Arc::new(from_value(body).unwrap()))));
}

#[test]
fn a_gateway_gets_a_service_that_records_its_ports() {
    let mut cluster = cluster();
    let mut ports = Ports::new(infrastructure().ports);
    let plan = services(&cluster, &settings(), &infrastructure(), &BTreeSet::new(), &mut ports);
    let name = ObjectName::new("apps", "headgate-one");
    let service = &plan.wanted[&name];
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 20000);
    assert_eq!(
        service["spec"]["ports"][1],
        json!({"name": "port-443", "port": 443, "protocol": "TCP", "targetPort": 20001})
    );
    assert_eq!(service["spec"]["loadBalancerIP"], "192.0.2.1");
    assert_eq!(service["metadata"]["labels"]["team"], "web");
    assert_eq!(service["metadata"]["labels"][crate::naming::GATEWAY_NAME], "one");
    assert_eq!(service["metadata"]["annotations"]["note"], "x");
    assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], "uid-one");
    put(&mut cluster, service);
    // Another leader, who remembers nothing, plans the same from the record; a new Gateway gets what is free.
    cluster.apply(Change::Upsert(gateway("another", &[80])));
    let mut ports = Ports::new(infrastructure().ports);
    let again = services(&cluster, &settings(), &infrastructure(), &BTreeSet::new(), &mut ports);
    assert_eq!(&again.wanted[&name], service);
    let another = ObjectName::new("apps", "headgate-another");
    assert_eq!(again.wanted[&another]["spec"]["ports"][0]["targetPort"], 20002);
    assert!(again.unwanted.is_empty());
    let present = serde_json::to_value(&*cluster.services[&name]).unwrap();
    assert!(says(&present, service));
}

#[test]
fn a_service_without_its_gateway_is_unwanted() {
    let mut cluster = cluster();
    let mut ports = Ports::new(infrastructure().ports);
    let plan = services(&cluster, &settings(), &infrastructure(), &BTreeSet::new(), &mut ports);
    let (name, body) = plan.wanted.first_key_value().unwrap();
    put(&mut cluster, body);
    cluster.apply(Change::Delete(crate::cluster::Kind::Gateway, ObjectName::new("apps", "one")));
    let plan = services(&cluster, &settings(), &infrastructure(), &BTreeSet::new(), &mut ports);
    assert_eq!((plan.wanted.len(), plan.unwanted), (0, vec![name.clone()]));
}

#[test]
fn slices_name_our_pods_and_what_becomes_of_them() {
    let mut cluster = cluster();
    assert!(endpoint_slices(&cluster, &settings()).is_empty(), "nothing before the Service is there");
    let mut ports = Ports::new(infrastructure().ports);
    let plan = services(&cluster, &settings(), &infrastructure(), &BTreeSet::new(), &mut ports);
    put(&mut cluster, plan.wanted.values().next().unwrap());
    let slices = endpoint_slices(&cluster, &settings());
    let slice = &slices[&ObjectName::new("apps", "headgate-one-ipv4")];
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "headgate-one");
    assert_eq!(slice["ports"][0], json!({"name": "port-80", "port": 20000, "protocol": "TCP"}));
    let endpoints = slice["endpoints"].as_array().unwrap();
    assert_eq!(endpoints[0]["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!(endpoints[1]["conditions"], json!({"ready": false, "serving": true, "terminating": true}));
    assert_eq!((&endpoints[0]["nodeName"], &endpoints[0]["zone"]), (&json!("n"), &json!("z")));
}

#[test]
fn saying_more_is_fine_but_not_in_lists() {
    assert!(says(&json!({"a": 1, "b": 2}), &json!({"a": 1, "c": {}})));
    assert!(!says(&json!({"a": 1}), &json!({"a": 2})));
    assert!(!says(&json!({"a": [1, 2]}), &json!({"a": [1]})));
    assert!(says(&json!({"a": [{"x": 1, "y": 2}]}), &json!({"a": [{"x": 1}]})));
}

/// GEP-1651: an address that only the cluster reaches is the Service's ClusterIP.
#[test]
fn a_gateway_for_the_cluster_gets_an_address_of_it() {
    for (addresses, kind, shown) in [
        (json!([{"routability": "Cluster"}]), "ClusterIP", json!([["10.96.0.7", "Cluster"]])),
        (json!([{}]), "LoadBalancer", json!([["192.0.2.1", null]])),
        (
            json!([{"routability": "Cluster"}, {"value": "192.0.2.1"}]),
            "LoadBalancer",
            json!([["192.0.2.1", null], ["10.96.0.7", "Cluster"]]),
        ),
        (json!([{"routability": "Cluster", "value": "10.96.0.8"}]), "ClusterIP", json!([])),
    ] {
        let Object::Gateway(gateway) = gateway("one", &[80]) else { unreachable!("a Gateway") };
        let mut gateway = Arc::unwrap_or_clone(gateway);
        gateway.spec.addresses = from_value(addresses.clone()).unwrap();
        let mut cluster = cluster();
        cluster.apply(Change::Upsert(Object::Gateway(Arc::new(gateway))));
        let mut ports = Ports::new(infrastructure().ports);
        let plan = services(&cluster, &settings(), &infrastructure(), &BTreeSet::new(), &mut ports);
        let mut service = plan.wanted[&ObjectName::new("apps", "headgate-one")].clone();
        assert_eq!(service["spec"]["type"], kind, "{addresses}");
        assert_eq!(
            service["spec"]["clusterIP"],
            addresses[0].get("routability").map_or(json!(null), |_| addresses[0]["value"].clone())
        );
        service["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        put(&mut cluster, &service);
        let mut translator = crate::translate::Translator::new(settings());
        let translation = translator.translate(&cluster, &BTreeMap::new());
        let draft = &translation.statuses.gateways[&ObjectName::new("apps", "one")];
        let told = draft.addresses.iter().map(|address| json!([address.value, address.routability]));
        assert_eq!(Value::from_iter(told), shown, "{addresses}");
    }
}
