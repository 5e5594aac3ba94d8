//! Circuit breakers, ejection and limits: when a backend, or one of its endpoints, is left alone.

mod limits;

use crate::harness::{Backend, Client, Gateway, Setup, backend_id, endpoints, nobody, ok, soon, to};
use crate::http2::{Frames, data, http2_backend};
use headgate_proxy::Limits;
use headgate_proxy::model::{
    BackendLimits, BackendPolicy, BackendProtocol, Breaker, BreakerScope, Ejection, FailureWhen, OnOpen,
    Retry, Timeouts, Trip,
};
use headgate_proxy::notice::{Change, Notice, Subject};
use hyper::body::{Frame, Incoming};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

/// Opens after so many failures in a row, for so long.
fn breaker(consecutive_failures: u32, open_duration: Duration) -> Breaker {
    Breaker {
        scope: BreakerScope::Backend,
        trip: Trip { consecutive_failures: Some(consecutive_failures), ..Trip::default() },
        failure_when: FailureWhen {
            status_codes: vec![500, 502, 503, 504],
            grpc_codes: vec![14],
            connect_errors: true,
            timeouts: true,
            expressions: vec![],
        },
        open_duration,
        max_open_duration: open_duration,
        max_probes: 1,
        successes_to_close: 1,
        on_open: OnOpen::Reject { status: 503 },
    }
}

fn breaking(breaker: Breaker) -> BackendPolicy {
    BackendPolicy { breaker: Some(breaker), ..BackendPolicy::default() }
}

pub fn ejecting(consecutive_5xx: u32) -> Ejection {
    Ejection {
        consecutive_5xx: Some(consecutive_5xx),
        consecutive_gateway_errors: None,
        consecutive_connect_failures: Some(1),
        failure_percent: None,
        base_time: HOUR,
        max_time: HOUR,
        max_percent: 50,
        honor_retry_after: true,
    }
}

pub fn policed(setup: &mut Setup, name: &str, policy: BackendPolicy) {
    let backend = setup.model.backends.get_mut(&backend_id(name)).unwrap();
    Arc::make_mut(backend).policy = Some(Arc::new(policy));
}

fn only(addresses: &[SocketAddr], policy: BackendPolicy) -> Setup {
    let mut setup = Setup::only(addresses);
    policed(&mut setup, "only", policy);
    setup
}

fn says(status: u16, fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} So\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes()
}

/// Answers its first requests with 500, others with their body; counts all.
async fn recovering(failures: usize) -> (Backend, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let backend = Backend::http(move |request| match count.fetch_add(1, Ordering::Relaxed) < failures {
        true => says(500, ""),
        false => ok(&request.body),
    })
    .await;
    (backend, seen)
}

async fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.get("/").await.status());
    }
    statuses
}

/// How the backends fare, as the admin port tells.
async fn health(gateway: &Gateway) -> serde_json::Value {
    let mut client = Client::connect(gateway.proxy.admin_address()).await;
    client.send("GET /backends HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    serde_json::from_slice(&client.response().await.body).unwrap()
}

async fn shut_out(gateway: &Gateway) -> f64 {
    gateway.metric("headgate_rejections_total{reason=\"breaker_open\"").await
}

/// Waits for what comes about by itself.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    soon(async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A backend that answers each request when it is let; counts those that came.
async fn gated(status: u16) -> (Backend, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (guarded, count) = (gate.clone(), seen.clone());
    let backend = Backend::raw(move |stream, _| {
        let (gate, count) = (guarded.clone(), count.clone());
        async move {
            let mut client = Client::new(stream);
            while client.message(true).await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                client.send(says(status, "")).await;
            }
        }
    })
    .await;
    (backend, gate, seen)
}

async fn came(seen: &Arc<AtomicUsize>, count: usize) {
    until(|| async { seen.load(Ordering::Relaxed) >= count }).await;
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn failures_in_a_row_open_it() {
    let (backend, seen) = recovering(usize::MAX).await;
    let gateway = only(&[backend.address], breaking(breaker(5, HOUR))).start();
    assert_eq!(gateway.metric("headgate_backend_breaker_state").await, 0.0);
    assert_eq!(statuses(&gateway, 5).await, [500; 5]);
    let answer = gateway.get("/").await;
    assert_eq!(answer.status(), 503);
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3960).contains(&after), "{after}");
    assert!(answer.text().contains("The service is unavailable."));
    assert_eq!(seen.load(Ordering::Relaxed), 5);
    assert_eq!(gateway.metric("headgate_backend_breaker_state").await, 2.0);
    assert_eq!(gateway.metric("headgate_backend_breaker_openings_total").await, 1.0);
    assert_eq!(shut_out(&gateway).await, 1.0);
    assert_eq!(health(&gateway).await[0]["breaker"]["state"], "open");
}

#[tokio::test]
async fn a_success_between_keeps_it_closed() {
    let count = AtomicUsize::new(0);
    let backend = Backend::http(move |_| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        2 => ok(b""),
        _ => says(500, ""),
    })
    .await;
    let gateway = only(&[backend.address], breaking(breaker(3, HOUR))).start();
    assert_eq!(statuses(&gateway, 9).await, [500, 500, 200].repeat(3));
}

#[tokio::test]
async fn one_probe_passes_and_closes_it_again() {
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (guarded, count) = (gate.clone(), seen.clone());
    // The first answer is a failure; others come when they are let.
    let backend = Backend::raw(move |stream, _| {
        let (gate, count) = (guarded.clone(), count.clone());
        async move {
            let mut client = Client::new(stream);
            while client.message(true).await.is_some() {
                if count.fetch_add(1, Ordering::Relaxed) == 0 {
                    client.send(says(500, "")).await;
                } else {
                    gate.acquire().await.unwrap().forget();
                    client.send(says(200, "")).await;
                }
            }
        }
    })
    .await;
    let gateway = only(&[backend.address], breaking(breaker(1, SHORT))).start();
    assert_eq!(gateway.get("/").await.status(), 500);
    until(|| async { health(&gateway).await[0]["breaker"]["openForSeconds"].is_null() }).await;
    let mut probe = gateway.client().await;
    probe.send(GET).await;
    came(&seen, 2).await;
    assert_eq!(gateway.metric("headgate_backend_breaker_state").await, 1.0);
    assert_eq!(statuses(&gateway, 3).await, [503; 3]);
    gate.add_permits(10);
    assert_eq!(probe.response().await.status(), 200);
    assert_eq!(statuses(&gateway, 3).await, [200; 3]);
    assert_eq!(gateway.metric("headgate_backend_breaker_state").await, 0.0);
}

/// What was told so far.
fn told(notices: &mut Receiver<Notice>) -> Vec<(Subject, Change)> {
    let mut told = Vec::new();
    while let Ok(notice) = notices.try_recv() {
        assert_eq!((notice.backend, notice.shadow), (backend_id("only"), false));
        told.push((notice.subject, notice.change));
    }
    told
}

#[tokio::test]
async fn who_listens_hears_of_every_change() {
    let (backend, _) = recovering(2).await;
    let gateway = only(&[backend.address], breaking(breaker(1, SHORT))).start();
    let mut notices = gateway.proxy.publisher().notices().unwrap();
    assert_eq!(gateway.get("/").await.status(), 500);
    until(|| async { gateway.get("/").await.status() == 500 }).await;
    until(|| async { gateway.get("/").await.status() == 200 }).await;
    let around = [Change::Opened, Change::HalfOpened, Change::Opened, Change::HalfOpened, Change::Closed];
    assert_eq!(told(&mut notices), around.map(|change| (Subject::Backend, change)));
    // A route's, and an endpoint's.
    let (backend, _) = recovering(1).await;
    let scoped = Breaker { scope: BreakerScope::RouteBackend, ..breaker(1, HOUR) };
    let gateway = only(&[backend.address], breaking(scoped)).start();
    let mut notices = gateway.proxy.publisher().notices().unwrap();
    assert_eq!(gateway.get("/").await.status(), 500);
    assert!(matches!(told(&mut notices)[..], [(Subject::Route(_), Change::Opened)]));
    let (backend, _) = recovering(1).await;
    let scoped = Breaker { scope: BreakerScope::Endpoint, ..breaker(1, HOUR) };
    let gateway = only(&[backend.address], breaking(scoped)).start();
    let mut notices = gateway.proxy.publisher().notices().unwrap();
    assert_eq!(gateway.get("/").await.status(), 500);
    assert_eq!(told(&mut notices), [(Subject::Endpoint(backend.address), Change::Opened)]);
}

#[tokio::test]
async fn who_listens_hears_of_endpoints_that_come_and_go() {
    let (bad, seen) = recovering(2).await;
    let good = Backend::named("good").await;
    let ejection = Ejection { base_time: SHORT, max_time: SHORT, ..ejecting(1) };
    let policy = BackendPolicy { ejection: Some(ejection), ..BackendPolicy::default() };
    let gateway = only(&[bad.address, good.address], policy).start();
    let mut notices = gateway.proxy.publisher().notices().unwrap();
    until(|| async {
        gateway.get("/").await;
        seen.load(Ordering::Relaxed) > 2
    })
    .await;
    let changes = [Change::Ejected, Change::Ejected, Change::Restored];
    assert_eq!(told(&mut notices), changes.map(|change| (Subject::Endpoint(bad.address), change)));
}

#[tokio::test]
async fn a_probe_whose_client_leaves_makes_room_for_another() {
    let (backend, gate, seen) = gated(500).await;
    let gateway = only(&[backend.address], breaking(breaker(1, SHORT))).start_with(Limits::default(), 1);
    gate.add_permits(1);
    assert_eq!(gateway.get("/").await.status(), 500);
    until(|| async { health(&gateway).await[0]["breaker"]["openForSeconds"].is_null() }).await;
    let mut probe = gateway.client().await;
    probe.send(GET).await;
    came(&seen, 2).await;
    drop(probe);
    gate.add_permits(10);
    until(|| async { gateway.get("/").await.status() == 500 }).await;
}

#[tokio::test]
async fn an_edit_and_other_endpoints_change_nothing_of_its_state() {
    let (backend, _) = recovering(usize::MAX).await;
    let good = Backend::named("good").await;
    let mut setup = only(&[backend.address], breaking(breaker(1, HOUR)));
    let gateway = setup.start();
    assert_eq!(statuses(&gateway, 2).await, [500, 503]);
    policed(&mut setup, "only", breaking(breaker(7, 2 * HOUR)));
    gateway.publish(&setup);
    let publisher = gateway.proxy.publisher();
    publisher.publish_endpoints(&backend_id("only"), endpoints(&[good.address]));
    assert_eq!(gateway.get("/").await.status(), 503);
    Arc::make_mut(setup.model.backends.get_mut(&backend_id("only")).unwrap()).policy = None;
    gateway.publish(&setup);
    assert_eq!(gateway.get("/").await.status(), 500);
    assert_eq!(health(&gateway).await, serde_json::json!([]));
}

#[tokio::test]
async fn what_cannot_be_reached_or_does_not_answer_has_failed() {
    let gateway = only(&[nobody().await], breaking(breaker(2, HOUR))).start();
    assert_eq!(statuses(&gateway, 3).await, [503; 3]);
    assert_eq!(shut_out(&gateway).await, 1.0);
    let deaf = |breaker: Breaker| Breaker {
        failure_when: FailureWhen { connect_errors: false, ..breaker.failure_when.clone() },
        ..breaker
    };
    let gateway = only(&[nobody().await], breaking(deaf(breaker(2, HOUR)))).start();
    assert_eq!(statuses(&gateway, 3).await, [503; 3]);
    assert_eq!(shut_out(&gateway).await, 0.0);
    let (silent, _gate, _) = gated(200).await;
    let mut setup = Setup::http();
    let timeouts = Timeouts { request: Some(Duration::from_millis(100)), backend_request: None };
    setup.backend("b", BackendProtocol::Http1, &[silent.address]);
    setup.rule("r", "any", "/", to("b"), vec![], timeouts);
    policed(&mut setup, "b", breaking(breaker(1, HOUR)));
    let gateway = setup.start();
    assert_eq!(statuses(&gateway, 2).await, [504, 503]);
}

/// What an expression says of answers is a failure beside what the codes are.
#[tokio::test]
async fn answers_fail_by_what_they_say() {
    let backend = Backend::http(|request| match request.start.contains("/stale") {
        true => says(200, "X-State: stale\r\n"),
        false => ok(b""),
    })
    .await;
    let asking = |breaker: Breaker| Breaker {
        failure_when: FailureWhen {
            status_codes: vec![],
            expressions: vec!["response.code == 418".into(), "response.headers['x-state'] == 'stale'".into()],
            ..breaker.failure_when.clone()
        },
        ..breaker
    };
    let gateway = only(&[backend.address], breaking(asking(breaker(2, HOUR)))).start();
    for path in ["/stale", "/", "/stale", "/stale"] {
        assert_eq!(gateway.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(gateway.get("/").await.status(), 503);
    assert_eq!(shut_out(&gateway).await, 1.0);
    // The same for each endpoint.
    let scoped = Breaker { scope: BreakerScope::Endpoint, ..asking(breaker(1, HOUR)) };
    let gateway = only(&[backend.address], breaking(scoped)).start();
    assert_eq!(gateway.get("/stale").await.status(), 200);
    assert_eq!(gateway.get("/").await.status(), 503);
}

#[tokio::test]
async fn routes_may_have_one_each() {
    let backend = Backend::http(|request| match request.start.contains("/bad") {
        true => says(500, ""),
        false => ok(b""),
    })
    .await;
    let mut setup = Setup::http();
    setup.backend("b", BackendProtocol::Http1, &[backend.address]);
    setup.route("bad", "/bad", to("b")).route("good", "/good", to("b"));
    policed(&mut setup, "b", breaking(Breaker { scope: BreakerScope::RouteBackend, ..breaker(1, HOUR) }));
    let gateway = setup.start();
    for (path, status) in [("/bad", 500), ("/bad", 503), ("/good", 200), ("/bad", 503), ("/good", 200)] {
        assert_eq!(gateway.get(path).await.status(), status, "{path}");
    }
    let health = health(&gateway).await;
    assert_eq!(health[0]["routes"]["HTTPRoute/test/bad"]["state"], "open", "{health}");
    assert_eq!(health[0]["routes"]["HTTPRoute/test/good"]["state"], "closed", "{health}");
}

#[tokio::test]
async fn endpoints_may_have_one_each() {
    let (bad, seen) = recovering(usize::MAX).await;
    let (worse, _) = recovering(usize::MAX).await;
    let good = Backend::named("good").await;
    let policy = breaking(Breaker { scope: BreakerScope::Endpoint, ..breaker(1, HOUR) });
    let gateway = only(&[bad.address, good.address], policy.clone()).start();
    until(|| async { gateway.get("/").await.status() == 500 }).await;
    assert_eq!(statuses(&gateway, 40).await, [200; 40]);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    let gateway = only(&[bad.address, worse.address], policy).start();
    assert_eq!(statuses(&gateway, 4).await, [500, 500, 503, 503]);
    assert_eq!(shut_out(&gateway).await, 2.0);
}

#[tokio::test]
async fn another_backend_answers_meanwhile() {
    let (bad, seen) = recovering(usize::MAX).await;
    let other = Backend::http(|request| ok(&request.body)).await;
    let mut setup = Setup::only(&[bad.address]);
    setup.backend("other", BackendProtocol::Http1, &[other.address]);
    let on_open = OnOpen::Fallback(backend_id("other"));
    policed(&mut setup, "only", breaking(Breaker { on_open, ..breaker(1, HOUR) }));
    let gateway = setup.start();
    assert_eq!(gateway.get("/").await.status(), 500);
    for _ in 0..3 {
        assert_eq!(gateway.client().await.post("/", b"hello").await.text(), "hello");
    }
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    // Each the other's: what neither answers is refused.
    let on_open = OnOpen::Fallback(backend_id("only"));
    policed(&mut setup, "other", breaking(Breaker { on_open, ..breaker(1, HOUR) }));
    gateway.publish(&setup);
    let publisher = gateway.proxy.publisher();
    publisher.publish_endpoints(&backend_id("other"), endpoints(&[bad.address]));
    assert_eq!(statuses(&gateway, 2).await, [500, 503]);
}

#[tokio::test]
async fn a_status_may_be_chosen_and_nothing_happens_in_shadow() {
    let (backend, seen) = recovering(usize::MAX).await;
    let on_open = OnOpen::Reject { status: 429 };
    let policy = breaking(Breaker { on_open, ..breaker(1, HOUR) });
    let gateway = only(&[backend.address], policy.clone()).start();
    assert_eq!(statuses(&gateway, 2).await, [500, 429]);
    let limits = BackendLimits { max_parallel_requests: Some(0), ..BackendLimits::default() };
    let policy = BackendPolicy { shadow: true, limits, ejection: Some(ejecting(1)), ..policy };
    let gateway = only(&[backend.address], policy).start();
    assert_eq!(statuses(&gateway, 5).await, [500; 5]);
    assert_eq!(seen.load(Ordering::Relaxed), 6);
    assert_eq!(gateway.metric("headgate_backend_breaker_state").await, 2.0);
}

#[tokio::test]
async fn calls_of_grpc_fail_by_their_trailers() {
    let backend = http2_backend(|_: hyper::Request<Incoming>| async {
        let mut trailers = hyper::HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().unwrap());
        let frames = Frames::of(vec![data("x"), Frame::trailers(trailers)]);
        hyper::Response::builder().header("content-type", "application/grpc").body(frames).unwrap()
    })
    .await;
    let mut setup = Setup::http();
    setup.backend("b", BackendProtocol::H2c, &[backend.address]).route("r", "/", to("b"));
    policed(&mut setup, "b", breaking(breaker(2, HOUR)));
    let gateway = setup.start();
    assert_eq!(statuses(&gateway, 3).await, [200, 200, 503]);
}

#[tokio::test]
async fn an_endpoint_that_fails_is_ejected() {
    let (bad, seen) = recovering(usize::MAX).await;
    let good = Backend::named("good").await;
    let policy = BackendPolicy { ejection: Some(ejecting(2)), ..BackendPolicy::default() };
    let gateway = only(&[bad.address, good.address], policy.clone()).start();
    came_by_requests(&gateway, &seen, 2).await;
    assert_eq!(statuses(&gateway, 40).await, [200; 40]);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    assert_eq!(gateway.metric("headgate_backend_ejected_endpoints").await, 1.0);
    assert_eq!(gateway.metric("headgate_backend_ejections_total").await, 1.0);
    let told = &health(&gateway).await[0]["endpoints"][bad.address.to_string()]["ejectedForSeconds"];
    assert!(told.as_f64().unwrap() > 3000.0, "{told}");
    // One that is alone gets requests all the same.
    let gateway = only(&[bad.address], policy).start();
    assert_eq!(statuses(&gateway, 5).await, [500; 5]);
}

/// Sends requests until so many came to a backend.
async fn came_by_requests(gateway: &Gateway, seen: &Arc<AtomicUsize>, count: usize) {
    until(|| async {
        gateway.get("/").await;
        seen.load(Ordering::Relaxed) >= count
    })
    .await;
}

#[tokio::test]
async fn with_fewer_than_half_left_all_get_requests_again() {
    let (one, seen_one) = recovering(usize::MAX).await;
    let (two, seen_two) = recovering(usize::MAX).await;
    let good = Backend::named("good").await;
    let ejection = Ejection { max_percent: 100, ..ejecting(1) };
    let policy = BackendPolicy { ejection: Some(ejection), ..BackendPolicy::default() };
    let gateway = only(&[one.address, two.address, good.address], policy).start();
    came_by_requests(&gateway, &seen_one, 2).await;
    came_by_requests(&gateway, &seen_two, 2).await;
    assert_eq!(gateway.metric("headgate_backend_ejected_endpoints").await, 2.0);
}

#[tokio::test]
async fn an_endpoint_may_ask_to_be_left_alone() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let tired = Backend::http(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        says(503, "Retry-After: 1000\r\n")
    })
    .await;
    let good = Backend::named("good").await;
    let policy = BackendPolicy { ejection: Some(ejecting(100)), ..BackendPolicy::default() };
    let gateway = only(&[tired.address, good.address], policy).start();
    came_by_requests(&gateway, &seen, 1).await;
    assert_eq!(statuses(&gateway, 40).await, [200; 40]);
}
