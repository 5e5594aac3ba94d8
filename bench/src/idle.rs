//! Clients that ask once and then keep their connections, in clear text and over TLS.

use crate::client::answer;
use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::{ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens so many, one after the other; each has had an answer.
pub fn connections(port: u16, count: u32) -> Result<Vec<TcpStream>> {
    let one = |n| {
        let mut stream = connect(port)?;
        ask(&mut stream).with_context(|| format!("connection {n}"))?;
        Ok(stream)
    };
    (0..count).map(one).collect()
}

/// The same over TLS 1.3, each with a full handshake.
pub fn over_tls(
    port: u16,
    count: u32,
    certificate: &Path,
) -> Result<Vec<StreamOwned<ClientConnection, TcpStream>>> {
    let mut tls = answer::tls(certificate)?;
    Arc::make_mut(&mut tls).resumption = Resumption::disabled();
    let one = |n| {
        let session = ClientConnection::new(tls.clone(), answer::server_name()?)?;
        let mut stream = StreamOwned::new(session, connect(port)?);
        ask(&mut stream).with_context(|| format!("connection {n}"))?;
        Ok(stream)
    };
    (0..count).map(one).collect()
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A request right after a handshake's last flight would wait for that to be acknowledged: 40 ms, 5,000 times.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(stream: &mut (impl Read + Write)) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n")?;
    let (mut buffer, mut said) = ([0; 4096], Vec::new());
    while !answer::is_whole(&said)? {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "closed");
        said.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}
