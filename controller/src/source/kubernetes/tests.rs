//! Against an API server whose answers are written down here. Watches end after their last event, and are asked for again.

use super::*;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock;

type Asked = http::Request<Body>;
type Answer = http::Response<Body>;

struct Server(mock::Handle<Asked, Answer>);

impl Server {
    fn new() -> (Self, Client) {
        let (service, handle) = mock::pair::<Asked, Answer>();
        (Self(handle), Client::new(service, "default"))
    }

    /// Answers the next request; what was asked for.
    async fn answer(&mut self, status: u16, body: impl ToString) -> String {
        let (request, answer) = self.0.next_request().await.expect("a request");
        let body = Body::from(body.to_string().into_bytes());
        answer.send_response(http::Response::builder().status(status).body(body).unwrap());
        request.uri().to_string()
    }

    async fn fail(&mut self, code: u16, reason: &str) -> String {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
        self.answer(code, status).await
    }

    /// Answers a watch with events.
    async fn tell(&mut self, events: &[(&str, Value)]) -> String {
        let line = |(kind, object): &(&str, Value)| format!("{}\n", json!({"type": kind, "object": object}));
        self.answer(200, events.iter().map(line).collect::<String>()).await
    }
}

fn list(version: &str, next: &str, items: &[Value]) -> Value {
    json!({"metadata": {"resourceVersion": version, "continue": next}, "items": items})
}

fn service(name: &str, version: &str, port: impl Into<Value>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "a", "name": name, "resourceVersion": version},
        "spec": {"ports": [{"port": port.into()}]},
    })
}

fn gone(code: u16) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Expired", "message": "too old resource version"})
}

fn start(kind: Kind, client: Client) -> mpsc::Receiver<Vec<Change>> {
    let (sender, changes) = mpsc::channel(16);
    let scope = Scope {
        secret_namespaces: vec!["a".into(), "b".into()],
        pod_namespace: "own".into(),
        pod_selector: "app=headgate".into(),
    };
    tokio::spawn(follow(kind, parts(kind, &client, &scope), sender));
    changes
}

/// The next batch, in short.
async fn next(changes: &mut mpsc::Receiver<Vec<Change>>) -> Vec<String> {
    changes.recv().await.expect("a batch").into_iter().map(short).collect()
}

fn short(change: Change) -> String {
    match change {
        Change::Upsert(object) => format!("+{}", object.name()),
        Change::Delete(_, name) => format!("-{name}"),
        Change::Undecodable(_, name, why) => format!("?{name}: {why}"),
        Change::Host(host, _) => format!("host {host}"),
        Change::Replace { objects, undecodable, .. } => {
            let names = objects.iter().map(|object| object.name().to_string());
            let broken = undecodable.iter().map(|(name, why)| format!("?{name}: {why}"));
            format!("= {}", names.chain(broken).collect::<Vec<_>>().join(" "))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_and_watches_go_on_from_bookmarks() {
    let (mut server, client) = Server::new();
    let mut changes = start(Kind::Service, client);
    let asked = server.answer(200, list("7", "more", &[service("x", "5", 80)])).await;
    assert!(asked.starts_with("/api/v1/services?") && asked.contains("limit=500"), "{asked}");
    let asked = server.answer(200, list("7", "", &[service("y", "6", 80)])).await;
    assert!(asked.contains("continue=more"), "{asked}");
    let bookmark = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"resourceVersion": "20"}});
    let asked = server.tell(&[("ADDED", service("z", "9", 80)), ("BOOKMARK", bookmark)]).await;
    assert!(asked.contains("resourceVersion=7") && asked.contains("allowWatchBookmarks=true"), "{asked}");
    let asked = server.tell(&[("DELETED", service("x", "21", 80))]).await;
    assert!(asked.contains("resourceVersion=20"), "{asked}");
    assert_eq!(next(&mut changes).await, ["= a/x a/y"]);
    assert_eq!(next(&mut changes).await, ["+a/z"]);
    assert_eq!(next(&mut changes).await, ["-a/x"]);
}

/// What happened in between is told by the list: what isn't in it is gone.
#[tokio::test(start_paused = true)]
async fn a_watch_that_lost_track_lists_anew() {
    let (mut server, client) = Server::new();
    let mut changes = start(Kind::Service, client);
    server.answer(200, list("1", "", &[service("x", "1", 80), service("y", "1", 80)])).await;
    server.tell(&[("ERROR", gone(410))]).await;
    let asked = server.answer(200, list("50", "", &[service("y", "1", 80), service("z", "49", 80)])).await;
    assert!(!asked.contains("watch="), "{asked}");
    assert_eq!(next(&mut changes).await, ["= a/x a/y"]);
    assert_eq!(next(&mut changes).await, ["+a/y", "+a/z", "-a/x"]);
    // Some say so before the watch begins.
    let asked = server.fail(410, "Expired").await;
    assert!(asked.contains("watch=true") && asked.contains("resourceVersion=50"), "{asked}");
    let asked = server.answer(200, list("60", "", &[])).await;
    assert!(!asked.contains("watch="), "{asked}");
    assert_eq!(next(&mut changes).await, ["-a/y", "-a/z"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cant_be_read_costs_nobody_else_anything() {
    let (mut server, client) = Server::new();
    let mut changes = start(Kind::Service, client);
    server.answer(200, list("1", "", &[service("x", "1", "eighty"), service("y", "1", 80)])).await;
    let [replace] = &next(&mut changes).await[..] else { panic!("one change expected") };
    assert!(replace.starts_with("= a/y ?a/x: ") && replace.contains("eighty"), "{replace}");
    let events = [
        ("MODIFIED", service("y", "2", "eighty")),
        ("MODIFIED", service("x", "3", 80)),
        ("DELETED", service("y", "4", "eighty")),
    ];
    server.tell(&events).await;
    let [broken] = &next(&mut changes).await[..] else { panic!("one change expected") };
    assert!(broken.starts_with("?a/y: ") && broken.contains("eighty"), "{broken}");
    assert_eq!(next(&mut changes).await, ["+a/x"]);
    assert_eq!(next(&mut changes).await, ["-a/y"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_isnt_installed_is_empty_until_it_is() {
    let (mut server, client) = Server::new();
    let mut changes = start(Kind::ReferenceGrant, client);
    server.fail(404, "NotFound").await;
    assert_eq!(next(&mut changes).await, ["= "]);
    let absent = Instant::now();
    server.fail(404, "NotFound").await;
    let grant = json!({
        "metadata": {"namespace": "a", "name": "g", "resourceVersion": "3"},
        "spec": {"from": [], "to": []},
    });
    server.answer(200, list("4", "", &[grant])).await;
    assert_eq!(next(&mut changes).await, ["+a/g"]);
    // It is looked for now and then, not all the time.
    assert!(absent.elapsed() >= CURE && absent.elapsed() <= 2 * CURE, "{:?}", absent.elapsed());
}

/// A kind that was there and can't be found is more likely an API server that starts than a cluster without routes.
#[tokio::test(start_paused = true)]
async fn what_was_known_stays_in_force_while_nobody_answers() {
    let (mut server, client) = Server::new();
    let mut changes = start(Kind::Service, client);
    server.answer(200, list("1", "", &[service("x", "1", 80)])).await;
    assert_eq!(next(&mut changes).await, ["= a/x"]);
    server.tell(&[("ERROR", gone(410))]).await;
    server.fail(404, "NotFound").await;
    server.fail(403, "Forbidden").await;
    let away = Instant::now();
    for _ in 0..600 {
        server.fail(503, "ServiceUnavailable").await;
    }
    // No more than a request a second, and the next one is never far.
    assert!(away.elapsed() > Duration::from_secs(300) && away.elapsed() < Duration::from_secs(600));
    server.answer(200, list("9", "", &[service("y", "8", 80)])).await;
    assert_eq!(next(&mut changes).await, ["+a/y", "-a/x"]);
}

#[tokio::test(start_paused = true)]
async fn namespaces_of_secrets_are_complete_together() {
    let (mut server, client) = Server::new();
    let mut changes = start(Kind::Secret, client);
    let secret = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "1"}});
    let broken = json!({"metadata": {"namespace": "a", "name": "broken", "resourceVersion": "1"}, "data": {"k": "(canary)"}});
    for _ in 0..2 {
        let (request, answer) = server.0.next_request().await.expect("a request");
        let items = match request.uri().path() {
            "/api/v1/namespaces/a/secrets" => [secret("a", "x"), broken.clone()].to_vec(),
            "/api/v1/namespaces/b/secrets" => vec![secret("b", "y")],
            other => panic!("not asked for: {other}"),
        };
        let body = Body::from(list("1", "", &items).to_string().into_bytes());
        answer.send_response(http::Response::new(body));
    }
    assert_eq!(next(&mut changes).await, ["= a/x b/y ?a/broken: it can't be decoded"]);
}

#[tokio::test(start_paused = true)]
async fn only_our_own_pods_are_watched() {
    let (mut server, client) = Server::new();
    let _changes = start(Kind::Pod, client);
    let asked = server.answer(200, list("1", "", &[])).await;
    assert!(asked.starts_with("/api/v1/namespaces/own/pods?") && asked.contains("app%3Dheadgate"), "{asked}");
}
