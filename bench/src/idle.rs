//! Clients that ask once and then keep their connections.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Opens so many, one after the other; each has had an answer.
pub fn connections(port: u16, count: u32) -> Result<Vec<TcpStream>> {
    (0..count).map(|n| connection(port).with_context(|| format!("connection {n}"))).collect()
}

fn connection(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n")?;
    let (mut buffer, mut answer) = ([0; 4096], Vec::new());
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "closed");
        answer.extend_from_slice(&buffer[..read]);
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + crate::scenario::SMALL) {
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "not answered 200");
            return Ok(stream);
        }
    }
}
