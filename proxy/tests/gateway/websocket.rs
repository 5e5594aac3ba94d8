//! Upgrades: a WebSocket goes through, anything else stays HTTP.

use crate::harness::{Backend, Setup, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Switches protocols, says hello in the same packet, then echoes.
pub async fn websocket() -> Backend {
    Backend::raw(|mut stream, _| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: websocket\r\n"),
            "{head}"
        );
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn bytes_go_both_ways_after_the_101() {
    let backend = websocket().await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    // The client is in a hurry: its first bytes wait for the 101.
    client.send([HANDSHAKE.as_bytes(), b"early"].concat()).await;
    let head = client.head().await;
    assert_eq!(head.status(), 101);
    assert_eq!((head.header("connection"), head.header("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let mut seen = std::mem::take(&mut client.read);
    let mut io = client.io;
    while seen.len() < 10 {
        soon(io.read_buf(&mut seen)).await.unwrap();
    }
    assert_eq!(seen, b"helloearly");
    let big = vec![9; 1 << 20];
    let (mut read, mut write) = io.split();
    let mut back = vec![0; big.len()];
    let (sent, received) =
        soon(async { tokio::join!(write.write_all(&big), read.read_exact(&mut back)) }).await;
    sent.unwrap();
    received.unwrap();
    assert!(back == big);
    // The client's end is passed on, the echo ends, and so does the connection.
    write.shutdown().await.unwrap();
    assert_eq!(soon(read.read(&mut back)).await.unwrap(), 0);
}

#[tokio::test]
async fn another_answer_leaves_plain_http() {
    let backend = Backend::http(|request| match request.start.split(' ').nth(1) {
        Some("/chat") => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec(),
        _ => crate::harness::ok(b"plain"),
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client.send(HANDSHAKE).await;
    let refused = client.response().await;
    assert_eq!((refused.status(), refused.text()), (403, "no".into()));
    assert_eq!(client.get("/").await.text(), "plain");
}

#[tokio::test]
async fn what_is_no_websocket_handshake_is_not_upgraded() {
    let backend = Backend::echo().await;
    let gateway = Setup::only(&[backend.address]).start();
    // h2c: ignored, as RFC 9110 §7.8 lets us.
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n").await;
    let seen = client.response().await;
    assert_eq!(seen.status(), 200);
    assert!(!seen.text().contains("upgrade") && !seen.text().contains("http2"), "{}", seen.text());
    for broken in [
        HANDSHAKE.replace("GET", "POST"),
        HANDSHAKE.replace("13\r\n", "12\r\n"),
        HANDSHAKE.replace("websocket", "websocket, h2c"),
        HANDSHAKE.replace("nonce", "").replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        HANDSHAKE.replace("Host: a\r\n", "Host: a\r\nContent-Length: 4\r\n"),
    ] {
        let mut client = gateway.client().await;
        client.send(&broken).await;
        assert_eq!(client.response().await.status(), 400, "{broken}");
    }
}
