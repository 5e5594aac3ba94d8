//! A WebSocket client (RFC 6455) that sends one small message at a time and wants it back, before it sends the next. Each
//! has a number, so that an echo of another doesn't pass.

use anyhow::{Context, Result, ensure};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of a message.
const MESSAGE: usize = 64;
/// The first two bytes of a frame with a whole text message of that length.
const HEAD: [u8; 2] = [0x81, MESSAGE as u8];
/// Says that a frame from a client is masked.
const MASKED: u8 = 0x80;
/// RFC 6455 wants it random, for caches that nobody has here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The key of RFC 6455, 1.3, and its answer.
const OPENING: &str = "GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Counts echoes.
pub async fn client(port: u16, until: Instant) -> Result<u64> {
    let mut stream = open(port).await?;
    let mut echoes: u64 = 0;
    while Instant::now() < until {
        let message = format!("{echoes:0MESSAGE$}");
        stream.write_all(&masked(message.as_bytes())).await?;
        let mut frame = [0; HEAD.len() + MESSAGE];
        stream.read_exact(&mut frame).await.context("no echo")?;
        let (head, payload) = frame.split_at(HEAD.len());
        ensure!(head == HEAD && payload == message.as_bytes(), "not an echo: {frame:?}");
        echoes += 1;
    }
    Ok(echoes)
}

fn masked(message: &[u8]) -> Vec<u8> {
    let [kind, length] = HEAD;
    let mut frame = vec![kind, length | MASKED];
    frame.extend(MASK);
    frame.extend(message.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

async fn open(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(OPENING.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut head).await? > 0, "closed at the upgrade");
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.starts_with("HTTP/1.1 101") && head.contains(ACCEPT), "not upgraded: {head}");
    Ok(stream)
}
