//! Our HTTP/1.1 client: one connection, one exchange at a time, polled by the task that serves the client.
//!
//! No task, channel or box per request: [`Exchange`] sends the request and reads the head of the answer, [`Download`]
//! then reads the body while the rest of the request is still being sent. Reading is strict (security.md §3).
//! Must not know how a connection was picked, nor where it goes afterwards: [`Home`] takes it back.

mod chunked;
mod download;
mod encode;
mod exchange;
mod head;
mod upload;

pub(crate) use download::{Body, CutShort, Download};
pub(crate) use encode::{Framing, Head as RequestHead};
pub(crate) use exchange::{Answer, Bounds, Exchange, Failure};

use crate::timer::Timer;
use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a read asks for at first: heads and small bodies fit.
const SMALL_READ: usize = 16 * 1024;
/// What a read asks for while a big body streams: four times fewer system calls.
const BIG_READ: usize = 64 * 1024;
/// With less room than this in the buffer, a new one is taken.
const LEAST_READ: usize = 4 * 1024;
/// A buffer for heads that grew beyond this is given up rather than kept with an idle connection.
const KEPT_BUFFER: usize = 4 * 1024;

/// A connection to an endpoint.
pub(crate) struct Connection {
    io: TcpStream,
    /// Bytes read and not yet consumed.
    read: BytesMut,
    /// How much the next read asks for.
    read_size: usize,
    /// Empty between exchanges.
    out: Vec<u8>,
    timer: Timer,
    /// Whether an exchange was completed on it before: then the backend may close it at any moment.
    used: bool,
}

/// Where a connection goes when its exchange is over.
pub(crate) trait Home {
    /// Takes back a connection that can carry another exchange.
    fn park(&mut self, connection: Connection);
}

impl Connection {
    /// Wraps a connected socket.
    pub(crate) fn new(io: TcpStream, timer: Timer) -> Self {
        Self { io, read: BytesMut::new(), read_size: SMALL_READ, out: Vec::new(), timer, used: false }
    }

    /// Whether nothing was heard on it since it went idle: neither bytes, which nobody asked for, nor its end. Costs
    /// no system call while the runtime has seen nothing, and no buffer.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // Readiness may be left over from a read that took the last byte: then the kernel knows.
        self.read.is_empty() && (self.io.poll_read_ready(&mut cx).is_pending() || self.is_quiet_now())
    }

    /// [`Connection::is_quiet`], asking the kernel: for requests that can't be sent twice.
    pub(crate) fn is_quiet_now(&self) -> bool {
        let mut byte = [MaybeUninit::uninit(); 1];
        let peeked = socket2::SockRef::from(&self.io).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Gives the buffer it reads into to whoever keeps spare ones, and takes none with it.
    pub(crate) fn take_read_buffer(&mut self) -> BytesMut {
        self.read_size = SMALL_READ;
        std::mem::take(&mut self.read)
    }

    /// Reads into a spare buffer from now on.
    pub(crate) fn set_read_buffer(&mut self, buffer: BytesMut) {
        self.read = buffer;
    }

    /// The socket, and what was read beyond the answer's head: for a protocol that isn't HTTP.
    pub(crate) fn into_parts(self) -> (TcpStream, BytesMut, Timer) {
        (self.io, self.read, self.timer)
    }

    /// Reads once; 0 is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < LEAST_READ {
            self.read.reserve(self.read_size);
        }
        let room = self.read.capacity() - self.read.len();
        let read = pin!(self.io.read_buf(&mut self.read)).poll(cx);
        if let Poll::Ready(Ok(count)) = read
            && count == room
        {
            self.read_size = BIG_READ;
        }
        read
    }
}
