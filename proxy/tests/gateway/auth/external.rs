//! Somebody else who knows clients.

use super::*;
use headgate_proxy::model::{AnswerCache, AuthProtocol, ExternalAuth, ExternalAuthenticator};

/// Who knows a word; counts the questions.
async fn knows_the_word(asked: Arc<AtomicUsize>) -> Backend {
    Backend::http(move |request| {
        asked.fetch_add(1, Ordering::Relaxed);
        match request.header("authorization") {
            Some("Bearer word") => b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n".to_vec(),
            Some("Bearer forbidden") => {
                b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 2\r\n\r\nno".to_vec()
            }
            _ => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nwho".to_vec(),
        }
    })
    .await
}

fn external(fail_open: bool) -> ExternalAuthenticator {
    let protocol = AuthProtocol::Http { path: "/check".into(), response_headers: vec!["x-user".into()] };
    let backend = crate::harness::backend_id("authorizer");
    ExternalAuthenticator {
        policy: policy(),
        ask: ExternalAuth { backend, protocol, request_headers: vec![], max_body: 0 },
        timeout: Duration::from_secs(5),
        fail_open,
        sign_in: Some("https://login.example/start?app=1".into()),
        cache: None,
    }
}

impl Guarded {
    async fn asking(auth: Auth, authorizer: &[std::net::SocketAddr]) -> Self {
        let backend = Backend::echo().await;
        let mut setup = Setup::only(&[backend.address]);
        setup.backend("authorizer", headgate_proxy::model::BackendProtocol::Http1, authorizer);
        setup.govern(guarded(auth));
        let gateway = setup.start();
        Self { backend, seen: Arc::default(), gateway }
    }
}

#[tokio::test]
async fn somebody_else_may_know_clients_as_one_of_several() {
    let asked = Arc::new(AtomicUsize::new(0));
    let authorizer = knows_the_word(asked.clone()).await;
    let both = |requirement| Auth {
        requirement,
        ..auth(vec![("a-keys", api_keys(header_key())), ("b-other", AuthMethod::External(external(false)))])
    };
    let any = Guarded::asking(both(Requirement::Any), &[authorizer.address]).await;
    let key = "X-Api-Key: alice-has-this-long-key\r\n";
    let seen = any.ask("/", &format!("{}X-User: root\r\n", bearer("word"))).await.text();
    assert!(seen.contains("x-user: ann\n") && !seen.contains("root"), "{seen}");
    // Whoever is known isn't asked about.
    let questions = asked.load(Ordering::Relaxed);
    assert_eq!(any.status(key).await, 200);
    assert_eq!(asked.load(Ordering::Relaxed), questions);
    // Others get its answer, as it is.
    let refused = any.ask("/", &bearer("forbidden")).await;
    assert_eq!((refused.status(), refused.header("x-why"), refused.text().as_str()), (403, Some("no"), "no"));
    let refused = any.ask("/", "").await;
    assert_eq!((refused.status(), refused.text().as_str()), (401, "who"));
    // A browser is sent to where it can sign in, and from there back.
    let sent = any.ask("/cart?id=7", "Accept: text/html,*/*\r\n").await;
    assert_eq!(sent.status(), 302);
    let location = "https://login.example/start?app=1&rd=http%3A%2F%2Fexample.com%2Fcart%3Fid%3D7";
    assert_eq!(sent.header("location"), Some(location));
    assert_eq!(any.outcomes("unauthenticated").await, 3.0);

    let all = Guarded::asking(both(Requirement::All), &[authorizer.address]).await;
    assert_eq!(all.status(&bearer("word")).await, 401);
    assert_eq!(all.status(&format!("{key}{}", bearer("other"))).await, 401);
    assert_eq!(all.status(&format!("{key}{}", bearer("word"))).await, 200);
}

#[tokio::test]
async fn what_somebody_else_allows_is_remembered_as_the_policy_says() {
    let asked = Arc::new(AtomicUsize::new(0));
    let authorizer = knows_the_word(asked.clone()).await;
    let key = vec![KeyPart::Header("authorization".into()), KeyPart::Path];
    let remembering = |key: &[KeyPart], max_body| {
        let cache = AnswerCache { key: key.to_vec(), lifetime: Duration::from_secs(600), max_entries: 100 };
        let mut external = ExternalAuthenticator { cache: Some(cache), ..external(false) };
        external.ask.max_body = max_body;
        auth(vec![("other", AuthMethod::External(external))])
    };
    let gateway = Guarded::asking(remembering(&key, 0), &[authorizer.address]).await;
    let questions = || asked.swap(0, Ordering::Relaxed);
    for _ in 0..3 {
        // With the field that it sets, whatever the client says.
        let seen = gateway.ask("/", &format!("{}X-User: root\r\n", bearer("word"))).await.text();
        assert!(seen.contains("x-user: ann\n") && !seen.contains("root"), "{seen}");
    }
    assert_eq!(questions(), 1);
    // Another path is another question, and so is another client; refusals aren't remembered.
    assert_eq!(gateway.ask("/other", &bearer("word")).await.status(), 200);
    for _ in 0..2 {
        assert_eq!(gateway.ask("/", &bearer("forbidden")).await.status(), 403);
        assert_eq!(gateway.ask("/", "").await.status(), 401);
    }
    assert_eq!(questions(), 5);
    // A request that has nothing of the key.
    let gateway =
        Guarded::asking(remembering(&[KeyPart::Cookie("session".into())], 0), &[authorizer.address]).await;
    for _ in 0..2 {
        assert_eq!(gateway.ask("/", &bearer("word")).await.status(), 200);
    }
    assert_eq!(questions(), 2);
    // A body that it is told is part of the question.
    let gateway = Guarded::asking(remembering(&key, 100), &[authorizer.address]).await;
    for _ in 0..2 {
        let fields = format!("{}Content-Length: 0\r\n", bearer("word"));
        assert_eq!(gateway.ask("/", &fields).await.status(), 200);
    }
    assert_eq!(questions(), 1);
    for _ in 0..2 {
        let mut client = gateway.gateway.client().await;
        let fields = bearer("word");
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 2\r\n\r\nhi")).await;
        assert_eq!(client.response().await.status(), 200);
    }
    assert_eq!(questions(), 2);
}

#[tokio::test]
async fn without_an_answer_from_somebody_else_nobody_passes_unless_that_was_wanted() {
    let nobody = crate::harness::nobody().await;
    let asking = |fail_open| auth(vec![("other", AuthMethod::External(external(fail_open)))]);
    let closed = Guarded::asking(asking(false), &[nobody]).await;
    assert_eq!(closed.status(&bearer("word")).await, 503);
    assert_eq!((closed.outcomes("unavailable").await, closed.backend.connections()), (1.0, 0));
    let open = Guarded::asking(asking(true), &[nobody]).await;
    assert_eq!(open.status("").await, 200);
}
