//! A client that resumes its session with each connection (RFC 8446, 2.2) and asks once on it.

use super::answer;
use anyhow::{Context, Result, ensure};
use rustls::{ClientConfig, HandshakeKind};
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n";

/// Counts answers. The first handshake is a full one: it is not counted, and one in hundreds doesn't show.
pub async fn client(port: u16, tls: Arc<ClientConfig>, until: Instant) -> Result<u64> {
    let connector = TlsConnector::from(tls);
    ask(port, &connector).await?;
    let mut requests = 0;
    while Instant::now() < until {
        let kind = ask(port, &connector).await?;
        ensure!(kind == Some(HandshakeKind::Resumed), "a session was not resumed");
        requests += 1;
    }
    Ok(requests)
}

async fn ask(port: u16, connector: &TlsConnector) -> Result<Option<HandshakeKind>> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let mut stream = connector.connect(answer::server_name()?, socket).await.context("handshake")?;
    stream.write_all(REQUEST).await?;
    let mut said = Vec::with_capacity(2048);
    loop {
        match stream.read_buf(&mut said).await {
            Ok(0) => break,
            Ok(_) => {
                answer::is_whole(&said)?;
            }
            // Not everybody says goodbye; that the answer is whole is seen by its length.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(answer::is_whole(&said)?, "closed before the end of the answer");
    Ok(stream.get_ref().1.handshake_kind())
}
