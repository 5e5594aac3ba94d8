//! Candidates against one lease, by a clock that stands still but for waiting. At no time may two lead.

use super::*;
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Mutex;
use tower_test::mock;

/// What the API server keeps: the lease, and its version.
type Kept = Arc<Mutex<(Option<Value>, u64)>>;

/// One replica: whether it leads, whether it reaches the server, and how it is stopped.
struct Replica {
    leads: watch::Receiver<bool>,
    reaches: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl Replica {
    fn start(identity: &str, kept: &Kept) -> Self {
        let (service, handle) = mock::pair::<http::Request<Body>, http::Response<Body>>();
        let (leads, leading) = watch::channel(false);
        let (reaches, reached) = watch::channel(true);
        let (stop, stopped) = watch::channel(false);
        let candidate = Candidate {
            namespace: "system".to_owned(),
            lease: "headgate".to_owned(),
            identity: identity.to_owned(),
        };
        tokio::spawn(serve(handle, kept.clone(), reached));
        tokio::spawn(elect(Client::new(service, "default"), candidate, leads, stopped));
        Self { leads: leading, reaches, stop }
    }

    fn leads(&self) -> bool {
        *self.leads.borrow()
    }
}

async fn serve(
    mut handle: mock::Handle<http::Request<Body>, http::Response<Body>>,
    kept: Kept,
    reached: watch::Receiver<bool>,
) {
    while let Some((request, answer)) = handle.next_request().await {
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await.unwrap();
        if !*reached.borrow() {
            // Held for ever: the other side gives up.
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(answer);
            });
            continue;
        }
        let sent: Option<Value> = serde_json::from_slice(&body).ok();
        let (code, body) = act(&method, sent, &mut *kept.lock().await);
        let body = Body::from(body.to_string().into_bytes());
        answer.send_response(http::Response::builder().status(code).body(body).unwrap());
    }
}

/// As an API server does it: a write must be on top of the newest version.
fn act(method: &http::Method, sent: Option<Value>, kept: &mut (Option<Value>, u64)) -> (u16, Value) {
    let refused = |code: u16| {
        let reason = if code == 404 { "NotFound" } else { "Conflict" };
        (
            code,
            json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
        )
    };
    let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
    match (method.as_str(), sent, &kept.0) {
        ("GET", _, Some(lease)) => return (200, lease.clone()),
        ("GET", _, None) => return refused(404),
        ("POST", Some(_), Some(_)) => return refused(409),
        ("PUT", Some(lease), Some(present)) if version(&lease) != version(present) => return refused(409),
        ("POST", Some(mut lease), None) | ("PUT", Some(mut lease), Some(_)) => {
            kept.1 += 1;
            lease["metadata"]["resourceVersion"] = kept.1.to_string().into();
            kept.0 = Some(lease);
        }
        (method, sent, _) => panic!("{method} {sent:?}"),
    }
    (200, kept.0.clone().unwrap())
}

/// Lets time pass until `done`; how long it took. Two leaders at any moment are an error.
async fn until(replicas: &[&Replica], done: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        let leaders = replicas.iter().filter(|replica| replica.leads()).count();
        assert!(leaders <= 1, "{leaders} lead after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(120), "it doesn't come to that");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_stops_hands_over_at_once() {
    let kept = Kept::default();
    let first = Replica::start("first", &kept);
    until(&[&first], || first.leads()).await;
    let second = Replica::start("second", &kept);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!([first.leads(), second.leads()], [true, false]);
    first.stop.send_replace(true);
    let took = until(&[&first, &second], || second.leads()).await;
    assert!(took <= RETRY + Duration::from_secs(2), "{took:?}");
    let (lease, _) = &*kept.lock().await;
    let spec = &lease.as_ref().unwrap()["spec"];
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!("second"), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_stops_before_another_begins() {
    let kept = Kept::default();
    let first = Replica::start("first", &kept);
    until(&[&first], || first.leads()).await;
    let second = Replica::start("second", &kept);
    tokio::time::sleep(Duration::from_secs(30)).await;
    first.reaches.send_replace(false);
    let stopped = until(&[&first, &second], || !first.leads()).await;
    assert!(!second.leads());
    let took = stopped + until(&[&first, &second], || second.leads()).await;
    // security.md §9, fault 12, with the polls that see it.
    assert!(took <= DURATION + 2 * RETRY, "{took:?}");
    // It comes back, and finds another leading.
    first.reaches.send_replace(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!([first.leads(), second.leads()], [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_changes_nothing() {
    let kept = Kept::default();
    let first = Replica::start("first", &kept);
    until(&[&first], || first.leads()).await;
    let second = Replica::start("second", &kept);
    for _ in 0..5 {
        for replica in [&first, &second] {
            replica.reaches.send_replace(false);
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        for replica in [&first, &second] {
            replica.reaches.send_replace(true);
        }
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!([first.leads(), second.leads()], [true, false]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_that_begin_together_one_leads() {
    let kept = Kept::default();
    let replicas: Vec<Replica> = (0..5).map(|n| Replica::start(&format!("replica-{n}"), &kept)).collect();
    let all: Vec<&Replica> = replicas.iter().collect();
    until(&all, || replicas.iter().any(Replica::leads)).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(replicas.iter().filter(|replica| replica.leads()).count(), 1);
    }
}
