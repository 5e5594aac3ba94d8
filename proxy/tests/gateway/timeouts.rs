//! Bounds in time, set short: what a test asserts is the answer, not how long it took.

use crate::harness::{Backend, Setup, ok, to};
use headgate_proxy::Limits;
use headgate_proxy::model::{BackendProtocol, Timeouts};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_millis(200);

/// Reads, and never answers.
async fn silent() -> Backend {
    Backend::raw(|mut stream, _| async move {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
    })
    .await
}

#[tokio::test]
async fn a_rules_timeouts_are_504() {
    let backend = silent().await;
    let mut setup = Setup::http();
    setup.backend("silent", BackendProtocol::Http1, &[backend.address]);
    setup.backend("silent-h2", BackendProtocol::H2c, &[backend.address]);
    let request = Timeouts { request: Some(SHORT), backend_request: None };
    let attempt = Timeouts { request: None, backend_request: Some(SHORT) };
    setup.rule("a", "any", "/request", to("silent"), vec![], request);
    setup.rule("b", "any", "/attempt", to("silent"), vec![], attempt);
    setup.rule("c", "any", "/h2", to("silent-h2"), vec![], request);
    let gateway = setup.start();
    for path in ["/request", "/attempt", "/h2"] {
        let mut client = gateway.client().await;
        assert_eq!(client.get(path).await.status(), 504, "{path}");
        assert_eq!(client.post(path, b"hello").await.status(), 504, "{path}");
    }
    for reason in ["request_timeout", "upstream_timeout"] {
        assert!(gateway.metric(&format!("headgate_rejections_total{{reason=\"{reason}\"")).await >= 1.0);
    }
}

#[tokio::test]
async fn a_timeout_in_the_midst_of_an_answer_cuts_it() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        let _ = stream.read(&mut request).await;
    })
    .await;
    let mut setup = Setup::http();
    setup.backend("a", BackendProtocol::Http1, &[backend.address]);
    let timeouts = Timeouts { request: Some(SHORT), backend_request: None };
    setup.rule("a", "any", "/", to("a"), vec![], timeouts);
    let gateway = setup.start();
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let seen = String::from_utf8(client.rest().await).unwrap();
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.ends_with("half"), "{seen}");
}

#[tokio::test]
async fn a_backend_that_is_silent_for_too_long_is_504() {
    let backend = silent().await;
    let limits = Limits { answer: SHORT, ..Limits::default() };
    let gateway = Setup::only(&[backend.address]).start_with(limits, 1);
    assert_eq!(gateway.get("/").await.status(), 504);
}

#[tokio::test]
async fn heads_bodies_and_idle_connections_have_their_time() {
    let backend = Backend::http(|request| ok(&request.body)).await;
    let limits = Limits { head: SHORT, body: SHORT, keep_alive: SHORT, ..Limits::default() };
    let gateway = Setup::only(&[backend.address]).start_with(limits, 1);
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Half").await;
    assert_eq!(client.response().await.status(), 408);
    assert!(client.rest().await.is_empty());
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let stalled = client.response().await;
    assert_eq!((stalled.status(), stalled.header("connection")), (408, Some("close")));
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    assert!(client.rest().await.is_empty());
    // Nothing said at all.
    assert!(gateway.client().await.rest().await.is_empty());
}

#[tokio::test]
async fn bodies_that_only_trickle_are_408() {
    let backend = Backend::http(|request| ok(&request.body)).await;
    let limits = Limits { slow_body: SHORT, ..Limits::default() };
    let mut setup = Setup::only(&[backend.address]);
    let silent = silent().await;
    setup.backend("h2c", BackendProtocol::H2c, &[silent.address]).route("h2c", "/h2c", to("h2c"));
    let gateway = setup.start_with(limits, 1);
    for (path, kind, status) in
        [("/", "text/plain", 408), ("/h2c", "text/plain", 408), ("/", "application/grpc", 200)]
    {
        let mut client = gateway.client().await;
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: 8\r\n\r\n");
        client.send(head).await;
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..8 {
            ticks.tick().await;
            // Once it was refused, nobody reads.
            let _ = client.io.write_all(b"x").await;
        }
        assert_eq!(client.response().await.status(), status, "{path} {kind}");
    }
    assert!(gateway.metric("headgate_rejections_total{reason=\"body_timeout\"").await >= 2.0);
}

#[tokio::test]
async fn slow_but_steady_bodies_go_through() {
    let backend = Backend::http(|request| ok(&request.body)).await;
    let limits = Limits { body: Duration::from_secs(2), answer: Duration::from_secs(2), ..Limits::default() };
    let gateway = Setup::only(&[backend.address]).start_with(limits, 1);
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n").await;
    // Longer than any bound as a whole, never silent for as long as one.
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..30 {
        ticks.tick().await;
        client.send("x").await;
    }
    assert_eq!(client.response().await.text(), "x".repeat(30));
}
