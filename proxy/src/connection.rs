//! One client connection: handshake, then hyper's server for HTTP/1.1 or HTTP/2, then perhaps a WebSocket; one task.
//!
//! hyper speaks the protocol; this file keeps the time: for a head to arrive, for the next request, for a client that
//! takes nothing any more. All of it is one [`Timer`], looked at only when the connection has nothing to do. Requests are
//! served by [`crate::request`], which learns from [`Client`] whom it serves.

use crate::auth::ClientCertificate;
use crate::body::Outbound;
use crate::clients::{Clients, Seat, Sender};
use crate::drain::Stay;
use crate::finish::Finish;
use crate::handshake::{self, Greeted, Ready, Tls, Version};
use crate::headers::{self, Forwarding};
use crate::limits::{self, Limits};
use crate::model::{ClientPath, EscapedSlashes, PortProtocol, Scheme};
use crate::rejection::{Malformed, Rejection};
use crate::request;
use crate::router::PortTable;
use crate::runtime::Thread;
use crate::stream::{self, Onward};
use crate::timer::{Deadline, Timer};
use crate::transport::Transport;
use crate::upstream::h2::Local;
use crate::upstream::pool::Lease;
use crate::upstream::{h1, upgrade};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, Ref, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// After an answer to a request whose body we don't read, the client may still be sending: closing at once would reset
/// the connection, and the answer with it. So much is read and thrown away, for so long.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a buffer at least: hyper has none that is smaller.
const LEAST_BUFFER: usize = 8 * 1024;
/// The answer to a head that doesn't arrive in time; hyper has no request that it could answer.
const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What requests share with their connection.
pub(crate) struct Client {
    pub(crate) thread: Rc<Thread>,
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
    pub(crate) version: Version,
    pub(crate) tls: Option<Tls>,
    pub(crate) forwarding: Rc<Forwarding>,
    stay: Stay,
    /// What holds for its port instead of what is usual.
    own: Option<Box<Own>>,
    /// The table of the port, and the generation it was read under. None: the port is gone.
    table: RefCell<(u64, Option<Arc<PortTable>>)>,
    /// Requests being served.
    exchanges: Cell<u32>,
    /// Requests that the client gave up before their answers.
    given_up: Cell<u32>,
    /// Whether bytes of a head were read while nothing was served.
    head_begun: Cell<bool>,
    /// Whether the client takes nothing of what we have for it.
    blocked: Cell<bool>,
    /// Whether bytes moved since the timer looked.
    moved: Cell<bool>,
    /// Whether a request's body was left where it was.
    unread: Cell<bool>,
    switched: RefCell<Option<Switched>>,
}

/// What a ClientPolicy has for a connection, as it was when that began.
struct Own {
    clients: Arc<Clients>,
    limits: Limits,
    /// When it is old.
    old: Deadline,
}

/// A connection that changes its protocol.
pub(crate) struct Switched {
    pub(crate) backend: Box<h1::Connection>,
    pub(crate) lease: Lease,
    pub(crate) finish: Finish,
}

impl Client {
    fn new(
        thread: Rc<Thread>,
        peer: SocketAddr,
        table: Arc<PortTable>,
        stay: Stay,
        ready: (Version, Option<Tls>),
    ) -> Self {
        let (version, tls) = ready;
        let scheme = match table.protocol() {
            PortProtocol::Tls => Scheme::Https,
            PortProtocol::Http | PortProtocol::Tcp | PortProtocol::Udp => Scheme::Http,
        };
        let forwarding = Rc::new(Forwarding::new(peer.ip(), scheme, table.id().port));
        let own = table.clients().map(|clients| {
            let limits = clients.bounds(&thread.limits);
            let old = limits.age.map_or(Deadline::NEVER, |age| thread.wheel.after(age));
            Box::new(Own { clients: clients.clone(), limits, old })
        });
        // Not the generation of `table`, which may be older: the first request looks for itself.
        let table = RefCell::new((0, Some(table)));
        Self {
            thread,
            peer,
            scheme,
            version,
            tls,
            forwarding,
            stay,
            own,
            table,
            exchanges: Cell::new(0),
            given_up: Cell::new(0),
            head_begun: Cell::new(true),
            blocked: Cell::new(false),
            moved: Cell::new(false),
            unread: Cell::new(false),
            switched: RefCell::new(None),
        }
    }

    /// The port's table in force. Not to be held across an await.
    pub(crate) fn table(&self) -> Ref<'_, Option<Arc<PortTable>>> {
        let generation = self.thread.generation();
        let stale = self.table.borrow().0 != generation;
        if stale {
            let mut table = self.table.borrow_mut();
            let current = table.1.as_ref().and_then(|table| self.thread.table(table.id()));
            // A port that is gone never comes back to this connection: it was told to end.
            *table = (generation, current);
        }
        Ref::map(self.table.borrow(), |(_, table)| table)
    }

    /// The client's certificate, if the listener validated it.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.certificate.as_deref()
    }

    /// The port that clients connect to, as the Gateway names it.
    pub(crate) fn gateway_port(&self) -> u16 {
        self.stay.guest().port().port
    }

    /// The bounds that hold for it.
    pub(crate) fn limits(&self) -> &Limits {
        self.own.as_ref().map_or(&self.thread.limits, |own| &own.limits)
    }

    /// What becomes of its fields.
    pub(crate) fn headers(&self) -> &headers::Rules {
        self.own.as_ref().map_or(&headers::USUAL, |own| own.clients.headers())
    }

    /// What becomes of its paths.
    pub(crate) fn path(&self) -> &ClientPath {
        const USUAL: &ClientPath = &ClientPath {
            escaped_slashes: EscapedSlashes::Keep,
            reject_dot_segments: false,
            merge_slashes: false,
        };
        self.own.as_ref().map_or(USUAL, |own| own.clients.path())
    }

    /// Who has sent a request with these fields. None: who is connected.
    pub(crate) fn sender(&self, headers: &HeaderMap) -> Option<Box<Sender>> {
        let own = self.own.as_ref()?;
        own.clients.sender(headers, (self.peer, self.scheme, self.gateway_port()))
    }

    /// Whether the client gives up more requests than it may: each costs us and a backend, and it nothing (CVE-2023-44487).
    fn floods(&self) -> bool {
        self.given_up.get() > self.limits().resets
    }

    /// Whether the connection should end with the next answer.
    pub(crate) fn is_unwanted(&self) -> bool {
        let is_old =
            |own: &Own| own.old != Deadline::NEVER && own.old <= self.thread.wheel.after(Duration::ZERO);
        self.thread.unready.get() || self.own.as_deref().is_some_and(is_old)
    }

    /// A request begins.
    pub(crate) fn enter(&self) {
        self.exchanges.set(self.exchanges.get() + 1);
        self.head_begun.set(false);
    }

    /// A request is over; `given_up`: its client didn't wait for the answer.
    pub(crate) fn leave(&self, given_up: bool) {
        self.given_up.set(self.given_up.get().saturating_add(given_up.into()));
        self.exchanges.set(self.exchanges.get() - 1);
    }

    /// A body was dropped before its end.
    pub(crate) fn left_unread(&self) {
        self.unread.set(true);
    }

    /// Whether a body was dropped before its end: the connection can't be kept.
    pub(crate) fn has_left_unread(&self) -> bool {
        self.unread.get()
    }

    /// The connection is to change its protocol once the 101 is written.
    pub(crate) fn switch(&self, switched: Switched) {
        *self.switched.borrow_mut() = Some(switched);
    }

    fn phase(&self) -> Phase {
        match (self.blocked.get(), self.exchanges.get()) {
            (true, _) => Phase::Blocked,
            (false, 0) if self.head_begun.get() => Phase::Head,
            (false, 0) => Phase::Idle,
            (false, _) => Phase::Busy,
        }
    }
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The rest of a head.
    Head,
    /// A request.
    Idle,
    /// A backend, or a body: they have bounds of their own.
    Busy,
    /// The client, to take what we have for it.
    Blocked,
}

/// The connection's own clock.
struct Watch {
    timer: Timer,
    phase: Option<Phase>,
    deadline: Deadline,
}

impl Watch {
    fn new(timer: Timer) -> Self {
        Self { timer, phase: None, deadline: Deadline::NEVER }
    }

    /// Ready when the phase that the connection is in has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>, client: &Client) -> Poll<Phase> {
        let phase = client.phase();
        let moved = client.moved.take();
        let goes_on = match phase {
            Phase::Head | Phase::Idle => true,
            Phase::Busy | Phase::Blocked => !moved,
        };
        if self.phase != Some(phase) || !goes_on {
            let limits = client.limits();
            let bound = match (phase, client.version) {
                (Phase::Head, Version::Http1) => Some(limits.head),
                // hyper doesn't tell half a header block from none.
                (Phase::Head, Version::Http2) | (Phase::Idle, _) => Some(limits.keep_alive),
                (Phase::Blocked, _) => Some(limits.body),
                (Phase::Busy, Version::Http1) => None,
                // A client that gives its streams no window holds their backends: none of our timers sees that.
                (Phase::Busy, Version::Http2) => Some(limits.stream + limits.body),
            };
            self.phase = Some(phase);
            self.deadline = bound.map_or(Deadline::NEVER, |bound| self.timer.wheel().after(bound));
            if let (Phase::Idle, Some(own)) = (phase, &client.own) {
                self.deadline = self.deadline.min(own.old);
            }
        }
        self.timer.poll_at(cx, self.deadline).map(|()| phase)
    }
}

/// Serves a client that was just accepted, to its end.
pub(crate) async fn serve(
    thread: Rc<Thread>,
    mut socket: TcpStream,
    peer: SocketAddr,
    table: Arc<PortTable>,
    stay: Stay,
) {
    let protocol = table.protocol();
    thread.metrics.connection_opened(protocol);
    let counted = Counted(thread.clone(), protocol);
    // Without it answers are late, not wrong.
    let _ = socket.set_nodelay(true);
    let timer = Timer::new(&thread.wheel);
    let usual = &thread.limits;
    let Limits { head, handshake, http2, .. } =
        table.clients().map_or(*usual, |clients| clients.bounds(usual));
    let deadline = thread.wheel.after(if protocol == PortProtocol::Tls { handshake } else { head });
    let admitted = match table.clients() {
        None => Some((peer, None)),
        // In a box, as below.
        Some(clients) => Box::pin(admit(clients, &table, (&mut socket, peer), (&timer, deadline))).await,
    };
    let Some((peer, seat)) = admitted else { return thread.metrics.connection_refused() };
    let ready = match protocol {
        PortProtocol::Http => {
            let mut first = Box::pin(timer.bound(deadline, handshake::clear(socket, http2)));
            std::future::poll_fn(|cx| {
                let outcome = first.as_mut().poll(cx);
                match outcome.is_pending() && stay.guest().is_leaving(cx) {
                    true => Poll::Ready(None),
                    false => outcome
                        .map(|outcome| outcome.map(|ready| ready.map(|ready| ready.map(Greeted::Http)))),
                }
            })
            .await
        }
        PortProtocol::Tcp | PortProtocol::Udp => table.stream().map(|stream| {
            Ok(Some(Greeted::Stream(Transport::Clear(socket), BytesMut::new(), stream.clone())))
        }),
        PortProtocol::Tls => {
            // In a box, as all that an idle connection is better without: its task is as large as its largest part.
            Box::pin(timer.bound(deadline, handshake::tls(socket, &table, http2))).await
        }
    };
    match ready {
        Some(Ok(Some(Greeted::Stream(transport, begun, stream)))) => {
            drop(timer);
            let passes = protocol == PortProtocol::Tls && matches!(transport, Transport::Clear(_));
            let onward = if passes { Onward::AsItIs } else { Onward::Secured };
            Box::pin(stream::serve(&thread, transport, begun, &stream, onward, &table)).await;
        }
        Some(Ok(Some(Greeted::Http(ready)))) => {
            let Ready { transport, begun, version, tls } = ready;
            let client = Client::new(thread, peer, table, stay, (version, tls));
            let client = Rc::new(client);
            let io = Io { inner: TokioIo::new(transport), begun, client: client.clone() };
            match version {
                Version::Http1 => serve_http1(client, io, timer).await,
                Version::Http2 => Box::pin(serve_http2(client, io, timer)).await,
            }
        }
        Some(Ok(None)) | None if protocol != PortProtocol::Tls => {}
        Some(Err(error)) => {
            tracing::debug!(%peer, %error, "handshake failed");
            thread.metrics.handshake_failed();
        }
        Some(Ok(None)) | None => thread.metrics.handshake_failed(),
    }
    drop((counted, seat));
}

/// Who is behind a connection, and its seat where they are counted. None: it has to end.
async fn admit(
    clients: &Clients,
    table: &PortTable,
    (socket, peer): (&mut TcpStream, SocketAddr),
    (timer, deadline): (&Timer, Deadline),
) -> Option<(SocketAddr, Option<Seat>)> {
    let mut behind = peer;
    if clients.may_introduce() {
        match timer.bound(deadline, clients.introduce(socket, peer)).await {
            Some(Ok(said)) => behind = said,
            refused => {
                tracing::debug!(%peer, ?refused, "no header of the PROXY protocol");
                return None;
            }
        }
    }
    let seat = clients.seat(table.seats(), behind.ip());
    seat.inspect_err(|_| tracing::debug!(%peer, "too many connections")).ok().map(|seat| (behind, seat))
}

/// Counts the end of a connection, however it comes.
struct Counted(Rc<Thread>, PortProtocol);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connection_closed(self.1);
    }
}

/// Why a connection's HTTP ended.
enum End {
    Done(hyper::Result<()>),
    Expired(Phase),
}

async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<Outbound>, Infallible> {
    Ok(request::answer(&client, request).await)
}

async fn serve_http1(client: Rc<Client>, io: Io, timer: Timer) {
    // In a box: hyper would keep the room of one for as long as the connection, and 3.5 KiB are a quarter of an idle one.
    let service = service_fn(|request| Box::pin(answer(client.clone(), request)));
    let mut builder = http1::Builder::new();
    let limits = client.limits();
    builder.max_buf_size(limits.head_bytes.max(LEAST_BUFFER)).max_header_size(limits.head_bytes);
    if limits.head_fields > limits::FIELDS {
        builder.max_headers(limits.head_fields);
    }
    let mut connection = builder.serve_connection(io, service);
    let mut watch = Watch::new(timer);
    let mut asked = false;
    let end = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(End::Done(outcome));
            }
            // After the poll: a request that is already there is still served.
            if asked || !client.stay.guest().is_leaving(cx) {
                return watch.poll(cx, &client).map(End::Expired);
            }
            asked = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await;
    let parts = connection.into_parts();
    let left = Left { io: parts.io.inner.into_inner(), read: parts.read_buf, timer: watch.timer };
    Box::pin(finish_http1(client, end, left)).await;
}

/// What is left of a connection after its HTTP.
struct Left {
    io: Transport,
    /// Read beyond the last request.
    read: Bytes,
    timer: Timer,
}

async fn finish_http1(client: Rc<Client>, end: End, left: Left) {
    let Left { io, read, timer } = left;
    let switched = client.switched.take();
    match (end, switched) {
        (End::Done(Ok(())), Some(switched)) => carry(&client, io, read, switched, timer).await,
        (End::Done(outcome), _) => {
            if let Err(error) = outcome {
                note(&client, &error);
            }
            close(&client, io, &timer).await;
        }
        // A client that connected ahead of time and said nothing gets no answer to it.
        (End::Expired(Phase::Head), _) if !read.is_empty() => {
            client.thread.metrics.rejected(Rejection::HeadTimeout);
            say(io, HEAD_TIMEOUT, &timer).await;
        }
        (End::Expired(Phase::Head | Phase::Idle | Phase::Busy | Phase::Blocked), _) => {}
    }
}

/// Counts what hyper refused itself, with an answer if there could be one.
fn note(client: &Client, error: &hyper::Error) {
    let rejection = if error.is_parse_too_large() {
        Rejection::HeadTooLarge
    } else if error.is_parse() {
        Rejection::Malformed(Malformed::Head)
    } else {
        tracing::debug!(peer = %client.peer, %error, "connection ended");
        return;
    };
    tracing::debug!(peer = %client.peer, %error, "request refused");
    client.thread.metrics.rejected(rejection);
}

async fn serve_http2(client: Rc<Client>, io: Io, timer: Timer) {
    let service = service_fn(|request| answer(client.clone(), request));
    let limits = client.limits();
    let connection = http2::Builder::new(Local)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_header_list_size(limits.header_list)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS)
        .max_local_error_reset_streams(limits::LOCAL_RESETS)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut watch = Watch::new(timer);
    let mut asked = false;
    let end = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
                return Poll::Ready(End::Done(outcome));
            }
            let leaving = client.stay.guest().is_leaving(cx) || client.is_unwanted() || client.floods();
            let expired = match watch.poll(cx, &client) {
                Poll::Ready(Phase::Idle | Phase::Head) if !asked => true,
                Poll::Ready(phase) => return Poll::Ready(End::Expired(phase)),
                Poll::Pending => false,
            };
            if asked || !(leaving || expired) {
                return Poll::Pending;
            }
            // GOAWAY twice (RFC 9113 §6.8); an idle client then has once more the same time to go.
            asked = true;
            watch.phase = None;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
    match end {
        End::Done(Err(error)) => tracing::debug!(peer = %client.peer, %error, "connection ended"),
        End::Expired(phase) => tracing::debug!(peer = %client.peer, ?phase, "connection expired"),
        End::Done(Ok(())) => {}
    }
}

/// The WebSocket's bytes, once the 101 is written.
async fn carry(client: &Client, io: Transport, read: Bytes, switched: Switched, timer: Timer) {
    let Switched { backend, lease, mut finish } = switched;
    let (backend, from_backend, backend_timer, seat) = backend.into_parts();
    drop(backend_timer);
    let silence = client.limits().stream;
    let mut carrying =
        std::pin::pin!(upgrade::carry(io, BytesMut::from(read), backend, from_backend, &timer, silence));
    // While draining it goes on until the drain's end: there is no polite word for it that we could say.
    let (carried, outcome) = carrying.as_mut().await;
    if let Err(error) = outcome {
        tracing::debug!(peer = %client.peer, %error, "upgraded connection ended");
    }
    finish.carried(carried);
    drop((lease, seat));
}

/// Ends a connection so that the client gets the last answer.
async fn close(client: &Client, mut io: Transport, timer: &Timer) {
    if !client.unread.get() {
        return;
    }
    let deadline = timer.wheel().after(LINGER);
    let mut left = LINGER_BYTES;
    let linger = async {
        io.shutdown().await?;
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        loop {
            buffer.clear();
            let read = io.read_buf(&mut buffer).await?;
            if read == 0 || read > left {
                return io::Result::Ok(());
            }
            left -= read;
        }
    };
    // It ends in any case.
    let _ = timer.bound(deadline, linger).await;
}

async fn say(mut io: Transport, text: &'static [u8], timer: &Timer) {
    let deadline = timer.wheel().after(LINGER);
    let saying = async {
        io.write_all(text).await?;
        io.shutdown().await
    };
    // Nobody may be listening.
    let _ = timer.bound(deadline, saying).await;
}

/// A client's bytes for hyper, watched.
struct Io {
    inner: TokioIo<Transport>,
    /// Bytes that were read before hyper.
    begun: Bytes,
    client: Rc<Client>,
}

impl Io {
    fn wrote<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.client.blocked.set(outcome.is_pending());
        outcome
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let length = self.begun.len().min(buf.remaining());
            buf.put_slice(&self.begun[..length]);
            self.begun.advance(length);
            if self.begun.is_empty() {
                // What is empty still holds its buffer.
                self.begun = Bytes::new();
            }
        } else {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        }
        self.client.moved.set(true);
        if self.client.exchanges.get() == 0 {
            self.client.head_begun.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.client.moved.set(self.client.moved.get() || written.is_ready());
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.client.moved.set(self.client.moved.get() || written.is_ready());
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
