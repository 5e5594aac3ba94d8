//! CORS: who is told what, and by whom.

use crate::harness::{Backend, Setup, to};
use headgate_proxy::model::{Cors, Filter, Timeouts};

const ASKED: &str = "Host: a\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n";

fn setup(addresses: &[std::net::SocketAddr], origin: &str) -> Setup {
    let cors = Cors {
        origins: vec![origin.into()],
        methods: vec!["PUT".into()],
        credentials: true,
        max_age: 60,
        ..Cors::default()
    };
    let mut setup = Setup::http();
    setup.backend("b", headgate_proxy::model::BackendProtocol::Http1, addresses);
    setup.rule("cors", "any", "/", to("b"), vec![Filter::Cors(cors)], Timeouts::default());
    setup
}

#[tokio::test]
async fn a_preflight_never_reaches_the_backend() {
    let backend = Backend::echo().await;
    let gateway = setup(&[backend.address], "https://a.example").start();
    let mut client = gateway.client().await;
    client.send(format!("OPTIONS / HTTP/1.1\r\n{ASKED}")).await;
    let answer = client.message(true).await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
    assert_eq!(answer.header("access-control-max-age"), Some("60"));
    assert_eq!(backend.connections(), 0);
    // One that asks nothing is a request like others.
    client.send("OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn other_origins_are_served_and_told_nothing() {
    let backend = Backend::echo().await;
    let gateway = setup(&[backend.address], "https://b.example").start();
    let mut client = gateway.client().await;
    client.send(format!("GET / HTTP/1.1\r\n{ASKED}")).await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("vary"), Some("origin"));
}

#[tokio::test]
async fn scripts_may_read_our_own_errors() {
    let gateway = setup(&[], "https://a.example").start();
    let mut client = gateway.client().await;
    client.send(format!("GET / HTTP/1.1\r\n{ASKED}")).await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
}
