//! Bounds on requests, tries and connections.

use super::*;
use headgate_proxy::model::{Rule, thin_vec};

#[tokio::test]
async fn requests_beyond_the_limit_are_refused() {
    let (backend, gate, seen) = gated(200).await;
    let one = BackendLimits { max_parallel_requests: Some(1), ..BackendLimits::default() };
    let policy = BackendPolicy { limits: one, ..BackendPolicy::default() };
    let gateway = only(&[backend.address], policy).start();
    let mut first = gateway.client().await;
    first.send(GET).await;
    came(&seen, 1).await;
    let refused = gateway.get("/").await;
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"backend_limit\"").await, 1.0);
    assert_eq!(health(&gateway).await[0]["parallelRequests"], 1);
    gate.add_permits(2);
    assert_eq!(first.response().await.status(), 200);
    assert_eq!(gateway.get("/").await.status(), 200);
}

/// Two endpoints which the policy lets do one thing at a time: both do, whoever else comes is refused, and then both answer.
async fn one_at_each(policy: BackendPolicy, threads: usize) -> (Gateway, [Backend; 2]) {
    let (one, gate_one, seen_one) = gated(200).await;
    let (two, gate_two, seen_two) = gated(200).await;
    let gateway = only(&[one.address, two.address], policy).start_with(Limits::default(), threads);
    let mut clients = [gateway.client().await, gateway.client().await];
    for client in &mut clients {
        client.send(GET).await;
    }
    came(&seen_one, 1).await;
    came(&seen_two, 1).await;
    assert_eq!(gateway.get("/").await.status(), 503);
    gate_one.add_permits(9);
    gate_two.add_permits(9);
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    (gateway, [one, two])
}

#[tokio::test]
async fn endpoints_have_limits_of_their_own() {
    let per_endpoint = BackendLimits { max_parallel_requests: Some(1), ..BackendLimits::default() };
    one_at_each(BackendPolicy { per_endpoint, ..BackendPolicy::default() }, 2).await;
}

#[tokio::test]
async fn tries_beyond_the_limit_are_not_made() {
    let (backend, seen) = recovering(usize::MAX).await;
    let mut setup = Setup::only(&[backend.address]);
    let route = Arc::make_mut(setup.model.routes.values_mut().next().unwrap());
    let retry = Retry { codes: vec![500], attempts: 2, backoff: SHORT };
    route.rules = thin_vec![Rule { retry: Some(Box::new(retry)), ..route.rules[0].clone() }];
    let limits = |most| BackendLimits { max_parallel_retries: Some(most), ..BackendLimits::default() };
    for (most, tries) in [(0, 1), (1, 3)] {
        policed(&mut setup, "only", BackendPolicy { limits: limits(most), ..BackendPolicy::default() });
        let gateway = setup.start();
        let before = seen.load(Ordering::Relaxed);
        assert_eq!(gateway.get("/").await.status(), 500);
        assert_eq!(seen.load(Ordering::Relaxed) - before, tries);
    }
}

fn connections(most: u32, pending: Option<u32>) -> BackendPolicy {
    let limits = BackendLimits {
        max_connections: Some(most),
        max_pending_requests: pending,
        ..BackendLimits::default()
    };
    BackendPolicy { limits, ..BackendPolicy::default() }
}

async fn waiting(gateway: &Gateway, count: u32) {
    until(|| async { health(gateway).await[0]["pendingRequests"] == count }).await;
}

#[tokio::test]
async fn requests_wait_for_a_connection_and_take_it_over() {
    let (backend, gate, seen) = gated(200).await;
    let gateway = only(&[backend.address], connections(1, Some(1))).start_with(Limits::default(), 1);
    let mut clients = [gateway.client().await, gateway.client().await];
    clients[0].send(GET).await;
    came(&seen, 1).await;
    clients[1].send(GET).await;
    waiting(&gateway, 1).await;
    // There is room for one who waits.
    let refused = gateway.get("/").await;
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!((seen.load(Ordering::Relaxed), &health(&gateway).await[0]["connections"]), (1, &1.into()));
    gate.add_permits(10);
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(health(&gateway).await[0]["pendingRequests"], 0);
}

#[tokio::test]
async fn nobody_waits_longer_than_for_any_connection() {
    let (backend, gate, seen) = gated(200).await;
    let limits = Limits { connect: Duration::from_millis(100), ..Limits::default() };
    let gateway = only(&[backend.address], connections(1, None)).start_with(limits, 1);
    let mut first = gateway.client().await;
    first.send(GET).await;
    came(&seen, 1).await;
    assert_eq!(gateway.get("/").await.status(), 503);
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"backend_limit\"").await, 1.0);
    // One that leaves makes room for others, too.
    let mut second = gateway.client().await;
    second.send(GET).await;
    waiting(&gateway, 1).await;
    drop(second);
    waiting(&gateway, 0).await;
    gate.add_permits(10);
    assert_eq!(first.response().await.status(), 200);
    assert_eq!(gateway.get("/").await.status(), 200);
}

/// Answers after a moment; says how many requests were in service at most at a time.
async fn busy() -> (Backend, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let backend = Backend::raw(move |stream, _| {
        let (now, most) = (now.clone(), most.clone());
        async move {
            let mut client = Client::new(stream);
            while client.message(true).await.is_some() {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(SHORT).await;
                now.fetch_sub(1, Ordering::Relaxed);
                client.send(says(200, "")).await;
            }
        }
    })
    .await;
    (backend, seen)
}

#[tokio::test]
async fn threads_share_the_connections() {
    let ((one, most_one), (two, most_two)) = (busy().await, busy().await);
    let gateway = only(&[one.address, two.address], connections(2, None)).start_with(Limits::default(), 4);
    // Many at a time, on all threads.
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(gateway.client().await);
    }
    for _ in 0..5 {
        for client in &mut clients {
            client.send(GET).await;
        }
        for client in &mut clients {
            assert_eq!(client.response().await.status(), 200);
        }
    }
    let most = [most_one, most_two].map(|most| most.load(Ordering::Relaxed));
    assert!(most.iter().all(|most| *most <= 2), "{most:?}");
    // And one after the other: what one thread has idle doesn't keep others waiting.
    let began = std::time::Instant::now();
    for _ in 0..40 {
        assert_eq!(gateway.get("/").await.status(), 200);
    }
    assert!(began.elapsed() < Limits::default().connect, "{:?}", began.elapsed());
    assert!(health(&gateway).await[0]["connections"].as_u64().unwrap() <= 2);
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"backend_limit\"").await, 0.0);
}

/// Two endpoints that may have one connection each, and nobody who waits.
async fn one_each(threads: usize) -> [usize; 2] {
    let limits = BackendLimits { max_pending_requests: Some(0), ..BackendLimits::default() };
    let per_endpoint = BackendLimits { max_connections: Some(1), ..BackendLimits::default() };
    let policy = BackendPolicy { limits, per_endpoint, ..BackendPolicy::default() };
    let (gateway, backends) = one_at_each(policy, threads).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    backends.map(|backend| backend.connections())
}

#[tokio::test]
async fn endpoints_have_connections_of_their_own() {
    assert_eq!(one_each(1).await, [1, 1]);
    // A thread without idle connections has others close theirs: those aren't in use.
    one_each(8).await;
}

#[tokio::test]
async fn http2_shares_what_connections_there_are() {
    let served = || async {
        http2_backend(|_| async {
            tokio::time::sleep(SHORT).await;
            http::Response::new(Frames::of(vec![data("x")]))
        })
        .await
    };
    let (one, two) = (served().await, served().await);
    let mut setup = Setup::http();
    setup.backend("h2c", BackendProtocol::H2c, &[one.address, two.address]).route("all", "/", to("h2c"));
    policed(&mut setup, "h2c", connections(1, None));
    let gateway = setup.start_with(Limits::default(), 2);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.client().await);
    }
    for _ in 0..3 {
        for client in &mut clients {
            client.send(GET).await;
        }
        for client in &mut clients {
            assert_eq!(client.response().await.status(), 200);
        }
    }
    assert!(health(&gateway).await[0]["connections"].as_u64().unwrap() <= 1);
}
