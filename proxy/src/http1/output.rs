//! What is to be written to a connection: a head, or a chunk's size line; then a piece of a body; then what ends it. Head and
//! first piece leave in one write.

use super::chunked::may_trail;
use super::spare;
use crate::transport::Transport;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Pieces of a body of at most so many bytes are joined to the head that they follow.
const SMALL: usize = 2 * 1024;

/// The writing side of a connection.
#[derive(Default)]
pub(crate) struct Output {
    head: Vec<u8>,
    /// Bytes of the head that have left.
    written: usize,
    /// Whether a piece of a body is behind the head.
    joined: bool,
    chunk: Bytes,
    tail: &'static [u8],
    /// Whether anything has left.
    begun: bool,
    /// Whether anything has left since [`Output::take_moved`].
    moved: bool,
}

impl Output {
    /// With room for a head, from whoever needed it before.
    pub(crate) fn with_room() -> Self {
        Self { head: spare::out_buffer(), ..Self::default() }
    }

    /// Where a head is written.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        if self.head.capacity() == 0 {
            self.head = spare::out_buffer();
        }
        &mut self.head
    }

    /// Whether nothing waits to leave.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.head.len() && self.chunk.is_empty() && self.tail.is_empty()
    }

    /// Whether a piece of a body waits to leave.
    pub(crate) fn holds_body(&self) -> bool {
        self.joined || !self.chunk.is_empty() || !self.tail.is_empty()
    }

    /// Whether any byte has left.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether anything has left since this was asked last.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Adds a piece of a body, as a chunk or as it is. The one before must have left.
    pub(crate) fn push(&mut self, data: Bytes, chunked: bool) {
        if data.is_empty() {
            return;
        }
        if chunked {
            let size = format_hex(data.len());
            self.head().extend_from_slice(size.trim_ascii_start());
            self.tail = b"\r\n";
        }
        // One piece costs the kernel less than two, and little is copied sooner than described.
        if data.len() <= SMALL && !self.head.is_empty() {
            self.head.extend_from_slice(&data);
            self.head.extend_from_slice(std::mem::take(&mut self.tail));
            self.joined = true;
            return;
        }
        self.chunk = data;
    }

    /// Ends a body of chunks.
    pub(crate) fn end_chunks(&mut self, trailers: Option<&HeaderMap>) {
        match trailers {
            None if self.chunk.is_empty() => self.head().extend_from_slice(b"0\r\n\r\n"),
            None => self.tail = b"\r\n0\r\n\r\n",
            Some(trailers) => {
                let head = self.head();
                head.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name)) {
                    write_field(head, name.as_str(), value.as_bytes());
                }
                head.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Writes until nothing is left.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Transport) -> Poll<io::Result<()>> {
        loop {
            let head = &self.head[self.written..];
            if head.is_empty() && self.chunk.is_empty() && self.tail.is_empty() {
                self.head.clear();
                self.written = 0;
                self.joined = false;
                // TLS keeps what the socket doesn't take at once.
                return Pin::new(&mut *io).poll_flush(cx);
            }
            let sent = if self.chunk.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, head))?
            } else {
                let parts = [IoSlice::new(head), IoSlice::new(&self.chunk), IoSlice::new(self.tail)];
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
        let head = sent.min(self.head.len() - self.written);
        self.written += head;
        sent -= head;
        let body = sent.min(self.chunk.len());
        if body == self.chunk.len() {
            // What is empty may still hold its buffer.
            self.chunk = Bytes::new();
        } else {
            self.chunk.advance(body);
        }
        self.tail = &self.tail[sent - body..];
    }

    /// Gives its room to whoever writes next, if nothing is in it.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            self.written = 0;
            spare::keep_out_buffer(std::mem::take(&mut self.head));
        }
    }
}

/// Writes one field line.
pub(crate) fn write_field(out: &mut Vec<u8>, name: impl AsRef<[u8]>, value: &[u8]) {
    out.extend_from_slice(name.as_ref());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
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
