//! Our HTTP/1.1 client: one connection, one exchange at a time, polled by the task that serves the client.
//!
//! No task, channel or box per request: [`Exchange`] sends the request and reads the head of the answer, [`Download`]
//! then reads the body while the rest of the request is still being sent. Reading is strict (security.md §3).
//! Must not know how a connection was picked, nor where it goes afterwards: [`Home`] takes it back.

mod download;
mod encode;
mod exchange;
mod head;
mod upload;

pub(crate) use download::{Body, CutShort, Download};
pub(crate) use encode::{Framing, Head as RequestHead};
pub(crate) use exchange::{Answer, Bounds, Exchange, Failure};

use super::health::Seat;
use super::identity::{Identity, is_same};
use crate::http1::Input;
use crate::timer::Timer;
use crate::transport::Transport;
use bytes::BytesMut;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection to an endpoint.
pub(crate) struct Connection {
    io: Transport,
    input: Input,
    timer: Timer,
    /// Whether an exchange was completed on it before: then the backend may close it at any moment.
    used: bool,
    /// When it went idle, by the clock of who keeps it.
    since: u32,
    terms: Option<Box<Terms>>,
}

// As many as endpoints, or more, are idle: with the head of its list one fits into 128 bytes.
const _: () = assert!(size_of::<Connection>() <= 112);

/// What most connections don't have.
#[derive(Default)]
pub(crate) struct Terms {
    /// Under which it was made; none: in clear text.
    identity: Option<Arc<Identity>>,
    /// Its place, where connections to the backend are bounded.
    seat: Option<Seat>,
}

/// Where a connection goes when its exchange is over.
pub(crate) trait Home {
    /// Takes back a connection that can carry another exchange.
    fn park(&mut self, connection: Connection);
}

impl Connection {
    /// Wraps what was opened under an identity, or under none.
    pub(crate) fn new(io: Transport, identity: Option<Arc<Identity>>, timer: Timer) -> Self {
        let terms = identity.map(|identity| Box::new(Terms { identity: Some(identity), seat: None }));
        Self { io, input: Input::new(BytesMut::new()), timer, used: false, since: 0, terms }
    }

    /// Has it keep a place until it ends.
    pub(crate) fn sit(&mut self, seat: Option<Seat>) {
        if seat.is_some() {
            self.terms.get_or_insert_default().seat = seat;
        }
    }

    /// Its place, where it has one.
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.terms.as_ref()?.seat.as_ref()
    }

    fn seat_mut(&mut self) -> Option<&mut Seat> {
        self.terms.as_mut()?.seat.as_mut()
    }

    /// Whether it was made under this identity.
    pub(crate) fn is_of(&self, identity: Option<&Arc<Identity>>) -> bool {
        is_same(self.terms.as_ref().and_then(|terms| terms.identity.as_ref()), identity)
    }

    /// Whether nothing was heard on it since it went idle: neither bytes, which nobody asked for, nor its end. Costs
    /// no system call while the runtime has seen nothing, and no buffer.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.input.bytes.is_empty()
            && match &mut self.io {
                // Readiness may be left over from a read that took the last byte: then the kernel knows.
                Transport::Clear(socket) => {
                    let heard = socket.try_io(Interest::READABLE, || peek(socket));
                    heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
                }
                // What TLS says to itself (session tickets, new keys) is taken here, and isn't the backend's.
                Transport::Tls(stream) => {
                    let mut cx = Context::from_waker(Waker::noop());
                    let mut byte = [0; 1];
                    Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
                }
            }
    }

    /// Whether the kernel has heard nothing either: for requests that can't be sent twice.
    pub(crate) fn is_quiet_now(&self) -> bool {
        peek(self.io.socket()).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// It goes idle: others may have its buffer.
    pub(crate) fn rest(&mut self, now: u32) {
        self.since = now;
        self.input.rest();
        if let Some(seat) = self.seat_mut() {
            seat.rest();
        }
    }

    /// When it went idle.
    pub(crate) fn since(&self) -> u32 {
        self.since
    }

    /// It is idle no more.
    pub(crate) fn resume(&mut self) {
        if let Some(seat) = self.seat_mut() {
            seat.resume();
        }
    }

    /// The transport, and what was read beyond the answer's head: for a protocol that isn't HTTP.
    /// Its place is its own as long as its terms are kept.
    pub(crate) fn into_parts(self) -> (Transport, BytesMut, Timer, Option<Box<Terms>>) {
        (self.io, self.input.bytes, self.timer, self.terms)
    }
}

/// Looks for a byte, or the end.
fn peek(socket: &TcpStream) -> io::Result<usize> {
    socket2::SockRef::from(socket).peek(&mut [MaybeUninit::uninit(); 1])
}
