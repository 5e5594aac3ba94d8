//! The request on its way to an HTTP/1.1 backend: head, body frames as the client sends them, chunked or counted.
//!
//! Back-pressure: the next frame is asked of the client only when the last one is written. A head with a small body
//! goes out in one write. Must not know what comes back.

use super::chunked::may_trail;
use super::encode::{self, Framing};
use crate::body::{Broken, Inbound};
use crate::transport::Transport;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A body of at most so many bytes is awaited so that it leaves in one write with the head: it came, most likely, in
/// one packet with the client's head.
const GATHERED: u64 = 16 * 1024;

/// Why sending stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The backend's connection failed.
    #[error(transparent)]
    Backend(#[from] io::Error),
    /// The client broke off, or its body is malformed.
    #[error(transparent)]
    Client(Broken),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The body stays with the client until the backend says 100 (RFC 9110 §10.1.1).
    Expecting,
    /// Head and first frame leave together.
    Gathering,
    /// Frame by frame.
    Streaming,
    /// All is taken from the client; what is left is in the buffers.
    Flushing,
    Done,
}

/// A request being sent.
pub(super) struct Upload {
    state: State,
    body: Option<Inbound>,
    framing: Framing,
    /// Head, or a chunk's size line; then `chunk`; then `tail`.
    out: Vec<u8>,
    written: usize,
    chunk: Bytes,
    tail: &'static [u8],
    /// Whether any byte has left.
    begun: bool,
    /// Whether any frame was taken from the client: then the request can't be sent again.
    taken: bool,
    /// Whether anything moved since [`Upload::take_moved`].
    moved: bool,
}

impl Upload {
    /// A request to be sent. `out` is an empty buffer to reuse. A body that the client waits to be asked for is held
    /// back until [`Upload::go_on`].
    pub(super) fn new(head: &encode::Head<'_>, body: Option<Inbound>, mut out: Vec<u8>) -> Self {
        encode::write(head, &mut out);
        let state = match (&body, head.framing) {
            (None, _) | (_, Framing::None | Framing::Length(0)) => State::Flushing,
            (Some(_), _) if head.expecting => State::Expecting,
            (Some(_), Framing::Length(length)) if length <= GATHERED => State::Gathering,
            (Some(_), Framing::Length(_) | Framing::Chunked) => State::Streaming,
        };
        let framing = head.framing;
        Self {
            state,
            body,
            framing,
            out,
            written: 0,
            chunk: Bytes::new(),
            tail: b"",
            begun: false,
            taken: false,
            moved: false,
        }
    }

    /// Whether everything has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the body is held back.
    pub(super) fn is_expecting(&self) -> bool {
        self.state == State::Expecting
    }

    /// Whether the client has to move next: nothing waits to be written.
    pub(super) fn awaits_client(&self) -> bool {
        match self.state {
            State::Gathering => true,
            State::Streaming => {
                self.written == self.out.len() && self.chunk.is_empty() && self.tail.is_empty()
            }
            State::Expecting | State::Flushing | State::Done => false,
        }
    }

    /// Whether any byte has left.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether anything moved since this was asked last.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Sends the body that was held back.
    pub(super) fn go_on(&mut self) {
        if self.state == State::Expecting {
            self.state = State::Streaming;
        }
    }

    /// Gives back the body, if none of it was taken, and the buffer.
    pub(super) fn into_parts(self) -> (Option<Inbound>, bool, Vec<u8>) {
        (self.body, self.taken, self.out)
    }

    /// The buffer, for the next request on the connection.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        out
    }

    /// Sends as much as client and backend allow. Pending also while the body is held back.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Transport) -> Poll<Result<(), SendError>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Gathering => {
                    ready!(self.poll_frame(cx))?;
                    if self.state == State::Gathering {
                        self.state = State::Streaming;
                    }
                }
                State::Expecting | State::Streaming | State::Flushing => {
                    ready!(self.poll_flush(cx, io))?;
                    match self.state {
                        State::Flushing => {
                            self.state = State::Done;
                            self.body = None;
                        }
                        State::Streaming => ready!(self.poll_frame(cx))?,
                        State::Expecting => return Poll::Pending,
                        State::Gathering | State::Done => {}
                    }
                }
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(body) = &mut self.body else {
            self.end(None);
            return Poll::Ready(Ok(()));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        self.taken = true;
        self.moved = true;
        match frame.transpose().map_err(SendError::Client)? {
            None => self.end(None),
            Some(frame) => match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    self.push(data);
                    if last {
                        self.end(None);
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.end(Some(&trailers));
                    }
                }
            },
        }
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.framing == Framing::Chunked {
            let size = format_hex(data.len());
            self.out.extend_from_slice(size.trim_ascii_start());
            self.tail = b"\r\n";
        }
        self.chunk = data;
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.state = State::Flushing;
        if self.framing != Framing::Chunked {
            return;
        }
        match trailers {
            None if self.chunk.is_empty() => self.out.extend_from_slice(b"0\r\n\r\n"),
            None => self.tail = b"\r\n0\r\n\r\n",
            Some(trailers) => {
                self.out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name)) {
                    self.out.extend_from_slice(name.as_str().as_bytes());
                    self.out.extend_from_slice(b": ");
                    self.out.extend_from_slice(value.as_bytes());
                    self.out.extend_from_slice(b"\r\n");
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Transport) -> Poll<io::Result<()>> {
        loop {
            let out = &self.out[self.written..];
            if out.is_empty() && self.chunk.is_empty() && self.tail.is_empty() {
                self.out.clear();
                self.written = 0;
                // TLS keeps what the socket doesn't take at once.
                return Pin::new(&mut *io).poll_flush(cx);
            }
            let sent = if self.chunk.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, out))?
            } else {
                let parts = [IoSlice::new(out), IoSlice::new(&self.chunk), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts))?
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            self.moved = true;
            self.advance(sent);
        }
    }

    fn advance(&mut self, mut sent: usize) {
        let head = sent.min(self.out.len() - self.written);
        self.written += head;
        sent -= head;
        let body = sent.min(self.chunk.len());
        self.chunk.advance(body);
        self.tail = &self.tail[sent - body..];
    }
}

/// A chunk's size line, padded with spaces on the left.
fn format_hex(mut number: usize) -> [u8; 18] {
    let mut line = [b' '; 18];
    line[16..].copy_from_slice(b"\r\n");
    let mut at = 16;
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[number & 15];
        number >>= 4;
        if number == 0 {
            return line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bare_hex() {
        for (number, text) in
            [(0, "0\r\n"), (10, "a\r\n"), (0x1f40, "1f40\r\n"), (usize::MAX, "ffffffffffffffff\r\n")]
        {
            assert_eq!(format_hex(number).trim_ascii_start(), text.as_bytes());
        }
    }
}
