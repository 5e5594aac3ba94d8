//! External authorization, over HTTP and over gRPC: who passes, as what, and what happens when nobody can say.

use crate::harness::{Backend, Gateway, Response, Setup, backend_id, nobody, ok, to};
use crate::http2::{Frames, data, http2_backend};
use bytes::{BufMut, BytesMut};
use headgate_proxy::model::{
    AuthProtocol, BackendProtocol, ExternalAuth, Failure, Filter, HeaderEdits, HostPattern, ListenerFilter,
    PortProtocol, Redirect, StringMatch, Text, Timeouts, ValueMatch, thin_vec,
};
use http_body_util::BodyExt;
use hyper::body::Frame;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Shows what it got: line, body, and some fields.
async fn echo() -> Backend {
    Backend::http(|request| {
        let field = |name| request.header(name).unwrap_or("-");
        let text = format!(
            "{} user={} authorization={} body={}",
            request.start,
            field("x-user"),
            field("authorization"),
            request.text()
        );
        ok(text.as_bytes())
    })
    .await
}

fn http(path: &str, response: &[&str], max_body: u32) -> ExternalAuth {
    let response_headers = response.iter().map(|name| (*name).into()).collect();
    ExternalAuth {
        backend: backend_id("authorizer"),
        protocol: AuthProtocol::Http { path: path.into(), response_headers },
        request_headers: vec!["x-asked".into()],
        max_body,
    }
}

fn setup(backend: SocketAddr, authorizer: &[SocketAddr], auth: ExternalAuth) -> Setup {
    let mut setup = Setup::http();
    setup.backend("real", BackendProtocol::Http1, &[backend]);
    setup.backend("authorizer", BackendProtocol::Http1, authorizer);
    let edits = HeaderEdits { add: vec![("x-asked".into(), "edited".into())], ..HeaderEdits::default() };
    let filters = vec![Filter::RequestHeaders(edits), Filter::ExternalAuth(auth)];
    setup.rule("guarded", "any", "/", to("real"), filters, Timeouts::default());
    setup
}

/// Lets those pass who know the word.
async fn authorizer() -> Backend {
    Backend::http(|request| {
        assert!(request.header("x-secret").is_none(), "it isn't told what isn't its to know");
        assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
        match request.header("authorization") {
            Some("word") => format!(
                "HTTP/1.1 200 OK\r\nX-User: ann, {} {} {}\r\nServer: a\r\nContent-Type: text/x\r\nX-Other: 1\r\nContent-Length: 4\r\n\r\nfine",
                request.start,
                request.header("x-asked").unwrap_or("-"),
                request.text(),
            )
            .into_bytes(),
            Some("almost") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Some("break") => b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 302 Found\r\nLocation: /login\r\nConnection: x\r\nContent-Length: 5\r\n\r\nlogin".to_vec(),
        }
    })
    .await
}

async fn ask(gateway: &crate::harness::Gateway, word: &str, body: &str) -> Response {
    let mut client = gateway.client().await;
    let length = body.len();
    let fields = "X-Secret: s\r\nX-Asked: original\r\nX-User: root";
    client
        .send(format!(
            "POST /a?b HTTP/1.1\r\nHost: h\r\nAuthorization: {word}\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.response().await
}

#[tokio::test]
async fn who_is_let_pass_passes_as_the_authorizer_says() {
    let (backend, authorizer) = (echo().await, authorizer().await);
    for (allowed, max_body, seen) in [(&["x-user"][..], 0, ""), (&[], 100, "hello")] {
        let gateway =
            setup(backend.address, &[authorizer.address], http("/check", allowed, max_body)).start();
        let answer = ask(&gateway, "word", "hello").await;
        let user = format!("ann, POST /check/a?b HTTP/1.1 original {seen}");
        let user = user.trim();
        let wanted = format!("POST /a?b HTTP/1.1 user={user} authorization=word body=hello");
        assert_eq!((answer.status(), answer.text()), (200, wanted));
    }
}

#[tokio::test]
async fn a_listed_field_is_the_authorizers_alone() {
    let backend = echo().await;
    let silent = Backend::http(|_| ok(b"")).await;
    let gateway = setup(backend.address, &[silent.address], http("", &["x-user"], 0)).start();
    let text = ask(&gateway, "word", "").await.text();
    assert!(text.contains("user=- "), "{text}");
}

#[tokio::test]
async fn who_is_not_let_pass_gets_the_authorizers_answer() {
    let (backend, authorizer) = (echo().await, authorizer().await);
    let gateway = setup(backend.address, &[authorizer.address], http("", &[], 0)).start();
    let answer = ask(&gateway, "nothing", "hello").await;
    assert_eq!((answer.status(), answer.header("location")), (302, Some("/login")));
    assert_eq!(answer.text(), "login");
    assert_eq!(ask(&gateway, "almost", "").await.status(), 403);
    assert_eq!(ask(&gateway, "break", "").await.status(), 503);
    assert_eq!(backend.connections(), 0);
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"denied\"").await, 2.0);
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"authorizer\"").await, 1.0);
}

#[tokio::test]
async fn without_an_answer_nobody_passes() {
    let backend = echo().await;
    let hangs = Backend::raw(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let huge = Backend::http(|_| ok(&[1; 100_000])).await;
    for addresses in [vec![], vec![nobody().await], vec![hangs.address], vec![huge.address]] {
        let gateway = setup(backend.address, &addresses, http("", &[], 0)).start();
        assert_eq!(ask(&gateway, "word", "hello").await.status(), 503);
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_body_larger_than_the_authorizer_may_see_is_413() {
    let (backend, authorizer) = (echo().await, authorizer().await);
    let gateway = setup(backend.address, &[authorizer.address], http("", &[], 4)).start();
    assert_eq!(ask(&gateway, "word", "hello").await.status(), 413);
    let mut client = gateway.client().await;
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n")
        .await;
    assert_eq!(client.response().await.status(), 413);
    assert_eq!(ask(&gateway, "word", "four").await.status(), 200);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn redirects_are_guarded_too() {
    let authorizer = authorizer().await;
    let mut setup = setup(nobody().await, &[authorizer.address], http("", &[], 0));
    let away = Redirect { scheme: None, hostname: Some("away".into()), port: None, path: None, status: 301 };
    let away = headgate_proxy::model::Action::Redirect(Box::new(away));
    setup.rule(
        "guarded",
        "any",
        "/",
        away,
        vec![Filter::ExternalAuth(http("", &[], 0))],
        Timeouts::default(),
    );
    let gateway = setup.start();
    assert_eq!(ask(&gateway, "nothing", "").await.status(), 302);
    assert_eq!(ask(&gateway, "word", "").await.status(), 301);
}

/// Field `number` of a message: bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(value.len()).unwrap()];
    out.extend_from_slice(value);
    out
}

fn option(field_number: u8, name: &str, value: &str) -> Vec<u8> {
    let header = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
    field(field_number, &field(1, &header))
}

/// An `ext_authz` server that hands its question to `answer`, which makes the message and the status of the call.
async fn ext_authz(answer: fn(&[u8]) -> (Vec<u8>, &'static str)) -> Backend {
    http2_backend(move |request: hyper::Request<hyper::body::Incoming>| async move {
        assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let question = request.into_body().collect().await.unwrap().to_bytes();
        let (message, status) = answer(&question[5..]);
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.put_slice(&message);
        let mut trailers = hyper::HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        hyper::Response::new(Frames::of(vec![data(framed), Frame::trailers(trailers)]))
    })
    .await
}

fn grpc() -> ExternalAuth {
    let backend = backend_id("authorizer");
    ExternalAuth { backend, protocol: AuthProtocol::Grpc, request_headers: vec![], max_body: 100 }
}

fn contains(question: &[u8], text: &str) -> bool {
    question.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn ext_authz_lets_pass_changes_and_denies() {
    let backend = echo().await;
    let authorizer = ext_authz(|question| {
        for told in ["POST", "/a?b", "x-secret", "hello", "127.0.0.1", "HTTP/1.1"] {
            assert!(contains(question, told), "{told}");
        }
        match contains(question, "word") {
            true => {
                let ok = [option(2, "x-user", "bob"), field(5, b"authorization"), option(6, "x-seen", "1")];
                (field(3, &ok.concat()), "0")
            }
            false => {
                // 401, in two bytes.
                let status = field(1, &[1 << 3, 0x91, 0x03]);
                let denied = [status, option(2, "www-authenticate", "Basic"), field(3, b"who?")].concat();
                ([field(1, &[1 << 3, 16]), field(2, &denied)].concat(), "0")
            }
        }
    })
    .await;
    let gateway = setup(backend.address, &[authorizer.address], grpc()).start();
    let answer = ask(&gateway, "word", "hello").await;
    assert_eq!(answer.text(), "POST /a?b HTTP/1.1 user=bob authorization=- body=hello");
    assert_eq!(answer.header("x-seen"), Some("1"));
    let answer = ask(&gateway, "nothing", "hello").await;
    assert_eq!((answer.status(), answer.header("www-authenticate")), (401, Some("Basic")));
    assert_eq!(answer.text(), "who?");
}

#[tokio::test]
async fn an_ext_authz_call_that_fails_lets_nobody_pass() {
    let backend = echo().await;
    for answer in [
        |_: &[u8]| (vec![], "14"),
        |_: &[u8]| (vec![0xff, 0xff], "0"),
        |_: &[u8]| (field(3, &option(2, "x y", "no name")), "0"),
    ] {
        let authorizer = ext_authz(answer).await;
        let gateway = setup(backend.address, &[authorizer.address], grpc()).start();
        assert_eq!(ask(&gateway, "word", "hello").await.status(), 503);
    }
    assert_eq!(backend.connections(), 0);
}

/// Says by two fields who came, and what came before; refuses whoever says so.
async fn numbered(number: u8) -> Backend {
    Backend::http(move |request| {
        assert_eq!(request.header("host"), Some("a.example"));
        if request.header("authorization") == Some("refuse") {
            return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!".to_vec();
        }
        let before = request.header("x-tenant").unwrap_or("-");
        let tenant = if before == "blue" { "green" } else { "blue" };
        format!(
            "HTTP/1.1 200 OK\r\nX-Tenant: {tenant}\r\nX-Step-{number}: {before}\r\nHost: b.example\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    })
    .await
}

/// What a listener's filters write decides where a request goes; they are asked in their order, once, and only about the
/// requests of their listener.
#[tokio::test]
async fn filters_of_a_listener_come_before_routing() {
    let (first, second) = (numbered(1).await, numbered(2).await);
    let (blue, green) = (Backend::named("blue").await, echo().await);
    let mut setup = Setup::default();
    let listeners = vec![
        ("any", HostPattern::Exact("a.example".into()), None),
        ("other", HostPattern::Exact("b.example".into()), None),
    ];
    setup.port(80, PortProtocol::Http, listeners);
    for (name, backend) in [("first", &first), ("second", &second), ("blue", &blue), ("green", &green)] {
        setup.backend(name, BackendProtocol::Http1, &[backend.address]);
    }
    setup.route("blue", "/", to("blue"));
    setup.route("green", "/", to("green"));
    setup.rule("plain", "other", "/", to("blue"), vec![], Timeouts::default());
    for route in setup.model.routes.values_mut().filter(|route| &*route.id.name.name == "green") {
        let value = StringMatch::Exact("green".into());
        Arc::make_mut(route).rules[0].matches[0].headers =
            thin_vec![ValueMatch { name: "x-tenant".into(), value }];
    }
    let ask_of = |name: &str| {
        let told: Vec<Text> = vec!["x-tenant".into()];
        let auth =
            ExternalAuth { backend: backend_id(name), request_headers: told, ..http("", &["x-tenant"], 0) };
        ListenerFilter::ExternalAuth(auth)
    };
    let with = |filters: Vec<ListenerFilter>| {
        let mut setup = setup.clone();
        for port in setup.model.ports.values_mut() {
            Arc::make_mut(port).listeners[0].filters = filters.clone();
        }
        setup
    };
    let get = async |gateway: &Gateway, host: &str, fields: &str| {
        let mut client = gateway.client().await;
        client.send(format!("GET /a HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await;
        client.response().await
    };
    let gateway = with(vec![ask_of("first"), ask_of("second")]).start();
    // Blue by the first, green by the second, though the client said so itself.
    let answer = get(&gateway, "a.example", "X-Tenant: green\r\n").await;
    assert!(answer.text().starts_with("GET /a HTTP/1.1 user=- "), "{}", answer.text());
    // One is enough to be refused, and the second isn't asked.
    let asked = second.connections();
    let refused = get(&gateway, "a.example", "Authorization: refuse\r\n").await;
    assert_eq!((refused.status(), refused.text().as_str(), second.connections()), (403, "no!", asked));
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"denied\"").await, 1.0);
    // Another listener's requests, and those of none.
    assert_eq!(get(&gateway, "b.example", "Authorization: refuse\r\n").await.text(), "blue");
    assert_eq!(get(&gateway, "c.example", "").await.status(), 404);
    gateway.publish(&with(vec![ask_of("first")]));
    assert_eq!(get(&gateway, "a.example", "X-Tenant: green\r\n").await.text(), "blue");
    gateway.publish(&with(vec![ask_of("first"), ListenerFilter::Fail(Failure::BackendNotFound)]));
    assert_eq!(get(&gateway, "a.example", "").await.status(), 500);
    gateway.publish(&setup);
    assert_eq!(get(&gateway, "a.example", "Authorization: refuse\r\n").await.text(), "blue");
}
