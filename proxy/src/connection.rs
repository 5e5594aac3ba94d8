//! One client connection: handshake, then [`crate::http1`] or [`crate::http2`], then perhaps a WebSocket; one task.
//!
//! Each of them keeps the time, by one [`Timer`], looked at only when the connection has nothing to do. Requests are served by
//! [`crate::request`], which learns from [`Client`] whom it serves.

use crate::auth::ClientCertificate;
use crate::clients::{Clients, Seat, Sender};
use crate::drain::Stay;
use crate::finish::Finish;
use crate::handshake::{self, Greeted, Ready, Tls, Version};
use crate::headers::{self, Forwarding};
use crate::http1;
use crate::http2;
use crate::limits::Limits;
use crate::model::{ClientPath, ClientTrial, EscapedSlashes, PortProtocol, Scheme};
use crate::router::PortTable;
use crate::runtime::Thread;
use crate::stream::{self, Onward};
use crate::timer::{Deadline, Timer};
use crate::transport::Transport;
use crate::upstream::pool::Lease;
use crate::upstream::{h1, upgrade};
use bytes::BytesMut;
use http::HeaderMap;
use std::cell::{Cell, Ref, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// After an answer to a request whose body we don't read, the client may still be sending: closing at once would reset
/// the connection, and the answer with it. So much is read and thrown away, for so long.
const LINGER_BYTES: usize = 256 * 1024;
pub(crate) const LINGER: Duration = Duration::from_secs(2);

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

    /// What policies in shadow would hold it to.
    pub(crate) fn trial(&self) -> Option<&ClientTrial> {
        self.own.as_ref().and_then(|own| own.clients.trial())
    }

    /// Who has sent a request with these fields. None: who is connected.
    pub(crate) fn sender(&self, headers: &HeaderMap) -> Option<Box<Sender>> {
        let own = self.own.as_ref()?;
        own.clients.sender(headers, (self.peer, self.scheme, self.gateway_port()))
    }

    /// Whether the client gives up more requests than it may: each costs us and a backend, and it nothing (CVE-2023-44487).
    pub(crate) fn floods(&self) -> bool {
        self.given_up.get() > self.limits().resets
    }

    /// Whether the connection should end with the next answer.
    pub(crate) fn is_unwanted(&self) -> bool {
        let is_old =
            |own: &Own| own.old != Deadline::NEVER && own.old <= self.thread.wheel.after(Duration::ZERO);
        self.thread.unready.get() || self.own.as_deref().is_some_and(is_old)
    }

    /// Whether it was asked to end. The task is woken when it is.
    pub(crate) fn is_leaving(&self, cx: &Context<'_>) -> bool {
        self.stay.guest().is_leaving(cx)
    }

    /// The same, while its task has other things to wait for.
    pub(crate) fn is_asked_to_leave(&self) -> bool {
        self.stay.guest().is_asked()
    }

    /// Until when a head has to be there that begins now.
    pub(crate) fn head_deadline(&self) -> Deadline {
        self.thread.wheel.after(self.limits().head)
    }

    /// Until when another request may begin.
    pub(crate) fn idle_deadline(&self) -> Deadline {
        let idle = self.thread.wheel.after(self.limits().keep_alive);
        self.own.as_ref().map_or(idle, |own| idle.min(own.old))
    }

    /// Requests being served.
    pub(crate) fn exchanges(&self) -> u32 {
        self.exchanges.get()
    }

    /// A request begins.
    pub(crate) fn enter(&self) {
        self.exchanges.set(self.exchanges.get() + 1);
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
        None => Some((peer, [None, None])),
        // In a box, as below.
        Some(clients) => {
            Box::pin(admit(&thread, clients, &table, (&mut socket, peer), (&timer, deadline))).await
        }
    };
    let Some((peer, seats)) = admitted else { return thread.metrics.connection_refused() };
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
            Ok(Some(Greeted::Stream(Transport::Clear(socket.into()), BytesMut::new(), stream.clone())))
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
            match version {
                Version::Http1 => http1::serve(client, transport, begun, timer).await,
                Version::Http2 => Box::pin(http2::serve(client, transport, begun, timer)).await,
            }
        }
        Some(Ok(None)) | None if protocol != PortProtocol::Tls => {}
        Some(Err(error)) => {
            tracing::debug!(%peer, %error, "handshake failed");
            thread.metrics.handshake_failed();
        }
        Some(Ok(None)) | None => thread.metrics.handshake_failed(),
    }
    drop((counted, seats));
}

/// Who is behind a connection, and its seats where they are counted: in force, and tried. None: it has to end.
async fn admit(
    thread: &Thread,
    clients: &Clients,
    table: &PortTable,
    (socket, peer): (&mut TcpStream, SocketAddr),
    (timer, deadline): (&Timer, Deadline),
) -> Option<(SocketAddr, [Option<Seat>; 2])> {
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
    let seat = seat.inspect_err(|_| tracing::debug!(%peer, "too many connections")).ok()?;
    let tried = clients.tried_seat(table.tried_seats(), behind.ip());
    let tried = tried.inspect_err(|_| thread.metrics.shadow_connection_refused()).ok().flatten();
    Some((behind, [seat, tried]))
}

/// Counts the end of a connection, however it comes.
struct Counted(Rc<Thread>, PortProtocol);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connection_closed(self.1);
    }
}

/// The WebSocket's bytes, once the 101 is written.
pub(crate) async fn carry(client: &Client, io: Transport, read: BytesMut, timer: Timer) {
    let Some(Switched { backend, lease, mut finish }) = client.switched.take() else { return };
    let (backend, from_backend, backend_timer, seat) = backend.into_parts();
    drop(backend_timer);
    let silence = client.limits().stream;
    let mut carrying = std::pin::pin!(upgrade::carry(io, read, backend, from_backend, &timer, silence));
    // While draining it goes on until the drain's end: there is no polite word for it that we could say.
    let (carried, outcome) = carrying.as_mut().await;
    if let Err(error) = outcome {
        tracing::debug!(peer = %client.peer, %error, "upgraded connection ended");
    }
    finish.carried(carried);
    drop((lease, seat));
}

/// Ends a connection on which nothing is under way but what is held for its end, which may take so long. In clear text closing
/// it says as much.
pub(crate) async fn part(mut io: Transport, timer: &Timer, time: Duration) {
    if matches!(io, Transport::Tls(_)) {
        // It ends in any case.
        let _ = timer.bound(timer.wheel().after(time), io.shutdown()).await;
    }
}

/// Ends a connection whose client may still be sending, so that it gets the last answer. `last`: what is to be said before.
pub(crate) async fn linger(mut io: Transport, last: &[u8], timer: &Timer) {
    let deadline = timer.wheel().after(LINGER);
    let mut left = LINGER_BYTES;
    let linger = async {
        io.write_all(last).await?;
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
