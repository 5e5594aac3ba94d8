//! Mirrors: who gets copies, and that nobody waits for them.

use crate::harness::{Backend, Setup, backend_id, ok, soon, to};
use headgate_proxy::model::{BackendProtocol, Filter, HeaderEdits, Mirror, Timeouts};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

fn mirror(to: &str, numerator: u32) -> Filter {
    Filter::Mirror(Mirror { backend: backend_id(to), numerator, denominator: 100 })
}

fn setup(main: SocketAddr, mirrors: &[(SocketAddr, u32)]) -> Setup {
    let mut setup = Setup::http();
    setup.backend("main", BackendProtocol::Http1, &[main]);
    let edits = HeaderEdits { set: vec![("x-edited".into(), "yes".into())], ..HeaderEdits::default() };
    let mut filters = vec![Filter::RequestHeaders(edits)];
    for (n, (address, share)) in mirrors.iter().enumerate() {
        let name = format!("mirror-{n}");
        setup.backend(&name, BackendProtocol::Http1, &[*address]);
        filters.push(mirror(&name, *share));
    }
    setup.rule("mirrored", "any", "/", to("main"), filters, Timeouts::default());
    setup
}

/// A backend that passes on what it is asked, and is slow to no one.
async fn listener(name: &'static str) -> (Backend, mpsc::Receiver<String>) {
    let (heard, hearing) = mpsc::channel(16);
    let backend = Backend::http(move |request| {
        heard
            .try_send(
                request.start.clone()
                    + "|"
                    + request.header("x-edited").unwrap_or("")
                    + "|"
                    + &request.text(),
            )
            .unwrap();
        ok(name.as_bytes())
    })
    .await;
    (backend, hearing)
}

#[tokio::test]
async fn every_mirror_gets_the_request_as_the_backend_does() {
    let main = Backend::named("main").await;
    let (a, mut heard_a) = listener("a").await;
    let (b, mut heard_b) = listener("b").await;
    let gateway = setup(main.address, &[(a.address, 100), (b.address, 100)]).start();
    let mut client = gateway.client().await;
    assert_eq!(client.post("/path?q", b"content").await.text(), "main");
    for heard in [&mut heard_a, &mut heard_b] {
        assert_eq!(soon(heard.recv()).await.unwrap(), "POST /path?q HTTP/1.1|yes|content");
    }
    client.send("POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "main");
    for heard in [&mut heard_a, &mut heard_b] {
        assert_eq!(soon(heard.recv()).await.unwrap(), "POST /chunks HTTP/1.1|yes|onetwo");
    }
}

#[tokio::test]
async fn a_share_of_requests_is_copied() {
    let main = Backend::named("main").await;
    let copies = Arc::new(AtomicUsize::new(0));
    let counter = copies.clone();
    let some = Backend::http(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        ok(b"")
    })
    .await;
    let (none, mut heard) = listener("none").await;
    let (last, mut ended) = listener("last").await;
    let gateway = setup(main.address, &[(some.address, 50), (none.address, 0), (last.address, 100)]).start();
    let mut client = gateway.client().await;
    for _ in 0..400 {
        client.get("/").await;
        soon(ended.recv()).await.unwrap();
    }
    // Seven standard deviations of a binomial distribution.
    let copies = copies.load(Ordering::Relaxed);
    assert!((130..=270).contains(&copies), "{copies}");
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_mirror_that_is_gone_or_never_reads_costs_the_request_nothing() {
    let main = Backend::http(|request| ok(request.text().len().to_string().as_bytes())).await;
    let stuck = Backend::raw(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let gone = crate::harness::nobody().await;
    let gateway = setup(main.address, &[(stuck.address, 100), (gone, 100)]).start();
    let mut client = gateway.client().await;
    let body = vec![b'x'; 8 << 20];
    assert_eq!(client.post("/", &body).await.text(), body.len().to_string());
    assert_eq!(client.get("/").await.text(), "0");
}

#[tokio::test]
async fn a_copy_of_a_broken_request_is_broken() {
    let (sender, mut heard) = mpsc::channel(1);
    let mirror = Backend::raw(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            let mut all = Vec::new();
            // An end or a reset: not the end of the body.
            let _ = stream.read_to_end(&mut all).await;
            sender.send(String::from_utf8(all).unwrap()).await.unwrap();
        }
    })
    .await;
    let main = Backend::raw(|mut stream, _| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let gateway = setup(main.address, &[(mirror.address, 100)]).start();
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    drop(client);
    let copy = soon(heard.recv()).await.unwrap();
    assert!(copy.starts_with("POST / HTTP/1.1") && !copy.ends_with("0\r\n\r\n"), "{copy}");
}
