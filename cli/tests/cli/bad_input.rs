//! Configuration that can't be honoured: each mistake is told on the object that has it, with the reason of the Gateway
//! API and a message that names what is wrong; what is right is served all the same.

use crate::client::{get, until};
use crate::manifests::{Folder, documents, gateway, route, secret, service};
use crate::process::{Echo, Port, Process, output};
use crate::translation::{Condition, conditions, translate};
use std::path::Path;

const GOOD: &str = "backendRefs: [{name: good, port: 80}]";

/// A condition that must be told, and all of these in its message.
struct Told<'a>(&'a str, [&'a str; 3], &'a [&'a str]);

fn assert_told(conditions: &[Condition], Told(of, [kind, status, reason], parts): &Told<'_>) {
    let found = conditions
        .iter()
        .find(|told| told.of == *of && told.kind == *kind)
        .unwrap_or_else(|| panic!("no {kind} of {of}: {conditions:#?}"));
    assert_eq!((found.status.as_str(), found.reason.as_str()), (*status, *reason), "{found:#?}");
    for part in *parts {
        assert!(found.message.contains(part), "{part:?} is not in {found:#?}");
    }
}

fn translate_folder(folder: &Path) -> Vec<Condition> {
    conditions(&translate(&[folder]))
}

/// Objects that can be read, beside a Gateway with a good Service, and what is told of them.
fn assert_told_of(objects: &[String], told: &Told<'_>) {
    let file = documents(&[&[gateway(8080), service("good", 9001)], objects].concat());
    let folder = Folder::with(&[("file.yaml", &file)]);
    assert_told(&translate_folder(folder.path()), told);
}

fn https(port: u16, certificate: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: tls}}\nspec:\n  \
         gatewayClassName: headgate\n  addresses: [{{type: IPAddress, value: 127.0.0.1}}]\n  listeners:\n  \
         - {{name: https, protocol: HTTPS, port: {port}, tls: {{certificateRefs: [{{name: {certificate}}}]}}}}\n"
    )
}

fn mistakes(file: &str) -> String {
    let folder = Folder::with(&[("file.yaml", file)]);
    let done = output(["translate".as_ref(), "-f".as_ref(), folder.path().as_os_str()]);
    assert_eq!(done.status.code(), Some(3));
    String::from_utf8(done.stderr).expect("text")
}

#[test]
fn a_file_that_is_not_yaml() {
    let said = mistakes("apiVersion: v1\nkind: Service\nmetadata: {name: s\nspec: {}\n");
    assert!(said.contains("file.yaml:") && said.contains("not YAML"), "{said}");
}

#[test]
fn a_filter_of_a_type_that_does_not_exist() {
    let said = mistakes(&route("r", "a.example", "filters: [{type: RequestTeleport}]"));
    assert!(said.contains("file.yaml:11:"), "{said}");
    let told = "HTTPRoute default/r: spec.rules[0].filters[0].type: Unsupported value: \"RequestTeleport\": supported values:";
    assert!(said.contains(told), "{said}");
}

#[test]
fn a_filter_that_nobody_knows() {
    let rule = "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Teleport, name: t}}]";
    assert_told_of(
        &[route("r", "a.example", rule)],
        &Told(
            "HTTPRoute default/r parent gateway",
            ["Accepted", "False", "UnsupportedValue"],
            &["rules[0]", "filters[0]", "ExtensionRef", "not supported"],
        ),
    );
}

#[test]
fn a_service_that_is_missing() {
    assert_told_of(
        &[route("r", "a.example", "backendRefs: [{name: nowhere, port: 80}]")],
        &Told(
            "HTTPRoute default/r parent gateway",
            ["ResolvedRefs", "False", "BackendNotFound"],
            &["rules[0].backendRefs[0]", "default/nowhere"],
        ),
    );
}

#[test]
fn a_port_that_a_service_does_not_have() {
    assert_told_of(
        &[route("r", "a.example", "backendRefs: [{name: good, port: 81}]")],
        &Told(
            "HTTPRoute default/r parent gateway",
            ["ResolvedRefs", "False", "BackendNotFound"],
            &["rules[0].backendRefs[0]", "81", "default/good"],
        ),
    );
}

#[test]
fn a_port_that_a_gateway_does_not_have() {
    let other = route("r", "a.example", GOOD).replace("- name: gateway", "- name: gateway\n    port: 81");
    assert_told_of(
        &[other],
        &Told(
            "HTTPRoute default/r parent gateway",
            ["Accepted", "False", "NoMatchingParent"],
            &["port 81", "http (8080)"],
        ),
    );
}

#[test]
fn a_secret_that_is_missing() {
    assert_told_of(
        &[https(8443, "certificate")],
        &Told(
            "Gateway default/tls listener https",
            ["ResolvedRefs", "False", "InvalidCertificateRef"],
            &["default/certificate"],
        ),
    );
}

#[test]
fn a_certificate_that_is_none_or_is_anothers() {
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (ours, other) = (made("a.example"), made("b.example"));
    let whole = ours.cert.pem();
    for (chain, key, part) in [
        ("nonsense".to_owned(), ours.signing_key.serialize_pem(), "tls.crt"),
        (whole.replace("MI", "!!"), ours.signing_key.serialize_pem(), "tls.crt"),
        (whole.clone(), "nonsense".to_owned(), "tls.key"),
        (whole, other.signing_key.serialize_pem(), "tls.key"),
    ] {
        assert_told_of(
            &[https(8443, "certificate"), secret(&chain, &key)],
            &Told(
                "Gateway default/tls listener https",
                ["ResolvedRefs", "False", "InvalidCertificateRef"],
                &["default/certificate", part],
            ),
        );
    }
}

#[test]
fn listeners_that_overlap() {
    for (listener, reason, part) in [
        ("{name: second, protocol: HTTP, port: 8080}", "HostnameConflict", "8080"),
        (
            "{name: second, protocol: HTTPS, port: 8080, tls: {certificateRefs: [{name: c}]}}",
            "ProtocolConflict",
            "8080",
        ),
    ] {
        let file = gateway(8080) + "  - " + listener + "\n";
        let folder = Folder::with(&[("file.yaml", &file)]);
        let conditions = translate_folder(folder.path());
        let second = "Gateway default/gateway listener second";
        assert_told(&conditions, &Told(second, ["Conflicted", "True", reason], &[]));
        let told = conditions.iter().find(|told| told.of == second && told.kind == "Conflicted");
        assert!(told.is_some_and(|told| told.message.contains(part)), "{told:?}");
    }
}

/// All of them at once, and what is right is served.
#[test]
fn what_is_right_is_served_beside_them() {
    let good = Echo::start("good");
    let (port, tls) = (Port::reserve(), Port::reserve());
    let second = format!("  - {{name: second, protocol: HTTP, port: {}}}\n", port.number);
    let objects = [
        gateway(port.number) + &second,
        https(tls.number, "nowhere"),
        service("good", good.port),
        route("good", "good.example", GOOD),
        route("no-service", "no-service.example", "backendRefs: [{name: nowhere, port: 80}]"),
        route("no-port", "no-port.example", "backendRefs: [{name: good, port: 81}]"),
        route(
            "no-filter",
            "no-filter.example",
            "{filters: [{type: ExtensionRef, extensionRef: {group: a.example, kind: A, name: a}}], backendRefs: [{name: good, port: 80}]}",
        ),
        route(
            "half",
            "half.example",
            "backendRefs: [{name: nowhere, port: 80, weight: 1}, {name: good, port: 80, weight: 1}]",
        ),
    ];
    let folder = Folder::with(&[("file.yaml", &documents(&objects)), ("broken.yaml", "- [")]);
    let path = folder.path().display().to_string();
    let mut headgate = Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &path]);
    headgate.line_with("broken.yaml:1:");
    headgate.line_with("serving");
    let told = headgate.line_with("HTTPRoute default/no-service");
    assert!(told.contains("ResolvedRefs=False BackendNotFound"), "{told}");

    assert_eq!(get(port.number, "good.example", "/").echo()["name"], "good");
    for host in ["no-service.example", "no-port.example", "no-filter.example"] {
        assert_eq!(get(port.number, host, "/").status, 500, "{host}");
    }
    // The share of a backend that is missing, and the rest.
    for status in [200, 500] {
        until(port.number, "half.example", "/", |answer| answer.status == status);
    }
}
