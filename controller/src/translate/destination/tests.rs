//! XBackends whose endpoints come from elsewhere, and their certificates: what golden cases, which have no cluster, don't show.

use crate::cluster::{Change, Kind, Object, Watched};
use crate::infra::{Infrastructure, Ports, services};
use crate::settings::{Mode, Settings};
use crate::translate::Translator;
use crate::translate::backend_tls::tests::Case;
use headgate_crds::ServiceParameters;
use headgate_proxy::model::{BackendId, BackendKind, ObjectName, Transport};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ROUTE: &str = "
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: headgate, generation: 1},
 spec: {controllerName: headgate.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route, namespace: a, generation: 1}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: it}]}]
---
";

fn id(port: u16) -> BackendId {
    let name = ObjectName::new("a", "it");
    BackendId { kind: BackendKind::XBackend, name, port, transport: Transport::Tcp }
}

fn case(spec: &str) -> Case {
    let mut case = Case::new(ROUTE);
    case.translator = Translator::new(Settings::new(Mode::Cluster { bind: [0, 0, 0, 0].into() }));
    case.apply(&format!(
        "{{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XBackend, \
         metadata: {{name: it, namespace: a, uid: u-1, generation: 1}}, spec: {spec}}}"
    ));
    case
}

/// Addresses of a backend's endpoints when a change has gone past translation; a whole translation has the same.
fn swapped(case: &mut Case, change: Change, port: u16) -> Vec<String> {
    let effect = case.cluster.apply(change);
    assert!(!effect.routing);
    let swapped = case.translator.endpoints(&case.cluster, &effect.endpoints, &effect.hosts);
    let [(backend, set)] = swapped.as_slice() else { panic!("{swapped:?}") };
    assert_eq!(*backend, id(port));
    assert!(Arc::ptr_eq(set, &case.translate().model.endpoints[backend]));
    set.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn a_selector_gets_a_service_whose_slices_are_its_endpoints() {
    let mut case =
        case("{type: EndpointSelector, endpointSelector: {matchLabels: {app: shop}}, port: {number: 8080}}");
    let translation = case.translate();
    assert!(translation.needs.hosts.is_empty());
    let infrastructure = Infrastructure { ports: 1000..=1009, service: ServiceParameters::default() };
    let mut ports = Ports::new(infrastructure.ports.clone());
    let mut plan = |needs| {
        let settings = case.translator.settings();
        services(&case.cluster, settings, &infrastructure, needs, &mut ports)
    };
    let planned = plan(&translation.needs.selectors);
    let (name, body) =
        planned.wanted.iter().find(|(name, _)| name.name.starts_with("headgate-backend-")).unwrap();
    assert_eq!(&*name.namespace, "a");
    assert_eq!(
        body["spec"],
        json!({
            "clusterIP": "None", "selector": {"app": "shop"},
            "ports": [{"name": "backend", "port": 8080, "targetPort": 8080, "protocol": "TCP"}],
        })
    );
    let owner = &body["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("XBackend"), &json!("u-1")));
    // Nobody uses it any more: then it goes.
    let service: Value = body.clone();
    case.cluster.apply(Change::Upsert(Object::Service(Arc::new(serde_json::from_value(service).unwrap()))));
    let settings = case.translator.settings();
    let plan = services(&case.cluster, settings, &infrastructure, &BTreeSet::new(), &mut ports);
    assert_eq!(plan.unwanted, std::slice::from_ref(name));

    let slice = |addresses: &[&str]| {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let slice = json!({
            "metadata": {
                "name": "s", "namespace": "a", "labels": {"kubernetes.io/service-name": &*name.name},
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "backend", "port": 8080}],
        });
        Change::Upsert(serde_json::from_value::<EndpointSlice>(slice).unwrap().wrap())
    };
    let change = slice(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(swapped(&mut case, change, 8080), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    let gone = Change::Delete(Kind::EndpointSlice, ObjectName::new("a", "s"));
    assert_eq!(swapped(&mut case, gone, 8080), [""; 0]);
}

#[test]
fn a_hosts_addresses_are_its_endpoints_but_for_our_own() {
    let mut case =
        case("{type: ExternalHostname, externalHostname: {hostname: Shop.example}, port: {number: 443}}");
    let needs = case.translate().needs;
    assert_eq!(needs.hosts, BTreeSet::from(["shop.example".into()]));
    assert!(needs.selectors.is_empty());
    let found = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Change::Host("shop.example".into(), Some(addresses))
    };
    // A name that leads to our own pod or node leads nowhere (GEP-4894, "Identified Security Risks").
    let change = found(&["192.0.2.7", "127.0.0.1", "169.254.169.254", "2001:db8::1"]);
    assert_eq!(swapped(&mut case, change, 443), ["192.0.2.7:443", "[2001:db8::1]:443"]);
    assert_eq!(swapped(&mut case, found(&["192.0.2.8"]), 443), ["192.0.2.8:443"]);
    assert_eq!(swapped(&mut case, Change::Host("shop.example".into(), None), 443), [""; 0]);
}

#[test]
fn a_client_certificate_is_the_backends_own() {
    use base64::Engine;
    let mut case = case(
        "{type: ExternalHostname, externalHostname: {hostname: shop.example}, port: {number: 443}, tls: {
            mode: ClientAndServer, clientCertificateRef: {name: us},
            validation: {hostname: shop.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}",
    );
    let mut secret = |chain: &str, key: &str| {
        let encode = |pem: &str| base64::prelude::BASE64_STANDARD.encode(pem);
        case.put(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "us", "namespace": "a"},
            "data": {"tls.crt": encode(chain), "tls.key": encode(key)},
        }));
        let translation = case.translator.translate(&case.cluster, &BTreeMap::new());
        let backend = translation.model.backends.get(&id(443)).cloned();
        let tls = backend.and_then(|backend| backend.tls.clone());
        tls.and_then(|tls| Some(tls.client_certificate.as_ref()?.chain.to_string()))
    };
    // Without it nothing is sent.
    assert_eq!(secret("nothing", "nothing"), None);
    let made = rcgen::generate_simple_self_signed(["us.example".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    assert_eq!(secret(&chain, &key).as_ref(), Some(&chain));
    // A renewal that goes wrong leaves the one before.
    assert_eq!(secret("nothing", &key), Some(chain));
}
