//! `headgate run -f`: edits of files while it runs, good ones and bad ones, as clients see them.

use crate::client::{Connection, get, until};
use crate::manifests::{Folder, documents, gateway, route, service};
use crate::process::{Echo, Port, Process};

/// A gateway of one port, two backends `a` and `b`, and the file `routes.yaml` that the tests edit.
struct Serving {
    headgate: Process,
    folder: Folder,
    port: Port,
    backends: [Echo; 2],
}

const TO_A: &str = "backendRefs: [{name: a, port: 80}]";
const TO_B: &str = "backendRefs: [{name: b, port: 80}]";
const HOST: &str = "www.example";

impl Serving {
    fn start(routes: &str) -> Self {
        let backends = ["a", "b"].map(Echo::start);
        let port = Port::reserve();
        let services = documents(&[service("a", backends[0].port), service("b", backends[1].port)]);
        let folder = Folder::with(&[
            ("gateway.yaml", &gateway(port.number)),
            ("services.yaml", &services),
            ("routes.yaml", routes),
        ]);
        let path = folder.path().display().to_string();
        let mut headgate = Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &path]);
        headgate.line_with("serving");
        Self { headgate, folder, port, backends }
    }

    /// Which backend answers.
    fn backend(&self) -> String {
        get(self.port.number, HOST, "/").echo()["name"].as_str().expect("text").to_owned()
    }

    fn until_backend(&self, name: &str) {
        until(self.port.number, HOST, "/", |answer| answer.status == 200 && answer.echo()["name"] == name);
    }
}

#[test]
fn an_edit_is_served_on_open_connections_without_a_restart() {
    let serving = Serving::start(&route("r", HOST, TO_A));
    let mut open = Connection::open(serving.port.number).expect("it listens");
    assert_eq!(open.get(HOST, "/", "").echo()["name"], "a");

    serving.folder.write("routes.yaml", &route("r", HOST, TO_B));
    serving.until_backend("b");
    assert_eq!(open.get(HOST, "/", "").echo()["name"], "b", "the connection from before the edit");

    serving.folder.write("more.yaml", &route("more", "more.example", TO_A));
    until(serving.port.number, "more.example", "/", |answer| answer.status == 200);
    serving.folder.remove("more.yaml");
    until(serving.port.number, "more.example", "/", |answer| answer.status == 404);
    assert_eq!(open.get(HOST, "/", "").echo()["name"], "b");
}

#[test]
fn a_listener_that_is_added_is_served_and_one_that_is_moved_too() {
    let serving = Serving::start(&route("r", HOST, TO_A));
    let (second, third) = (Port::reserve(), Port::reserve());
    let with = |port: u16| {
        let listener = format!("  - {{name: second, protocol: HTTP, port: {port}}}\n");
        serving.folder.write("gateway.yaml", &(gateway(serving.port.number) + &listener));
    };
    with(second.number);
    until(second.number, HOST, "/", |answer| answer.status == 200);
    with(third.number);
    until(third.number, HOST, "/", |answer| answer.status == 200);
    assert_eq!(serving.backend(), "a");
}

#[test]
fn a_host_that_an_xbackend_names_is_looked_up() {
    let to_host = "backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: outside}]";
    let serving = Serving::start(&route("r", HOST, to_host));
    assert_eq!(get(serving.port.number, HOST, "/").status, 500, "there is no such XBackend");
    let backend = |port: u16| {
        format!(
            "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {{name: outside}}\nspec: \
             {{type: ExternalHostname, externalHostname: {{hostname: localhost}}, port: {{number: {port}}}}}\n"
        )
    };
    serving.folder.write("outside.yaml", &backend(serving.backends[1].port));
    serving.until_backend("b");
    serving.folder.write("outside.yaml", &backend(serving.backends[0].port));
    serving.until_backend("a");
}

#[test]
fn a_broken_edit_is_reported_with_its_place_and_the_last_good_state_serves_on() {
    let mut serving = Serving::start(&route("r", HOST, TO_A));

    // Not YAML.
    serving.folder.write("routes.yaml", &route("r", HOST, "backendRefs: [{name: b, port: 80}"));
    let said = serving.headgate.line_with("routes.yaml:11:");
    assert!(said.contains("not YAML"), "{said}");
    assert_eq!(serving.backend(), "a");

    // A field that the schema doesn't know.
    serving.folder.write("routes.yaml", &route("r", HOST, "backendRef: [{name: b, port: 80}]"));
    let said = serving.headgate.line_with("routes.yaml:11:");
    assert!(said.contains("HTTPRoute default/r: unknown field \"spec.rules[0].backendRef\""), "{said}");
    assert_eq!(serving.backend(), "a");

    // A value that it refuses; the other object of the file is good, and counts.
    let bad = route("r", HOST, "backendRefs: [{name: b, port: 80000}]");
    serving.folder.write("routes.yaml", &documents(&[bad, route("other", "other.example", TO_B)]));
    let said = serving.headgate.line_with("routes.yaml:11:");
    assert!(said.contains("spec.rules[0].backendRefs[0].port: Invalid value: 80000"), "{said}");
    until(serving.port.number, "other.example", "/", |answer| answer.status == 200);
    assert_eq!(serving.backend(), "a");

    serving.folder.write("routes.yaml", &route("r", HOST, TO_B));
    serving.headgate.line_with("all files are in order again");
    serving.until_backend("b");
}

#[test]
fn a_file_that_is_broken_at_the_start_keeps_nothing_else_from_being_served() {
    let port = Port::reserve();
    let folder = Folder::with(&[
        ("broken.yaml", "kind: [Gateway\n"),
        ("gateway.yaml", &gateway(port.number)),
        (
            "routes.yaml",
            &route("r", HOST, "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302}}]"),
        ),
    ]);
    let path = folder.path().display().to_string();
    let mut headgate = Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &path]);
    headgate.line_with("broken.yaml:1:");
    headgate.line_with("serving");
    assert_eq!(get(port.number, HOST, "/").status, 302);
}

#[test]
fn the_admin_port_tells_the_model_in_force() {
    let port = Port::reserve();
    let folder = Folder::with(&[("gateway.yaml", &gateway(port.number))]);
    let path = folder.path().display().to_string();
    let mut headgate = Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &path]);
    let started = headgate.line_with("started");
    let admin =
        started.split("admin=127.0.0.1:").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit));
    let admin: u16 = admin.expect("it says where").collect::<String>().parse().expect("a port");
    headgate.line_with("serving");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(get(admin, "localhost", path).status, 200, "{path}");
    }
    // What is said follows what is done.
    until(admin, "localhost", "/metrics", |answer| {
        let mut lines = answer.body.lines();
        let told = lines.find_map(|line| line.strip_prefix("headgate_publish_delay_seconds_count "));
        told.is_some_and(|count| count != "0")
    });
    let config = get(admin, "localhost", "/config");
    assert!(config.body.contains(&port.number.to_string()), "{config:?}");
}
