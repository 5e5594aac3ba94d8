//! The end: unready first, then no new clients, then the last answers, then nothing.

use crate::harness::{Backend, Client, Gateway, HANGS, Setup, ok, soon};
use crate::http2;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// A backend that says when a request is there, and answers when it is let.
async fn patient() -> (Backend, mpsc::Receiver<()>, Arc<Semaphore>) {
    let (arrived, arrivals) = mpsc::channel(16);
    let go = Arc::new(Semaphore::new(0));
    let wait = go.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let (arrived, wait) = (arrived.clone(), wait.clone());
        async move {
            let mut request = [0; 4096];
            while !matches!(stream.read(&mut request).await, Ok(0) | Err(_)) {
                arrived.send(()).await.unwrap();
                wait.acquire().await.unwrap().forget();
                if stream.write_all(&ok(b"late")).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (backend, arrivals, go)
}

struct Draining {
    address: SocketAddr,
    admin: SocketAddr,
    over: JoinHandle<()>,
}

fn drain(gateway: Gateway, unready_for: Duration, at_most: Duration) -> Draining {
    let (address, admin) = (gateway.address(80), gateway.proxy.admin_address());
    let over = tokio::spawn(gateway.proxy.drain(unready_for, at_most));
    Draining { address, admin, over }
}

/// Returns when nobody can connect any more.
async fn closed(address: SocketAddr) {
    let closing = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(closing).await;
}

#[tokio::test]
async fn who_was_there_is_answered_and_nobody_else() {
    let (backend, mut arrivals, go) = patient().await;
    let gateway = Setup::only(&[backend.address]).start();
    let (mut busy, mut idle) = (gateway.client().await, gateway.client().await);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut http2 = http2::client(TcpStream::connect(gateway.address(80)).await.unwrap()).await;
    let mut stream = http2.clone();
    let call = tokio::spawn(async move { stream.send_request(http2::get("http://a/")).await });
    soon(arrivals.recv()).await.unwrap();
    soon(arrivals.recv()).await.unwrap();
    let draining = drain(gateway, Duration::ZERO, HANGS);
    closed(draining.address).await;
    assert!(idle.rest().await.is_empty());
    assert!(!draining.over.is_finished());
    go.add_permits(2);
    let last = busy.response().await;
    assert_eq!((last.text(), last.header("connection")), ("late".into(), Some("close")));
    assert!(busy.rest().await.is_empty());
    assert_eq!(http2::whole(soon(call).await.unwrap().unwrap()).await.0, "late");
    // GOAWAY came: there is no next request.
    assert!(soon(http2.send_request(http2::get("http://a/"))).await.is_err());
    soon(draining.over).await.unwrap();
}

#[tokio::test]
async fn an_unready_gateway_serves_and_sends_its_clients_away() {
    let backend = Backend::named("a").await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut before = gateway.client().await;
    assert_eq!(before.get("/").await.header("connection"), None);
    // As long as it takes: the test ends it.
    let draining = drain(gateway, HANGS, HANGS);
    let unready = async {
        let mut admin = Client::connect(draining.admin).await;
        while admin.get("/readyz").await.status() == 200 {}
        let mut client = Client::connect(draining.address).await;
        while client.get("/").await.header("connection").is_none() {}
    };
    soon(unready).await;
    for _ in 0..20 {
        let mut client = Client::connect(draining.address).await;
        assert_eq!(client.get("/").await.text(), "a");
    }
    let last = before.get("/").await;
    assert_eq!((last.status(), last.header("connection")), (200, Some("close")));
    draining.over.abort();
}

#[tokio::test]
async fn a_drain_ends_when_its_time_is_over() {
    let (backend, mut arrivals, go) = patient().await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut busy = gateway.client().await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    soon(arrivals.recv()).await.unwrap();
    let draining = drain(gateway, Duration::ZERO, Duration::from_millis(100));
    soon(draining.over).await.unwrap();
    assert!(busy.rest().await.is_empty());
    drop(go);
}

#[tokio::test]
async fn an_upgraded_connection_lasts_as_long_as_the_drain() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status(), 101);
    let draining = drain(gateway, Duration::ZERO, HANGS);
    closed(draining.address).await;
    client.send("still").await;
    let mut echo = [0; 5];
    soon(client.io.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"still");
    client.io.shutdown().await.unwrap();
    soon(draining.over).await.unwrap();
}

#[tokio::test]
async fn an_idle_gateway_is_gone_at_once() {
    let backend = Backend::named("a").await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut idle = gateway.client().await;
    assert_eq!(idle.get("/").await.status(), 200);
    let draining = drain(gateway, Duration::ZERO, HANGS);
    soon(draining.over).await.unwrap();
    assert!(idle.rest().await.is_empty());
    assert!(TcpStream::connect(draining.address).await.is_err());
}
