//! Retries: what is tried again, how often, where, and for how long.

use crate::harness::{Backend, Gateway, Setup, backend_id, endpoints, nobody, ok, to};
use headgate_proxy::model::{BackendProtocol, Retry, RetryBudget, Rule, Timeouts, thin_vec};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_millis(200);

/// Answers its first requests with a status, others with their body; counts all.
async fn recovering(failures: usize, status: u16) -> (Backend, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let backend = Backend::http(move |request| match count.fetch_add(1, Ordering::Relaxed) < failures {
        true => format!("HTTP/1.1 {status} Sorry\r\nContent-Length: 5\r\n\r\nsorry").into_bytes(),
        false => ok(&request.body),
    })
    .await;
    (backend, seen)
}

/// One rule that retries 503, with pauses too short to notice.
fn retrying(addresses: &[SocketAddr], attempts: u32, timeouts: Timeouts) -> Gateway {
    let mut setup = Setup::http();
    setup.backend("b", BackendProtocol::Http1, addresses);
    setup.rule("retried", "any", "/", to("b"), vec![], timeouts);
    let route = Arc::make_mut(setup.model.routes.values_mut().next().unwrap());
    let retry = Retry { codes: vec![503], attempts, backoff: Duration::from_millis(1) };
    route.rules = thin_vec![Rule { retry: Some(Box::new(retry)), ..route.rules[0].clone() }];
    setup.start()
}

async fn put(gateway: &Gateway, body: &[u8]) -> (u16, usize) {
    let mut client = gateway.client().await;
    let length = body.len();
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.send([head.as_bytes(), body].concat()).await;
    let answer = client.response().await;
    if answer.status() == 200 {
        assert_eq!(answer.body, body);
    }
    (answer.status(), answer.body.len())
}

#[tokio::test]
async fn a_listed_code_is_tried_again_with_the_same_body() {
    let (backend, seen) = recovering(2, 503).await;
    let gateway = retrying(&[backend.address], 3, Timeouts::default());
    assert_eq!(put(&gateway, &[7; 60_000]).await, (200, 60_000));
    assert_eq!(seen.load(Ordering::Relaxed), 3);
    assert_eq!(gateway.metric("headgate_backend_retries_total").await, 2.0);
}

#[tokio::test]
async fn a_body_in_chunks_with_trailers_is_sent_again() {
    let (backend, seen) = recovering(1, 503).await;
    let gateway = retrying(&[backend.address], 1, Timeouts::default());
    let mut client = gateway.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "abcde");
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn tries_are_counted_and_the_last_answer_goes_out() {
    for attempts in [0, 1, 3] {
        let (backend, seen) = recovering(100, 503).await;
        let gateway = retrying(&[backend.address], attempts, Timeouts::default());
        let answer = gateway.get("/").await;
        assert_eq!((answer.status(), answer.text().as_str()), (503, "sorry"));
        assert_eq!(seen.load(Ordering::Relaxed), attempts as usize + 1);
    }
}

#[tokio::test]
async fn a_budget_of_retries_is_the_backends() {
    let (backend, seen) = recovering(1_000, 503).await;
    let mut setup = Setup::http();
    let budget = RetryBudget {
        percent: 0,
        interval: Duration::from_secs(3600),
        min_count: 3,
        min_interval: Duration::from_secs(3600),
    };
    setup.backend("b", BackendProtocol::Http1, &[backend.address]);
    let known = setup.model.backends.get_mut(&backend_id("b")).unwrap();
    Arc::make_mut(known).retry_budget = Some(budget);
    setup.rule("retried", "any", "/", to("b"), vec![], Timeouts::default());
    let route = Arc::make_mut(setup.model.routes.values_mut().next().unwrap());
    let retry = Retry { codes: vec![503], attempts: 2, backoff: Duration::from_millis(1) };
    route.rules = thin_vec![Rule { retry: Some(Box::new(retry)), ..route.rules[0].clone() }];
    let gateway = setup.start();
    // Two retries, and the backend's own answer; then one, and ours instead of a second; then none.
    assert_eq!(gateway.get("/").await.text(), "sorry");
    for tries in [3 + 2, 3 + 2 + 1] {
        let answer = gateway.get("/").await;
        assert_eq!((answer.status(), answer.text() == "sorry"), (503, false));
        assert_eq!(seen.load(Ordering::Relaxed), tries);
    }
    // Half of all requests may be retries; another budget begins anew.
    Arc::make_mut(setup.model.backends.get_mut(&backend_id("b")).unwrap()).retry_budget =
        Some(RetryBudget { percent: 50, min_count: 0, ..budget });
    gateway.publish(&setup);
    let answer = gateway.get("/").await;
    assert_eq!((answer.status(), answer.text() == "sorry"), (503, false));
    assert_eq!(seen.load(Ordering::Relaxed), 6 + 2);
}

#[tokio::test]
async fn what_is_not_safe_or_not_named_is_tried_once() {
    let (backend, seen) = recovering(100, 500).await;
    let gateway = retrying(&[backend.address], 3, Timeouts::default());
    assert_eq!(gateway.get("/").await.status(), 500);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    let (backend, seen) = recovering(100, 503).await;
    let gateway = retrying(&[backend.address], 3, Timeouts::default());
    // Nobody knows what a second POST does.
    assert_eq!(gateway.client().await.post("/", b"x").await.status(), 503);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    // Too much to keep.
    assert_eq!(put(&gateway, &vec![0; 200_000]).await.0, 503);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn another_endpoint_is_tried() {
    let (bad, seen) = recovering(usize::MAX, 503).await;
    let good = Backend::named("good").await;
    let gateway = retrying(&[bad.address, good.address, nobody().await], 1, Timeouts::default());
    for _ in 0..50 {
        assert_eq!(gateway.get("/").await.text(), "good");
    }
    assert!(seen.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn each_try_has_its_time_and_all_together_theirs() {
    // The first connection hangs, others answer.
    let backend = Backend::raw(|mut stream, number| async move {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        if number > 0 {
            stream.write_all(&ok(b"late")).await.unwrap();
        }
        let _ = stream.read(&mut request).await;
    })
    .await;
    let timeouts = Timeouts { request: None, backend_request: Some(SHORT) };
    let gateway = retrying(&[backend.address], 1, timeouts);
    assert_eq!(gateway.get("/").await.text(), "late");
    let (backend, seen) = recovering(usize::MAX, 503).await;
    let timeouts = Timeouts { request: Some(SHORT), backend_request: None };
    let gateway = retrying(&[backend.address], u32::MAX, timeouts);
    assert_eq!(gateway.get("/").await.status(), 504);
    assert!(seen.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn a_backend_that_comes_late_is_found() {
    let gateway = retrying(&[], u32::MAX, Timeouts::default());
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    while gateway.metric("headgate_backend_retries_total").await == 0.0 {
        tokio::task::yield_now().await;
    }
    let backend = Backend::http(|request| ok(&request.body)).await;
    let publisher = gateway.proxy.publisher();
    publisher.publish_endpoints(&backend_id("b"), endpoints(&[backend.address]));
    assert_eq!(client.response().await.text(), "hello");
}
