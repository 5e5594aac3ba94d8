//! The backends of WebSocket clients: they send back what they are sent. Anything but an upgrade is answered with 200
//! and 1 KiB, as by the other backends. The driver runs itself as `echo` for that, on CPU 1.

use crate::scenario::SMALL;
use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a key is hashed with (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a head, at most.
const HEAD: usize = 8192;
/// Bytes of a message, at most: longer lengths are written otherwise.
const MESSAGE: u8 = 125;

/// The command line.
#[derive(Args)]
pub struct Arguments {
    /// On 127.0.0.1; several.
    #[arg(long, required = true)]
    port: Vec<u16>,
}

/// Serves until it is killed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut backends = JoinSet::new();
        for port in &arguments.port {
            let listener = TcpListener::bind(("127.0.0.1", *port)).await?;
            backends.spawn(accept(listener));
        }
        while let Some(ended) = backends.join_next().await {
            ended??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(async move {
            // Connections end as proxies like; what is wrong with one is seen by its client.
            drop(serve(stream).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let Some(head) = read_head(&mut stream).await? else { return Ok(()) };
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        });
        let Some(key) = key else {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {SMALL}\r\n\r\n{}", "x".repeat(SMALL));
            stream.write_all(answer.as_bytes()).await?;
            continue;
        };
        let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        return echo(&mut stream).await;
    }
}

/// None: the proxy has closed the connection.
async fn read_head(stream: &mut BufReader<TcpStream>) -> Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < HEAD, "a head without an end");
        let Ok(byte) = stream.read_u8().await else { return Ok(None) };
        head.push(byte);
    }
    Ok(Some(String::from_utf8(head).context("a head in another character set")?))
}

async fn echo(stream: &mut BufReader<TcpStream>) -> Result<()> {
    loop {
        let mut head = [0; 6];
        stream.read_exact(&mut head).await?;
        let [kind, length, mask @ ..] = head;
        let length = length & 0x7f;
        if length > MESSAGE {
            bail!("a longer message than there are here");
        }
        let mut frame = vec![kind, length];
        frame.resize(2 + usize::from(length), 0);
        let payload = frame.get_mut(2..).unwrap_or_default();
        stream.read_exact(payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        stream.write_all(&frame).await?;
    }
}
