//! HTTP/2 to backends that speak it, in clear text (`appProtocol: kubernetes.io/h2c`) or in TLS: hyper's client, one
//! connection per thread, endpoint and identity while its streams suffice.
//!
//! The same bounds as in [`super::h1`] hold, per stream. A request is sent again only when nothing of it can have been
//! processed, or when it is safe to repeat.

use super::h1::{Bounds, CutShort, Failure};
use super::health::{Seat, Trailing};
use super::identity::{Identity, is_same};
use super::pool::Lease;
use crate::body::{Broken, Inbound};
use crate::timer::{Deadline, Timer};
use crate::transport::Transport;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Streams on one connection before another one is opened: the least that RFC 9113 §6.5.2 recommends to allow.
const MAX_STREAMS: u32 = 100;
/// Bytes that a backend may send ahead on one stream, and on the connection: two round trips of 1 ms at 1 Gbit/s.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a response head, as in HTTP/1.1 (security.md §8).
const MAX_HEAD: u32 = 64 * 1024;

/// Runs hyper's tasks on the thread that they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F: Future + 'static> Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A request body on its way to a backend, and how far it got.
pub(crate) struct Outgoing {
    body: Option<Inbound>,
    progress: Rc<Progress>,
}

#[derive(Default)]
struct Progress {
    frames: Cell<u64>,
    done: Cell<bool>,
    /// Why the client's part ended; hyper's client only says that the stream was reset.
    broken: RefCell<Option<Broken>>,
}

impl Outgoing {
    fn new(body: Option<Inbound>) -> Self {
        let progress = Rc::new(Progress::default());
        progress.done.set(body.is_none());
        Self { body, progress }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.progress.done.set(true);
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        this.progress.frames.set(this.progress.frames.get() + 1);
        this.progress.done.set(frame.is_none());
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|broken| {
                *this.progress.broken.borrow_mut() = Some(broken);
                io::ErrorKind::InvalidData.into()
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A connection that many requests share.
pub(crate) struct Connection {
    sender: SendRequest<Outgoing>,
    streams: Rc<Cell<u32>>,
    /// Under which it was made; none: in clear text.
    identity: Option<Arc<Identity>>,
    /// Sweeps of the pool since a stream was open on it.
    idle_sweeps: u32,
    /// Its place, where connections to the backend are bounded.
    seat: Option<Rc<Seat>>,
}

impl Connection {
    /// Whether it is to be kept; called by each sweep of the pool.
    pub(crate) fn survives_sweep(&mut self, most: u32) -> bool {
        self.idle_sweeps = if self.streams.get() == 0 { self.idle_sweeps + 1 } else { 0 };
        self.idle_sweeps < most && !self.sender.is_closed()
    }

    /// Its place, where it has one.
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.as_deref()
    }

    /// Its place, where it has one and nothing is under way on it.
    pub(crate) fn idle_seat(&self) -> Option<&Seat> {
        self.seat.as_deref().filter(|_| self.streams.get() == 0)
    }

    fn has_room(&self) -> bool {
        self.sender.is_ready() && self.streams.get() < MAX_STREAMS
    }
}

/// A place for one stream on a connection.
pub(crate) struct Stream {
    sender: SendRequest<Outgoing>,
    streams: Rc<Cell<u32>>,
    used: bool,
    _seat: Option<Rc<Seat>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
    }
}

/// A place on a connection that is already there, and was made under this identity.
pub(crate) fn shared(lease: &Lease, identity: Option<&Arc<Identity>>) -> Option<Stream> {
    lease.multiplexed(|connections| {
        connections.retain(|connection| !connection.sender.is_closed());
        let fits = |connection: &&Connection| {
            is_same(connection.identity.as_ref(), identity) && connection.has_room()
        };
        let connection = connections.iter().find(fits)?;
        Some(open(connection, true))
    })
}

/// Makes what was opened under an identity, or none, a connection for this request and others.
pub(crate) async fn handshake(
    lease: &Lease,
    io: Transport,
    identity: Option<Arc<Identity>>,
    seat: Option<Seat>,
) -> io::Result<Stream> {
    let (sender, connection) = Builder::new(Local)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .handshake(TokioIo::new(io))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to a backend ended");
        }
    });
    let connection =
        Connection { sender, streams: Rc::default(), identity, idle_sweeps: 0, seat: seat.map(Rc::new) };
    let stream = open(&connection, false);
    lease.multiplexed(|connections| connections.push(connection));
    Ok(stream)
}

fn open(connection: &Connection, used: bool) -> Stream {
    connection.streams.set(connection.streams.get() + 1);
    Stream {
        sender: connection.sender.clone(),
        streams: connection.streams.clone(),
        used,
        _seat: connection.seat.clone(),
    }
}

/// Why a stream has no answer.
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    /// The body, when the request never left.
    pub(crate) unsent: Option<Option<Inbound>>,
    /// Whether the connection had carried requests before.
    pub(crate) used: bool,
}

/// The head of an answer and its body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Download,
}

/// Sends a request on a stream and waits for the answer's head.
pub(crate) async fn exchange(
    mut stream: Stream,
    request: Request<()>,
    body: Option<Inbound>,
    bounds: Bounds,
    timer: Timer,
    lease: Lease,
) -> Result<Answer, Failed> {
    let body = Outgoing::new(body);
    let progress = body.progress.clone();
    let used = stream.used;
    let answer = stream.sender.try_send_request(request.map(|()| body));
    let mut answer = std::pin::pin!(answer);
    let mut silence = Silence { timer: &timer, bounds, progress: &progress, frames: 0, deadline: None };
    let outcome = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
        Poll::Pending => silence.poll(cx).map(Err),
    })
    .await;
    match outcome {
        Ok(Ok(response)) => {
            let (parts, incoming) = response.into_parts();
            let body = Download {
                incoming,
                timer,
                bounds,
                silent: None,
                watches: Vec::new(),
                _stream: stream,
                _lease: lease,
            };
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        }
        Ok(Err(mut failed)) => {
            let unsent = failed.take_message().map(|request| request.into_body().body.take());
            let error = failed.into_error();
            let failure = match progress.broken.take() {
                Some(broken) => Failure::Client(broken),
                None => Failure::Closed(io::Error::other(error)),
            };
            Err(Failed { failure, unsent, used })
        }
        Err(failure) => Err(Failed { failure, unsent: None, used }),
    }
}

/// Watches an exchange whose answer hasn't begun.
struct Silence<'a> {
    timer: &'a Timer,
    bounds: Bounds,
    progress: &'a Progress,
    frames: u64,
    deadline: Option<(bool, Deadline)>,
}

impl Silence<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Bounds { request, attempt, head, body, .. } = self.bounds;
        loop {
            let sent = self.progress.done.get();
            let deadline = match self.deadline {
                Some((then, deadline)) if then == sent => deadline,
                Some(_) | None => self.timer.wheel().after(if sent { head } else { body }),
            };
            self.deadline = Some((sent, deadline));
            let first = deadline.min(request).min(attempt);
            ready!(self.timer.poll_at(cx, first));
            // hyper's task sends the body: whether it moved shows only here.
            let frames = self.progress.frames.get();
            if first == deadline && !sent && frames != self.frames {
                (self.frames, self.deadline) = (frames, None);
                continue;
            }
            return Poll::Ready(match first {
                _ if first == request => Failure::RequestTimeout,
                _ if first == attempt || sent => Failure::Timeout,
                _ => Failure::ClientStalled,
            });
        }
    }
}

/// The body of an answer.
pub(crate) struct Download {
    incoming: Incoming,
    timer: Timer,
    bounds: Bounds,
    silent: Option<Deadline>,
    /// Breakers that wait for the trailers.
    watches: Vec<Trailing>,
    _stream: Stream,
    _lease: Lease,
}

impl Download {
    /// Has the trailers tell a breaker what came of the request.
    pub(crate) fn watch(&mut self, watch: Trailing) {
        self.watches.push(watch);
    }

    /// Tells the breakers that wait, if this is the end.
    fn tell(&mut self, frame: Option<&Result<Frame<Bytes>, CutShort>>) {
        let trailers = match frame {
            Some(Ok(frame)) if frame.is_data() => return,
            Some(Ok(frame)) => frame.trailers_ref(),
            Some(Err(_)) | None => None,
        };
        for watch in self.watches.drain(..) {
            watch.trailers(trailers);
        }
    }

    /// Whether the whole body was taken.
    pub(crate) fn is_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// What is left, if the head said so.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The next piece.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.silent = None;
            let frame = frame.map(|frame| frame.map_err(CutShort::Http2));
            if !self.watches.is_empty() {
                self.tell(frame.as_ref());
            }
            return Poll::Ready(frame);
        }
        let timer = &self.timer;
        let silent = *self.silent.get_or_insert_with(|| timer.wheel().after(self.bounds.stream));
        ready!(timer.poll_at(cx, silent.min(self.bounds.request).min(self.bounds.attempt)));
        Poll::Ready(Some(Err(CutShort::Timeout)))
    }
}
