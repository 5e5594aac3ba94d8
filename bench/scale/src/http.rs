//! HTTP/1.1 as far as a client needs it here: one request at a time on a connection that is kept. Blocking, with a thread for
//! each connection, so that nothing but the peer stands between a request and the time of its answer.

use anyhow::{Context, Result, bail, ensure};
use httparse::Status;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a peer may take: more than the API server of a busy machine does.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a head, at most.
const HEAD: usize = 16 * 1024;
/// Header fields, at most.
const FIELDS: usize = 32;

/// A kept connection.
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether the peer closes the connection after it.
    pub closes: bool,
}

/// What comes before a body.
#[derive(Debug, PartialEq)]
pub struct Head {
    /// The answer's status.
    pub status: u16,
    closes: bool,
    length: Length,
}

#[derive(Debug, PartialEq)]
enum Length {
    Known(usize),
    Chunked,
}

/// A TCP connection on loopback.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl<S: Read + Write> Connection<S> {
    /// Over a stream that nothing was sent on.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a request, head and body.
    pub fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).context("send a request")?;
        self.stream.flush().context("send a request")
    }

    /// Waits for the whole answer.
    pub fn receive(&mut self) -> Result<Answer> {
        let Head { status, closes, length } = self.head()?;
        let body = match length {
            Length::Known(length) => self.take(length)?,
            Length::Chunked => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk()? {
                    body.extend(chunk);
                }
                body
            }
        };
        Ok(Answer { status, body, closes })
    }

    /// Waits for the head of an answer.
    pub fn head(&mut self) -> Result<Head> {
        loop {
            if let Some((head, used)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(head);
            }
            ensure!(self.buffer.len() < HEAD, "a head without an end");
            self.fill()?;
        }
    }

    /// Waits for the next chunk of a body that comes in chunks; none after the last.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let size = loop {
            match httparse::parse_chunk_size(&self.buffer) {
                Ok(Status::Complete((used, size))) => {
                    self.buffer.drain(..used);
                    break size;
                }
                Ok(Status::Partial) => self.fill()?,
                Err(_) => bail!("not the size of a chunk"),
            }
        };
        let chunk = self.take(usize::try_from(size)?)?;
        // Neither the API server nor a proxy has trailers for us.
        ensure!(self.take(2)? == b"\r\n", "a chunk without an end");
        Ok((size > 0).then_some(chunk))
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn fill(&mut self) -> Result<()> {
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece).context("wait for an answer")?;
        ensure!(count > 0, "the connection was closed");
        self.buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
        Ok(())
    }
}

/// A head and its bytes, once all of it is there.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let Status::Complete(used) = response.parse(bytes).context("read the head of an answer")? else {
        return Ok(None);
    };
    let status = response.code.context("an answer without a status")?;
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| String::from_utf8_lossy(field.value).trim().to_ascii_lowercase())
    };
    let length = match (field("transfer-encoding"), field("content-length")) {
        (Some(coding), None) if coding == "chunked" => Length::Chunked,
        (None, Some(length)) => Length::Known(length.parse().context("content-length")?),
        (None, None) if status == 204 || status == 304 => Length::Known(0),
        (coding, length) => bail!("can't tell where the body ends: {coding:?}, {length:?}"),
    };
    let closes = field("connection").is_some_and(|options| options.contains("close"));
    Ok(Some((Head { status, closes, length }, used)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn connection(bytes: &str) -> Connection<Cursor<Vec<u8>>> {
        Connection::new(Cursor::new(bytes.as_bytes().to_vec()))
    }

    #[test]
    fn bodies_end_where_they_say() {
        let mut connection = connection(
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none\
             HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\ntw\r\n1\r\no\r\n0\r\n\r\n",
        );
        let first = connection.receive().unwrap();
        assert_eq!((first.status, &*first.body, first.closes), (200, &b"one"[..], false));
        let second = connection.receive().unwrap();
        assert_eq!((second.status, &*second.body, second.closes), (404, &b"two"[..], true));
        assert!(connection.receive().is_err(), "nothing is left");
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        assert!(connection("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\none").receive().is_err());
        assert!(
            connection("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ntw\r\n").receive().is_err()
        );
        assert!(connection("HTTP/1.1 200 OK\r\n\r\n").receive().is_err(), "neither length nor chunks");
    }
}
