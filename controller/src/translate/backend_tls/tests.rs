//! Policies over Services that routes use, from YAML to model and statuses.

use crate::cluster::{Change, Cluster, Kind};
use crate::settings::{Mode, Settings};
use crate::source::catalog;
use crate::status::{Statuses, render};
use crate::translate::{Translation, Translator};
use headgate_proxy::model::{
    Action, Authorities, BackendId, BackendKind, BackendProtocol, BackendTls, Failure, ObjectName, RouteId,
    RouteKind, SubjectAltName, Target, Transport,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: a, uid: g, generation: 1}
spec:
  gatewayClassName: headgate
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route, namespace: a, generation: 1}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /one}}]
    backendRefs: [{name: shop, port: 443}]
  - matches: [{path: {type: PathPrefix, value: /two}}]
    backendRefs: [{name: shop, port: 8443}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: a}
spec:
  ports:
  - {name: one, port: 443, appProtocol: HTTPS}
  - {name: two, port: 8443}
";

pub(in crate::translate) struct Case {
    pub(in crate::translate) cluster: Cluster,
    pub(in crate::translate) translator: Translator,
}

impl Case {
    /// The base, a ConfigMap `ca` with an authority, and this.
    pub(in crate::translate) fn new(yaml: &str) -> Self {
        let translator = Translator::new(Settings::new(Mode::Files));
        let mut case = Self { cluster: Cluster::default(), translator };
        case.authority("ConfigMap", "ca");
        case.apply(BASE);
        case.apply(yaml);
        case
    }

    pub(in crate::translate) fn apply(&mut self, yaml: &str) {
        for document in serde_yaml_ng::Deserializer::from_str(yaml) {
            let value = Value::deserialize(document).unwrap();
            if !value.is_null() {
                self.put(value);
            }
        }
    }

    pub(in crate::translate) fn put(&mut self, value: Value) {
        let group = value["apiVersion"].as_str().unwrap().rsplit_once('/').map_or("", |(group, _)| group);
        let entry = catalog::find(group, value["kind"].as_str().unwrap()).unwrap();
        self.cluster.apply(Change::Upsert(entry.kind.decode(value.to_string().as_bytes()).unwrap()));
    }

    fn authority(&mut self, kind: &str, name: &str) {
        use base64::Engine;
        let pem = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem();
        let pem = if kind == "Secret" { base64::prelude::BASE64_STANDARD.encode(pem) } else { pem };
        self.put(json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "a"}, "data": {"ca.crt": pem},
        }));
    }

    pub(in crate::translate) fn translate(&mut self) -> Translation {
        self.translator.translate(&self.cluster, &BTreeMap::new())
    }

    /// What a policy is told, as `Type=Status Reason`, by ancestor.
    fn told(&self, statuses: &Statuses, name: &str) -> Vec<(String, Vec<String>)> {
        let epoch = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let all = render(&self.cluster, statuses, "us", &epoch);
        let mut found =
            all.iter().filter(|one| one["kind"] == "BackendTLSPolicy" && one["metadata"]["name"] == name);
        let Some(object) = found.next() else { return Vec::new() };
        let ancestors = object["status"]["ancestors"].as_array().unwrap().iter();
        ancestors
            .map(|ancestor| {
                let conditions = ancestor["conditions"].as_array().unwrap().iter().map(|condition| {
                    assert_eq!(condition["observedGeneration"], 1);
                    let word = |field: &str| condition[field].as_str().unwrap().to_owned();
                    format!("{}={} {}", word("type"), word("status"), word("reason"))
                });
                let at = &ancestor["ancestorRef"];
                (
                    format!("{}/{}", at["namespace"].as_str().unwrap(), at["name"].as_str().unwrap()),
                    conditions.collect(),
                )
            })
            .collect()
    }
}

/// A policy for the Service `shop`.
fn policy(name: &str, section: &str, created: u32, validation: &str) -> String {
    let section = if section.is_empty() { String::new() } else { format!(", sectionName: {section}") };
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}, namespace: a, generation: 1, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec:
  targetRefs: [{{group: '', kind: Service, name: shop{section}}}]
  validation: {{{validation}}}
"
    )
}

const GOOD: &str = "hostname: a.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";

fn backend(port: u16) -> BackendId {
    BackendId {
        kind: BackendKind::Service,
        name: ObjectName::new("a", "shop"),
        port,
        transport: Transport::Tcp,
    }
}

fn tls(translation: &Translation, port: u16) -> Option<BackendTls> {
    let backend = translation.model.backends.get(&backend(port)).expect("it can be used");
    backend.tls.as_deref().cloned()
}

/// Where the rule for a port forwards to.
fn target(translation: &Translation, rule: usize) -> Target {
    let id = RouteId { kind: RouteKind::Http, name: ObjectName::new("a", "route") };
    let action = &translation.model.routes[&id].rules[rule].action;
    let Action::Forward(split) = action else { panic!("{action:?}") };
    split[0].target.clone()
}

fn accepted() -> Vec<(String, Vec<String>)> {
    told(&["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs"])
}

fn told(conditions: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![("a/gw".to_owned(), conditions.iter().map(|one| (*one).to_owned()).collect())]
}

#[test]
fn what_says_it_is_tls_is_not_spoken_to_without_a_policy() {
    let translation = Case::new("").translate();
    assert_eq!(target(&translation, 0), Target::Fail(Failure::UnsupportedBackend));
    assert_eq!(tls(&translation, 8443), None);
}

#[test]
fn a_policy_holds_for_the_service_and_another_one_for_its_port() {
    let names = "hostname: B.example, wellKnownCACertificates: System, subjectAltNames: \
                 [{type: Hostname, hostname: c.example}, {type: URI, uri: 'spiffe://d/E'}]";
    let yaml = policy("whole", "", 1, GOOD) + &policy("port", "two", 2, names);
    let mut case = Case::new(&yaml);
    let translation = case.translate();
    let one = tls(&translation, 443).unwrap();
    assert_eq!(&*one.server_name, "a.example");
    assert!(
        matches!(&one.authorities, Authorities::Bundles(bundles) if bundles[0].starts_with("-----BEGIN"))
    );
    let two = tls(&translation, 8443).unwrap();
    assert_eq!((&*two.server_name, two.authorities), ("b.example", Authorities::System));
    let wanted = [SubjectAltName::Dns("c.example".into()), SubjectAltName::Uri("spiffe://d/E".into())];
    assert_eq!(two.subject_alt_names, wanted);
    assert_eq!(translation.model.backends[&backend(443)].protocol, BackendProtocol::Http1);
    assert_eq!(case.told(&translation.statuses, "whole"), accepted());
    assert_eq!(case.told(&translation.statuses, "port"), accepted());
}

#[test]
fn of_two_policies_the_older_counts_then_the_first_by_name() {
    let younger = GOOD.replace("a.example", "younger.example");
    let yaml = policy("a-younger", "", 2, &younger) + &policy("older", "", 1, GOOD);
    let mut case = Case::new(&yaml);
    let translation = case.translate();
    assert_eq!(&*tls(&translation, 443).unwrap().server_name, "a.example");
    assert_eq!(case.told(&translation.statuses, "older"), accepted());
    let conflicted = told(&["Accepted=False Conflicted", "ResolvedRefs=True ResolvedRefs"]);
    assert_eq!(case.told(&translation.statuses, "a-younger"), conflicted);
    let yaml = policy("z", "one", 1, GOOD) + &policy("y", "one", 1, &younger);
    let mut case = Case::new(&yaml);
    let translation = case.translate();
    assert_eq!(&*tls(&translation, 443).unwrap().server_name, "younger.example");
    assert_eq!(case.told(&translation.statuses, "z"), conflicted);
}

#[test]
fn what_cannot_be_verified_is_not_spoken_to() {
    let of = |kind: &str, name: &str| {
        format!("hostname: a.example, caCertificateRefs: [{{group: '', kind: {kind}, name: {name}}}]")
    };
    let absent = ["Accepted=False NoValidCACertificate", "ResolvedRefs=False InvalidCACertificateRef"];
    let kind = ["Accepted=False NoValidCACertificate", "ResolvedRefs=False InvalidKind"];
    let invalid = ["Accepted=False Invalid", "ResolvedRefs=True ResolvedRefs"];
    for (validation, conditions) in [
        (of("ConfigMap", "absent"), absent),
        (of("ConfigMap", "empty"), absent),
        (of("Odd", "ca"), kind),
        ("hostname: a.example, wellKnownCACertificates: example.com/ours".to_owned(), invalid),
    ] {
        let mut case = Case::new(&policy("it", "", 1, &validation));
        case.apply(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: empty, namespace: a}, data: {ca.crt: ''}}",
        );
        let translation = case.translate();
        assert_eq!(case.told(&translation.statuses, "it"), told(&conditions), "{validation}");
        for port in [443, 8443] {
            assert_eq!(tls(&translation, port).unwrap().authorities, Authorities::Nobody);
        }
        // It's not the route's fault.
        let id = (Kind::HttpRoute, ObjectName::new("a", "route"));
        let route = &translation.statuses.routes[&id].parents[0];
        assert!(route.conditions.iter().all(|condition| condition.status));
    }
}

#[test]
fn an_authority_that_comes_goes_or_changes_counts_at_once() {
    let references = "hostname: a.example, caCertificateRefs: \
                      [{group: '', kind: ConfigMap, name: later}, {group: '', kind: Secret, name: later}]";
    let mut case = Case::new(&policy("it", "two", 1, references));
    assert_eq!(tls(&case.translate(), 8443).unwrap().authorities, Authorities::Nobody);
    case.authority("ConfigMap", "later");
    let first = case.translate();
    let partly = told(&["Accepted=True Accepted", "ResolvedRefs=False InvalidCACertificateRef"]);
    assert_eq!(case.told(&first.statuses, "it"), partly);
    case.authority("Secret", "later");
    let second = case.translate();
    assert_eq!(case.told(&second.statuses, "it"), accepted());
    assert_ne!(tls(&first, 8443), tls(&second, 8443));
    // Nothing new: the same object.
    let again = case.translate();
    assert!(std::sync::Arc::ptr_eq(
        &again.model.backends[&backend(8443)],
        &second.model.backends[&backend(8443)]
    ));
    for kind in [Kind::ConfigMap, Kind::Secret] {
        case.cluster.apply(Change::Delete(kind, ObjectName::new("a", "later")));
    }
    assert_eq!(tls(&case.translate(), 8443).unwrap().authorities, Authorities::Nobody);
    case.cluster.apply(Change::Delete(Kind::BackendTlsPolicy, ObjectName::new("a", "it")));
    assert_eq!(tls(&case.translate(), 8443), None);
}

#[test]
fn authorities_may_be_the_clusters() {
    let reference = "hostname: a.example, caCertificateRefs: \
                     [{group: certificates.k8s.io, kind: ClusterTrustBundle, name: 'example.com:ca:1'}]";
    let mut case = Case::new(&policy("it", "two", 1, reference));
    let absent = told(&["Accepted=False NoValidCACertificate", "ResolvedRefs=False InvalidCACertificateRef"]);
    let translation = case.translate();
    assert_eq!(case.told(&translation.statuses, "it"), absent);
    let pem = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem();
    case.put(json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": {"name": "example.com:ca:1"}, "spec": {"trustBundle": pem},
    }));
    let translation = case.translate();
    assert_eq!(case.told(&translation.statuses, "it"), accepted());
    assert!(tls(&translation, 8443).is_some());
}

#[test]
fn routes_of_every_kind_find_a_backend_verified_alike() {
    let mut case = Case::new(&policy("it", "two", 1, GOOD));
    case.cluster.apply(Change::Delete(Kind::HttpRoute, ObjectName::new("a", "route")));
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: a, uid: g, generation: 1}
spec:
  gatewayClassName: headgate
  listeners:
  - {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: tcp, port: 5432, protocol: TCP}
  - {name: http, port: 80, protocol: HTTP}
";
    case.apply(gateway);
    for (kind, hostnames) in [("TLSRoute", "hostnames: [a.example], "), ("TCPRoute", ""), ("GRPCRoute", "")] {
        case.apply(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: r, namespace: a, generation: 1}}, \
             spec: {{parentRefs: [{{name: gw}}], {hostnames}rules: [{{backendRefs: [{{name: shop, port: 8443}}]}}]}}}}"
        ));
        let translation = case.translate();
        assert_eq!(&*tls(&translation, 8443).unwrap().server_name, "a.example", "{kind}");
        assert_eq!(case.told(&translation.statuses, "it"), accepted(), "{kind}");
        for route in [Kind::TlsRoute, Kind::TcpRoute, Kind::GrpcRoute] {
            case.cluster.apply(Change::Delete(route, ObjectName::new("a", "r")));
        }
    }
}

#[test]
fn only_gateways_that_forward_there_are_told_and_others_entries_stay() {
    let mut case = Case::new(&policy("it", "three", 1, GOOD));
    let absent = told(&["Accepted=False TargetNotFound", "ResolvedRefs=True ResolvedRefs"]);
    let translation = case.translate();
    assert_eq!(case.told(&translation.statuses, "it"), absent);
    case.cluster.apply(Change::Delete(Kind::HttpRoute, ObjectName::new("a", "route")));
    let foreign = json!({
        "controllerName": "others", "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
        "ancestorRef": {"kind": "Gateway", "namespace": "b", "name": "theirs"},
    });
    let mut ours = foreign.clone();
    ours["controllerName"] = "us".into();
    let spec = serde_yaml_ng::from_str::<Value>(policy("it", "three", 1, GOOD).trim_start_matches("---\n"));
    let mut object = spec.unwrap();
    object["status"] = json!({"ancestors": [foreign, ours]});
    object["metadata"]["generation"] = 2.into();
    case.put(object);
    let translation = case.translate();
    let theirs = vec![("b/theirs".to_owned(), vec!["Accepted=True Accepted".to_owned()])];
    assert_eq!(case.told(&translation.statuses, "it"), theirs);
}

#[test]
fn a_gateways_client_certificate_is_resolved() {
    use base64::Engine;
    let mut case = Case::new("");
    let mut gateway = |group: &str, kind: &str, namespace: &str, name: &str| {
        case.put(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "gw", "namespace": "a", "uid": "g", "generation": 1},
            "spec": {
                "gatewayClassName": "headgate",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                "tls": {"backend": {"clientCertificateRef":
                    {"group": group, "kind": kind, "namespace": namespace, "name": name}}},
            },
        }));
        let made = rcgen::generate_simple_self_signed(["gateway.example".to_owned()]).unwrap();
        let encode = |pem: String| base64::prelude::BASE64_STANDARD.encode(pem);
        case.put(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "good", "namespace": "a"},
            "data": {"tls.crt": encode(made.cert.pem()), "tls.key": encode(made.signing_key.serialize_pem())},
        }));
        case.apply("{apiVersion: v1, kind: Secret, metadata: {name: empty, namespace: a}, data: {}}");
        let translation = case.translate();
        let gateway = &translation.statuses.gateways[&ObjectName::new("a", "gw")];
        assert!(gateway.conditions[0].status, "Accepted all the same");
        let resolved = gateway.conditions.iter().find(|condition| condition.kind.as_str() == "ResolvedRefs");
        let resolved = resolved.map(|condition| (condition.status, condition.reason.as_str()));
        let port = translation.model.ports.values().next().unwrap();
        (resolved.unwrap(), port.client_certificate.is_some())
    };
    assert_eq!(gateway("", "Secret", "a", "good"), ((true, "ResolvedRefs"), true));
    for (group, kind, name) in [
        ("", "Secret", "absent"),
        ("", "Secret", "empty"),
        ("odd.example", "Secret", "good"),
        ("", "Odd", "good"),
    ] {
        assert_eq!(gateway(group, kind, "a", name), ((false, "InvalidClientCertificateRef"), false));
    }
    assert_eq!(gateway("", "Secret", "b", "good"), ((false, "RefNotPermitted"), false));
}
