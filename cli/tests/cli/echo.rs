//! `headgate echo` as a process: what it answers over HTTP/1.1 and HTTP/2, over a WebSocket, and how it ends.

use crate::process::Process;
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn start() -> (Process, String) {
    let mut echo = Process::start(["echo", "--port", "0", "--address", "127.0.0.1", "--name", "blue"]);
    let line = echo.line_with("serves on http://");
    let address = line.trim().rsplit("http://").next().expect("rsplit gives one").to_owned();
    (echo, address)
}

#[tokio::test]
async fn http1_answers_tell_what_was_received() -> Result<()> {
    let (_echo, address) = start();
    let io = TokioIo::new(TcpStream::connect(&address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post("/some/status/418?q=1")
        .header(header::HOST, "example.com")
        .header("X-Twice", "a")
        .header("X-Twice", "b")
        .body(Full::new(Bytes::from("hello")))?;
    let response = sender.send_request(request).await?;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    let answer: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    assert_eq!(answer["name"], "blue");
    assert_eq!(answer["protocol"], "HTTP/1.1");
    assert_eq!(answer["method"], "POST");
    assert_eq!(answer["host"], "example.com");
    assert_eq!(answer["path"], "/some/status/418");
    assert_eq!(answer["query"], "q=1");
    assert_eq!(answer["headers"]["x-twice"], serde_json::json!(["a", "b"]));
    assert_eq!(answer["body"], "hello");
    drop(sender);
    connection.await??;
    Ok(())
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_on_the_same_port() -> Result<()> {
    let (_echo, address) = start();
    let io = TokioIo::new(TcpStream::connect(&address).await?);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    let request = Request::get("http://example.com/a").body(Full::new(Bytes::new()))?;
    let response = sender.send_request(request).await?;
    let answer: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    assert_eq!(answer["protocol"], "HTTP/2");
    assert_eq!(answer["host"], "example.com");
    Ok(())
}

#[tokio::test]
async fn websocket_frames_come_back() -> Result<()> {
    let (_echo, address) = start();
    let mut stream = TcpStream::connect(&address).await?;
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.context("the head ends")?);
    }
    let head = String::from_utf8(head)?.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // "hi", masked with zeros.
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await?;
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).await?;
    assert_eq!(&frame, b"\x81\x02hi");
    Ok(())
}

#[tokio::test]
async fn a_signal_ends_it_after_the_request_in_flight() -> Result<()> {
    let (echo, address) = start();
    let mut stream = TcpStream::connect(&address).await?;
    // The request is in flight once its body is asked for: nothing of the answer can be there before the body is.
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await?;
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await?;
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    echo.signal("TERM");
    stream.write_all(b"ok").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (status, _) = echo.ended();
    assert_eq!(status.code(), Some(0));
    Ok(())
}

#[test]
fn a_taken_port_is_an_error_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let mut second = Process::start(["echo", "--address", "127.0.0.1", "--port", &port]);
    let line = second.line_with("listen on");
    assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
    assert_eq!(second.ended().0.code(), Some(1));
}
