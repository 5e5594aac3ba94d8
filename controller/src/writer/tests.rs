//! Against an API server whose answers are written down here, by a clock that stands still but for waiting.

use super::*;
use kube::client::Body;
use tower_test::mock;

type Answer = mock::SendResponse<http::Response<Body>>;

struct Server(mock::Handle<http::Request<Body>, http::Response<Body>>);

impl Server {
    fn new() -> (Self, Writer) {
        let (service, handle) = mock::pair();
        (Self(handle), Writer::new(Client::new(service, "default")))
    }

    /// The next request: its method, path and body.
    async fn asked(&mut self, writer: &mut Writer) -> (String, Value, Answer) {
        let (request, answer) = tokio::select! {
            request = self.0.next_request() => request.expect("a request"),
            () = async { loop { writer.finished().await } } => unreachable!("it has no end"),
        };
        let asked = format!("{} {}", request.method(), request.uri().path());
        let body = request.into_body().collect_bytes().await.unwrap();
        (asked, serde_json::from_slice(&body).unwrap_or_default(), answer)
    }

    /// Answers the next request, and has the writer hear of it.
    async fn answer(&mut self, writer: &mut Writer, code: u16) -> (String, Value) {
        let (asked, body, answer) = self.asked(writer).await;
        reply(answer, code);
        writer.finished().await;
        (asked, body)
    }

    /// Nothing is asked for a long while.
    async fn is_left_alone(&mut self, writer: &mut Writer) {
        self.is_left_alone_for(Duration::from_secs(3600), writer).await;
    }

    async fn is_left_alone_for(&mut self, time: Duration, writer: &mut Writer) {
        let waited = tokio::time::timeout(time, self.asked(writer)).await;
        assert!(waited.is_err(), "{:?}", waited.map(|(asked, body, _)| (asked, body)));
    }
}

fn reply(answer: Answer, code: u16) {
    let body = match code {
        200 => json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}}),
        code => json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "R", "message": "m",
        }),
    };
    let body = Body::from(body.to_string().into_bytes());
    answer.send_response(http::Response::builder().status(code).body(body).unwrap());
}

fn target(name: &str) -> Target {
    (Kind::HttpRoute, ObjectName::new("a", name))
}

fn status(version: &str, said: &str) -> Write {
    Write::Status { resource_version: version.to_owned(), status: json!({"said": said}) }
}

#[tokio::test(start_paused = true)]
async fn a_status_goes_on_top_of_the_version_that_it_was_made_from() {
    let (mut server, mut writer) = Server::new();
    writer.submit(target("x"), status("7", "first"));
    let (asked, body) = server.answer(&mut writer, 200).await;
    assert_eq!(asked, "PATCH /apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes/x/status");
    assert_eq!(body, json!({"metadata": {"resourceVersion": "7"}, "status": {"said": "first"}}));
    // What was written isn't written again; what differs is.
    writer.submit(target("x"), status("7", "first"));
    server.is_left_alone(&mut writer).await;
    writer.submit(target("x"), status("8", "first"));
    assert_eq!(server.answer(&mut writer, 200).await.1["metadata"]["resourceVersion"], "8");
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_is_written_and_one_at_a_time() {
    let (mut server, mut writer) = Server::new();
    writer.submit(target("x"), status("1", "a"));
    let (_, body, first) = server.asked(&mut writer).await;
    assert_eq!(body["status"]["said"], "a");
    for said in ["b", "c"] {
        writer.submit(target("x"), status("1", said));
    }
    server.is_left_alone_for(REQUEST / 2, &mut writer).await;
    reply(first, 200);
    writer.finished().await;
    assert_eq!(server.answer(&mut writer, 200).await.1["status"]["said"], "c");
    server.is_left_alone(&mut writer).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_later_and_later() {
    let (mut server, mut writer) = Server::new();
    writer.submit(target("x"), status("1", "a"));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = Instant::now();
        server.answer(&mut writer, 503).await;
        waits.push(before.elapsed());
    }
    assert_eq!(waits[0], Duration::ZERO);
    for (n, wait) in (0..).zip(&waits[1..]) {
        let longest = FIRST_WAIT.saturating_mul(1 << n).min(LONGEST_WAIT);
        // The clock's step is a millisecond.
        assert!(*wait >= longest / 2 && *wait <= longest + Duration::from_millis(2), "{waits:?}");
    }
    // A newer version takes the place, and doesn't make the server better.
    writer.submit(target("x"), status("2", "b"));
    let before = Instant::now();
    assert_eq!(server.answer(&mut writer, 200).await.1["status"]["said"], "b");
    assert!(before.elapsed() >= LONGEST_WAIT / 2);
    // Another object doesn't wait for it.
    writer.submit(target("y"), status("1", "c"));
    let before = Instant::now();
    server.answer(&mut writer, 200).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// Somebody else wrote, or the object is gone: the watch tells, and what is to be said is thought over.
#[tokio::test(start_paused = true)]
async fn what_was_overtaken_is_not_tried_again() {
    for code in [404, 409] {
        let (mut server, mut writer) = Server::new();
        writer.submit(target("x"), status("1", "a"));
        server.answer(&mut writer, code).await;
        server.is_left_alone(&mut writer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_asked_again() {
    let (mut server, mut writer) = Server::new();
    writer.submit(target("x"), status("1", "a"));
    let (_, _, held) = server.asked(&mut writer).await;
    let before = Instant::now();
    server.answer(&mut writer, 200).await;
    assert!(before.elapsed() >= REQUEST);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn few_are_written_at_a_time() {
    let (mut server, mut writer) = Server::new();
    for n in 0..AT_ONCE + 4 {
        writer.submit(target(&format!("r{n:02}")), status("1", "a"));
    }
    let mut held = Vec::new();
    for _ in 0..AT_ONCE {
        held.push(server.asked(&mut writer).await.2);
    }
    server.is_left_alone_for(REQUEST / 2, &mut writer).await;
    for answer in held.drain(..) {
        reply(answer, 200);
        writer.finished().await;
    }
    for _ in 0..4 {
        server.answer(&mut writer, 200).await;
    }
    server.is_left_alone(&mut writer).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_is_not_written_and_may_be_said_again() {
    let (mut server, mut writer) = Server::new();
    writer.submit(target("x"), status("1", "a"));
    server.answer(&mut writer, 503).await;
    writer.withdraw(&target("x"));
    server.is_left_alone(&mut writer).await;
    writer.submit(target("x"), status("1", "a"));
    server.answer(&mut writer, 200).await;
    // Another leader may have written in between: who leads anew says it anew.
    writer.withdraw_all(|kind| kind == Kind::HttpRoute);
    writer.submit(target("x"), status("1", "a"));
    server.answer(&mut writer, 200).await;
}

#[tokio::test(start_paused = true)]
async fn objects_are_applied_and_deleted() {
    let (mut server, mut writer) = Server::new();
    let service = (Kind::Service, ObjectName::new("a", "gw"));
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gw"}});
    writer.submit(service.clone(), Write::Apply { observed: None, body: body.clone() });
    let (asked, sent) = server.answer(&mut writer, 200).await;
    assert_eq!((asked.as_str(), sent), ("PATCH /api/v1/namespaces/a/services/gw", body));
    writer.submit(service, Write::Delete);
    assert_eq!(server.answer(&mut writer, 200).await.0, "DELETE /api/v1/namespaces/a/services/gw");
}
