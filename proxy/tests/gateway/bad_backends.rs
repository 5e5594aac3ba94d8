//! Backends that break the protocol, the connection, or their word.

use crate::harness::{Backend, Setup, nobody, ok, soon, to};
use headgate_proxy::model::BackendProtocol;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers every connection's first request with these bytes, then closes.
async fn says(answer: Vec<u8>) -> Backend {
    Backend::raw(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn malformed_answers_are_502() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    let interim =
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "nonsense\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        &long,
        &interim,
    ] {
        let backend = says(answer.into()).await;
        let gateway = Setup::only(&[backend.address]).start();
        let response = gateway.get("/").await;
        assert_eq!(response.status(), 502, "{:?}", &answer[..answer.len().min(100)]);
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
}

#[tokio::test]
async fn a_body_cut_short_is_cut_visibly() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfX\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n\r\n",
    ] {
        let backend = says(answer.into()).await;
        let gateway = Setup::only(&[backend.address]).start();
        let mut client = gateway.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let seen = String::from_utf8(client.rest().await).unwrap();
        // A head that wasn't on its way yet goes with the body: the client sees a connection that closed.
        if seen.is_empty() {
            continue;
        }
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}: {seen:?}");
        assert!(!seen.ends_with("0\r\n\r\n"), "{answer:?}: {seen:?}");
        let body = seen.split_once("\r\n\r\n").unwrap().1;
        assert!(
            seen.contains("content-length: 10\r\n") && body.len() < 10 || seen.contains("chunked"),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn bytes_past_the_end_never_reach_anybody() {
    let backend = Backend::http(|_| [ok(b"mine"), ok(b"smuggled")].concat()).await;
    let gateway = Setup::only(&[backend.address]).start_with(Default::default(), 1);
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "mine");
    }
    assert_eq!(backend.connections(), 10);
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_replaced() {
    // Each connection answers one request as if it would go on, and is closed.
    let backend = says(ok(b"once")).await;
    let gateway = Setup::only(&[backend.address]).start_with(Default::default(), 1);
    let mut client = gateway.client().await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.text(), "once");
    }
}

#[tokio::test]
async fn a_request_that_met_a_dying_connection_is_sent_again_once_it_is_safe() {
    let posts = Arc::new(AtomicUsize::new(0));
    let count = posts.clone();
    // The first request on a connection is answered, the second is read and not answered.
    let backend = Backend::raw(move |mut stream, _| {
        let posts = count.clone();
        async move {
            let mut request = vec![0; 4096];
            for turn in 0..2 {
                let Ok(length @ 1..) = stream.read(&mut request).await else { return };
                if request[..length].starts_with(b"POST") {
                    posts.fetch_add(1, Ordering::Relaxed);
                }
                if turn == 0 {
                    stream.write_all(&ok(b"answered")).await.unwrap();
                }
            }
        }
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start_with(Default::default(), 1);
    let mut client = gateway.client().await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.text(), "answered");
    }
    assert_eq!(posts.load(Ordering::Relaxed), 0);
    // Fills the pool again; then a POST meets the connection that dies. It is sent once, whatever comes of it.
    assert_eq!(gateway.get("/").await.text(), "answered");
    let before = posts.load(Ordering::Relaxed);
    let response = client.post("/", b"body").await;
    let sent = posts.load(Ordering::Relaxed) - before;
    assert!(sent == 1 && [200, 502].contains(&response.status()), "{sent} {}", response.status());
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let good = Backend::named("good").await;
    let addresses = [nobody().await, good.address, nobody().await];
    let gateway = Setup::only(&addresses).start();
    let mut client = gateway.client().await;
    for n in 0..50 {
        assert_eq!(client.get("/").await.text(), "good");
        assert_eq!(client.post("/", b"hello").await.text(), "good", "{n}");
    }
}

#[tokio::test]
async fn without_a_way_to_the_backend_it_is_503() {
    let mut setup = Setup::only(&[nobody().await, nobody().await]);
    setup.backend("empty", BackendProtocol::Http1, &[]).route("empty", "/empty", to("empty"));
    setup.backend("h2", BackendProtocol::H2c, &[nobody().await]).route("h2", "/h2", to("h2"));
    let gateway = setup.start();
    let mut client = gateway.client().await;
    for path in ["/", "/empty", "/h2"] {
        assert_eq!(client.get(path).await.status(), 503, "{path}");
    }
    assert!(gateway.metric("headgate_rejections_total{reason=\"no_endpoints\"").await >= 1.0);
}

#[tokio::test]
async fn a_backend_that_answers_and_closes_while_it_is_sent_to_is_heard() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut some = [0; 100];
        let _ = stream.read(&mut some).await;
        stream
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        // Reads on, so that the answer isn't lost to a reset.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n").await;
    let (mut read, mut write) = client.io.split();
    let piece = vec![1; 1 << 16];
    let mut seen = Vec::new();
    let sending = async {
        // Until it is cut off: the answer is there long before.
        while write.write_all(&piece).await.is_ok() {}
    };
    let receiving = async {
        while !seen.ends_with(b"no") {
            if read.read_buf(&mut seen).await.unwrap() == 0 {
                break;
            }
        }
    };
    soon(async {
        tokio::select! {
            () = receiving => {}
            () = async { sending.await; std::future::pending().await } => {}
        }
    })
    .await;
    assert!(seen.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&seen));
}
