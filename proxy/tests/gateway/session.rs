//! Session persistence: whom a token leads back to whom, and when it doesn't any more.

use crate::harness::{Backend, Gateway, Response, Setup, backend_id, endpoints, to};
use headgate_proxy::model::{
    Action, BackendProtocol, Carrier, Rule, Session, Target, Timeouts, WeightedBackend, thin_vec,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

fn cookie() -> Carrier {
    Carrier::Cookie { name: "stick".into(), path: "/".into(), permanent: false }
}

fn sticky(setup: &mut Setup, action: Action, carrier: Carrier, lifetime: Option<Duration>) -> Gateway {
    setup.rule("sticky", "any", "/", action, vec![], Timeouts::default());
    let route = Arc::make_mut(setup.model.routes.values_mut().next().unwrap());
    route.rules =
        thin_vec![Rule { session: Some(Box::new(Session { carrier, lifetime })), ..route.rules[0].clone() }];
    setup.start()
}

async fn three() -> [Backend; 3] {
    [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await]
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}

async fn ask(gateway: &Gateway, field: &str) -> Response {
    let mut client = gateway.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")).await;
    client.response().await
}

/// The cookie that an answer sets, as a request brings it.
fn given(answer: &Response) -> String {
    let set = answer.header("set-cookie").expect("a cookie");
    format!("Cookie: other=1; {}", set.split(';').next().unwrap())
}

#[tokio::test]
async fn a_cookie_leads_back_to_its_endpoint() {
    let backends = three().await;
    let mut setup = Setup::http();
    setup.backend("b", BackendProtocol::Http1, &addresses(&backends));
    let gateway = sticky(&mut setup, to("b"), cookie(), None);
    for _ in 0..5 {
        let first = ask(&gateway, "X: 1").await;
        let attributes = first.header("set-cookie").unwrap().split_once("; ").unwrap().1;
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        for _ in 0..20 {
            let again = ask(&gateway, &given(&first)).await;
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        }
    }
}

#[tokio::test]
async fn a_token_whose_endpoint_is_gone_is_replaced() {
    let mut backends: Vec<_> = ["a", "b", "c"].into_iter().zip(three().await).collect();
    let mut setup = Setup::http();
    let all: Vec<_> = backends.iter().map(|(_, backend)| backend.address).collect();
    setup.backend("b", BackendProtocol::Http1, &all);
    let gateway = sticky(&mut setup, to("b"), cookie(), None);
    let first = ask(&gateway, "X: 1").await;
    // It doesn't accept connections any more, and then it isn't listed any more.
    backends.retain(|(name, _)| *name != first.text());
    let moved = ask(&gateway, &given(&first)).await;
    assert_ne!(moved.text(), first.text());
    assert_eq!(ask(&gateway, &given(&moved)).await.text(), moved.text());
    let left: Vec<_> = backends.iter().map(|(_, backend)| backend.address).collect();
    gateway.proxy.publisher().publish_endpoints(&backend_id("b"), endpoints(&left));
    let moved = ask(&gateway, &given(&first)).await;
    assert_eq!((moved.status(), moved.header("set-cookie").is_some()), (200, true));
}

#[tokio::test]
async fn a_session_keeps_to_one_backend_of_a_split() {
    let (one, other) = (Backend::named("one").await, Backend::named("other").await);
    let mut setup = Setup::http();
    setup.backend("one", BackendProtocol::Http1, &[one.address]);
    setup.backend("other", BackendProtocol::Http1, &[other.address]);
    let share = |name, weight| WeightedBackend::new(Target::Backend(backend_id(name)), weight);
    let action = Action::Forward(thin_vec![share("one", 1), share("other", 1)]);
    let gateway = sticky(&mut setup, action, cookie(), None);
    for _ in 0..10 {
        let first = ask(&gateway, "X: 1").await;
        for _ in 0..10 {
            assert_eq!(ask(&gateway, &given(&first)).await.text(), first.text());
        }
    }
}

#[tokio::test]
async fn backends_of_a_split_have_sessions_of_their_own() {
    let backends = three().await;
    let mut setup = Setup::http();
    setup.backend("kept", BackendProtocol::Http1, &addresses(&backends[..2]));
    setup.backend("other", BackendProtocol::Http1, &[backends[2].address]);
    let session = Session { carrier: cookie(), lifetime: None };
    let share = |name| WeightedBackend::new(Target::Backend(backend_id(name)), 1);
    let action = Action::Forward(thin_vec![
        WeightedBackend { session: Some(Box::new(session)), ..share("kept") },
        share("other"),
    ]);
    setup.rule("split", "any", "/", action, vec![], Timeouts::default());
    let gateway = setup.start();
    let mut kept = None;
    for _ in 0..40 {
        let answer = ask(&gateway, "X: 1").await;
        // Only the one that has sessions gives tokens.
        assert_eq!(answer.header("set-cookie").is_some(), answer.text() != "c");
        kept = kept.or_else(|| answer.header("set-cookie").is_some().then_some(answer));
    }
    let kept = kept.expect("half of them go there");
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &given(&kept)).await.text(), kept.text());
    }
}

#[tokio::test]
async fn a_header_carries_a_token_too() {
    let backends = three().await;
    let mut setup = Setup::http();
    setup.backend("b", BackendProtocol::Http1, &addresses(&backends));
    let gateway = sticky(&mut setup, to("b"), Carrier::Header { name: "x-session".into() }, None);
    let first = ask(&gateway, "X: 1").await;
    let token = first.header("x-session").unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &format!("X-Session: {token}")).await.text(), first.text());
    }
}

#[tokio::test]
async fn a_session_ends_with_its_lifetime() {
    let backend = Backend::named("a").await;
    let carrier = Carrier::Cookie { name: "stick".into(), path: "/shop".into(), permanent: true };
    let mut setup = Setup::http();
    setup.backend("b", BackendProtocol::Http1, &[backend.address]);
    let gateway = sticky(&mut setup, to("b"), carrier, Some(Duration::from_secs(3600)));
    let first = ask(&gateway, "X: 1").await;
    assert!(
        first.header("set-cookie").unwrap().ends_with("; Path=/shop; HttpOnly; SameSite=Lax; Max-Age=3600")
    );
    assert_eq!(ask(&gateway, &given(&first)).await.header("set-cookie"), None);
    // The same, given in 1970.
    let (name, token) = given(&first).rsplit_once('=').map(|(n, t)| (n.to_owned(), t.to_owned())).unwrap();
    let old = format!("{name}=00000000{}", &token[8..]);
    assert!(ask(&gateway, &old).await.header("set-cookie").is_some());
}
