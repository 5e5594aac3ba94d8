//! HTTP/1.1 on both sides: what goes through, and how.

use crate::harness::{Backend, Client, Setup, ok, soon, to};
use headgate_proxy::model::{Action, BackendProtocol, Failure, Redirect, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

#[tokio::test]
async fn requests_reach_the_backend_cleaned_and_answers_come_back() {
    let backend = Backend::echo().await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client
        .send(
            "GET /a/../b?c=d HTTP/1.1\r\nHost: Example.com\r\nX-Own: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
             X-Forwarded-For: 6.6.6.6\r\n\r\n",
        )
        .await;
    let response = client.response().await;
    assert_eq!(response.status(), 200);
    assert!(response.header("date").is_some());
    let seen = response.text();
    assert!(seen.starts_with("GET /b?c=d HTTP/1.1\nhost: example.com\n"), "{seen}");
    assert!(seen.contains("x-own: 1\n") && seen.contains("x-forwarded-for: 127.0.0.1\n"), "{seen}");
    assert!(!seen.contains("x-hop") && !seen.contains("6.6.6.6") && !seen.contains("connection:"), "{seen}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let backend = Backend::named("a").await;
    let gateway = Setup::only(&[backend.address]).start_with(Default::default(), 1);
    let mut client = gateway.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "a");
    }
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.text(), "a");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::echo().await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests).await;
    for n in 0..20 {
        assert!(client.response().await.text().starts_with(&format!("GET /{n} ")));
    }
}

#[tokio::test]
async fn bodies_go_up_counted_and_chunked_with_trailers() {
    let backend = Backend::echo().await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    let seen = client.post("/", b"hello").await.text();
    assert!(seen.contains("content-length: 5\n") && seen.ends_with("\n\nhello"), "{seen}");
    let seen = client.post("/", b"").await.text();
    assert!(seen.contains("content-length: 0\n"), "{seen}");
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-Sum: 7\r\n\r\n",
        )
        .await;
    let seen = client.response().await.text();
    assert!(seen.contains("transfer-encoding: chunked\n") && seen.contains("\n\nhellox-sum: 7\n"), "{seen}");
    // The connection is in order after all that.
    assert_eq!(client.get("/").await.status(), 200);
}

#[tokio::test]
async fn every_framing_of_an_answer_arrives_whole() {
    for (answer, body) in [
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..], "abcde"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n", "a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "no"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
    ] {
        let backend = Backend::http(move |_| answer.to_vec()).await;
        let gateway = Setup::only(&[backend.address]).start();
        let mut client = gateway.client().await;
        for _ in 0..3 {
            let response = client.get("/").await;
            assert_eq!(response.text(), body, "{}", String::from_utf8_lossy(answer));
            assert_eq!(response.header("connection"), None);
        }
    }
}

#[tokio::test]
async fn trailers_come_down_to_those_who_take_them() {
    let answer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n";
    let backend = Backend::http(|_| answer.to_vec()).await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
    assert_eq!(client.response().await.trailers, "x-t: 1\n");
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_arrives_whole() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end").await.unwrap();
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "to the end");
    }
}

#[tokio::test]
async fn no_body_where_there_is_none() {
    let backend = Backend::http(|request| match request.start.split(' ').nth(1) {
        Some("/204") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        Some("/304") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start_with(Default::default(), 1);
    let mut client = gateway.client().await;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!((head.status(), head.header("content-length")), (200, Some("5")));
        client.send("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!((head.status(), head.header("content-length")), (204, None));
        client.send("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 304);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn big_bodies_stream_both_ways() {
    let backend = Backend::http(|request| ok(&request.body)).await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    let body: Vec<u8> = (0..3 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..2 {
        assert!(client.post("/", &body).await.body == body);
    }
}

#[tokio::test]
async fn an_echo_that_answers_while_it_reads_gets_through() {
    // Both directions at once, each bigger than all buffers between.
    const SIZE: usize = 8 << 20;
    let backend = Backend::raw(|stream, _| async move {
        let (mut read, mut write) = stream.into_split();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read.read_u8().await.unwrap());
        }
        write
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let stream = gateway.client().await.io;
    let (mut read, mut write) = stream.into_split();
    let sending = async {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![5; 1 << 16];
        for _ in 0..SIZE >> 16 {
            write.write_all(&piece).await.unwrap();
        }
    };
    let receiving = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read.read_u8().await.unwrap());
        }
        let mut body = vec![0; SIZE];
        read.read_exact(&mut body).await.unwrap();
        assert!(body.iter().all(|byte| *byte == 5));
    };
    soon(async { tokio::join!(sending, receiving) }).await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_arrives() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
        // Waits for the proxy to give up on the rest.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbeginning").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (413, "big".into()));
}

#[tokio::test]
async fn a_client_that_expects_100_sends_when_the_backend_wants_it() {
    let (told, mut heads) = mpsc::channel(8);
    let backend = Backend::raw(move |mut stream, _| {
        let told = told.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            if head.starts_with("PUT /no ") {
                stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            } else {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                let mut body = [0; 5];
                stream.read_exact(&mut body).await.unwrap();
                stream.write_all(&ok(&body)).await.unwrap();
            }
            told.send(head).await.unwrap();
        }
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let head = "Host: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut client = gateway.client().await;
    client.send(format!("PUT /yes HTTP/1.1\r\n{head}")).await;
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
    assert!(heads.recv().await.unwrap().contains("\r\nexpect: 100-continue\r\n"));
    let mut client = gateway.client().await;
    client.send(format!("PUT /no HTTP/1.1\r\n{head}")).await;
    assert_eq!(client.response().await.status(), 403);
}

#[tokio::test]
async fn a_backend_that_never_says_100_gets_the_body_all_the_same() {
    let backend = Backend::http(|request| ok(&request.body)).await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let backend = Backend::named("a").await;
    let gateway = Setup::only(&[backend.address]).start();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("GET /\r\nHost: a\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n\r\n", 417),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 400),
    ] {
        let mut client = gateway.client().await;
        client.send(request).await;
        let response = client.response().await;
        assert_eq!(response.status(), status, "{request:?}");
        // Nothing that follows is a request any more.
        let goes_on = status == 405;
        assert_eq!(response.header("connection") != Some("close"), goes_on, "{request:?}");
        if !goes_on {
            assert!(client.rest().await.is_empty(), "{request:?}");
        }
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn heads_and_targets_have_bounds() {
    let backend = Backend::named("a").await;
    let gateway = Setup::only(&[backend.address]).start();
    let long = "a".repeat(17 * 1024);
    let fields = |count, value: &str| {
        let fields: String = (0..count).map(|n| format!("X-{n}: {value}\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (fields(150, "a"), 431),
        (fields(5, &long), 431),
        (fields(90, "a"), 200),
        (fields(3, &long), 200),
    ] {
        let mut client = gateway.client().await;
        client.send(request).await;
        assert_eq!(client.response().await.status(), status);
    }
}

#[tokio::test]
async fn our_own_answers_leave_the_connection_usable() {
    let backend = Backend::named("a").await;
    let mut setup = Setup::only(&[backend.address]);
    let status =
        |status| Redirect { scheme: Some(Scheme::Https), hostname: None, port: None, path: None, status };
    setup.route("broken", "/broken", Action::Fail(Failure::BackendNotFound));
    setup.route("redirect", "/old", Action::Redirect(Box::new(status(301))));
    setup.backend("none", BackendProtocol::Http1, &[]).route("none", "/none", to("none"));
    let gateway = setup.start();
    let mut client = gateway.client().await;
    for _ in 0..2 {
        assert_eq!(client.post("/broken", &[7; 5000]).await.status(), 500);
        assert_eq!(client.post("/none", &[7; 5000]).await.status(), 503);
        let moved = client.post("/old/x?y", &[7; 5000]).await;
        assert_eq!((moved.status(), moved.header("location")), (301, Some("https://example.com/old/x?y")));
        assert_eq!(client.get("/").await.text(), "a");
    }
    // Too long to be read for nothing: the answer comes, the connection goes.
    let mut client = gateway.client().await;
    let refused = client.post("/broken", &[7; 200_000]).await;
    assert_eq!((refused.status(), refused.header("connection")), (500, Some("close")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(client.rest().await.is_empty());
    // HEAD has no body, and says how long it would be.
    let mut client = gateway.client().await;
    client.send("HEAD /broken HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_ne!(client.head().await.header("content-length"), Some("0"));
    assert_eq!(client.get("/").await.text(), "a");
}

#[tokio::test]
async fn http_1_0_and_close_are_honoured() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(answer.ends_with("\r\n\r\nabc") && !answer.contains("chunked"), "{answer}");
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "abc");
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let (noting, mut noticed) = mpsc::channel(2);
    let backend = Backend::raw(move |mut stream, _| {
        let noting = noting.clone();
        async move {
            noting.send(stream.read(&mut [0; 1024]).await.unwrap()).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            noting.send(0).await.unwrap();
        }
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client: Client<_> = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // Not before the backend has the request: a client that left earlier takes it along unsent.
    assert!(soon(noticed.recv()).await.unwrap() > 0);
    drop(client);
    assert_eq!(soon(noticed.recv()).await, Some(0));
}
