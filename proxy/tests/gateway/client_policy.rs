//! What ClientPolicies bound, with clients that speak in bytes.

use crate::harness::{Backend, Gateway, Setup, soon};
use headgate_proxy::model::{Policies, ScopedPolicies};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A gateway before an echo, whose requests may have bodies of so many bytes.
async fn bounded(most: u64) -> (Backend, Gateway) {
    let backend = Backend::echo().await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, most);
    let gateway = setup.start();
    (backend, gateway)
}

fn put(setup: &mut Setup, most: u64) {
    for route in setup.model.routes.values_mut() {
        let route = Arc::make_mut(route);
        let policies = Arc::new(Policies { request_body_bytes: Some(most), ..Policies::default() });
        for rule in &mut route.rules {
            rule.policies =
                vec![ScopedPolicies { listeners: route.listeners.clone(), policies: policies.clone() }];
        }
    }
}

#[tokio::test]
async fn a_body_of_as_many_bytes_as_it_may_have_passes() {
    let (_backend, gateway) = bounded(5).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    let answer = client.post("/", b"hello").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.text().ends_with("hello"), "{}", answer.text());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn a_body_that_is_announced_to_be_larger_is_413_at_once() {
    let (backend, gateway) = bounded(5).await;
    let mut client = gateway.client().await;
    let refused = client.post("/", b"hello!").await;
    assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")));
    assert_eq!(backend.connections(), 0, "what is refused has no need of a backend");
    let mut client = gateway.client().await;
    // Not a byte of this one was sent.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await;
    let refused = client.response().await;
    assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));

    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 413, "and no 100 before it");
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"body_too_large\"").await, 3.0);
}

/// Nobody announced it: it is counted as it comes, and the backend doesn't get the end of it.
#[tokio::test]
async fn a_chunked_body_is_413_when_too_much_has_come() {
    let (ended, mut seen) = tokio::sync::mpsc::channel(1);
    let backend = Backend::raw(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            let mut bytes = Vec::new();
            // A connection that is reset has no end either.
            drop(stream.read_to_end(&mut bytes).await);
            ended.send(bytes).await.unwrap();
        }
    })
    .await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, 5);
    let gateway = setup.start();
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("3\r\ndef\r\n").await;
    let refused = client.response().await;
    assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")));
    let got = soon(seen.recv()).await.unwrap();
    let got = String::from_utf8(got).unwrap();
    assert!(!got.contains("def") && !got.contains("0\r\n\r\n"), "{got}");
}

/// Once the backend answers there is no other answer to give: what is left is to cut it.
#[tokio::test]
async fn an_answer_under_way_is_cut() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nso far").await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    })
    .await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, 5);
    let gateway = setup.start();
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    assert_eq!(client.head().await.status(), 200);
    client.send("3\r\ndef\r\n").await;
    let rest = String::from_utf8(soon(client.rest()).await).unwrap();
    assert!(rest.len() < 100, "{rest}");
}
