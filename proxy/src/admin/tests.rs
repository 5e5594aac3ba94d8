//! What the admin port answers, over real sockets.

use super::*;
use crate::metrics::Metrics;
use crate::sample::{NoSockets, certificate, model, tls_port};
use std::io::{Read, Write};
use std::net::TcpStream as Socket;

struct Running {
    admin: Admin,
    publisher: Publisher,
}

fn run() -> Running {
    let metrics = Metrics::new(1);
    let publisher = Publisher::new(metrics.clone(), Box::new(NoSockets));
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Running { admin: start(address, publisher.clone(), registry, || {}).unwrap(), publisher }
}

impl Running {
    /// Status and the rest of the response.
    fn ask(&self, method: &str, path: &str, host: &str) -> (u16, String) {
        let mut socket = Socket::connect(self.admin.address()).unwrap();
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        let (line, rest) = response.split_once("\r\n").unwrap();
        (line.split(' ').nth(1).unwrap().parse().unwrap(), rest.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "127.0.0.1")
    }
}

#[test]
fn probes_follow_readiness() {
    let running = run();
    assert_eq!(running.get("/livez").0, 200);
    assert_eq!(running.get("/readyz").0, 503);
    running.publisher.publish(crate::model::Model::default());
    assert_eq!(running.get("/readyz").0, 200);
    running.publisher.drain();
    let (status, text) = running.get("/readyz");
    assert_eq!(status, 503);
    assert!(text.ends_with("draining\n"));
    assert_eq!(running.get("/livez").0, 200);
}

#[test]
fn only_get_and_head() {
    let running = run();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let (status, rest) = running.ask(method, "/config", "localhost");
        assert_eq!(status, 405);
        assert!(rest.to_ascii_lowercase().contains("allow: get, head"));
    }
    let (status, rest) = running.ask("HEAD", "/livez", "localhost");
    assert_eq!(status, 200);
    assert!(rest.ends_with("\r\n\r\n"), "no body: {rest}");
    assert_eq!(running.get("/").0, 404);
}

#[test]
fn metrics_are_openmetrics() {
    let (status, text) = run().get("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("application/openmetrics-text; version=1.0.0"));
    assert!(text.contains("headgate_build_info") && text.trim_end().ends_with("# EOF"));
}

#[test]
fn the_model_is_shown_without_its_secrets() {
    let running = run();
    let certificate = certificate("a.example");
    let canary = certificate.key.reveal().lines().nth(1).unwrap().to_owned();
    running.publisher.publish(model(vec![tls_port(443, &[("https", "a.example", certificate)])], vec![]));
    for host in ["127.0.0.1:15000", "localhost:15000", "[::1]"] {
        let (status, text) = running.ask("GET", "/config", host);
        assert_eq!(status, 200, "{host}");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let config: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(config["ports"][0]["listeners"][0]["hostname"], "a.example");
        assert_eq!(config["ports"][0]["listeners"][0]["tls"]["certificates"][0]["key"], "[redacted]");
        assert!(!text.contains(&canary));
    }
}

#[test]
fn the_model_is_for_this_machine_alone() {
    let running = run();
    assert_eq!(running.ask("GET", "/config", "rebound.example").0, 403);
    let state = State { publisher: running.publisher.clone(), registry: Registry::default() };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("10.0.0.1:15000"));
    let of = |peer: &str| answer(&Method::GET, "/config", &headers, peer.parse().unwrap(), &state).status();
    assert_eq!(
        (of("10.0.0.9"), of("127.0.0.1"), of("::1")),
        (StatusCode::FORBIDDEN, StatusCode::OK, StatusCode::OK)
    );
}

#[test]
fn the_port_closes_with_its_owner() {
    let running = run();
    let address = running.admin.address();
    let mut open = Socket::connect(address).unwrap();
    write!(open, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 12];
    open.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(running);
    // The runtime goes with its connections: what is left of the answer ends.
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest);
}
