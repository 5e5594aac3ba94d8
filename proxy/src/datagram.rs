//! UDP: sessions, one for each address that clients send from.
//!
//! A session picks an endpoint by the weights of the route and has a socket of its own, connected to that endpoint, so
//! that answers find their way back. It ends after a minute of silence, or when the endpoint says that nobody listens
//! there; the next datagram begins another. So does a datagram whose session has an endpoint or a backend that isn't in
//! force any more. Sessions of a thread are bounded, and share their buffers: beyond the bound, new clients aren't heard.

use crate::listener::Closing;
use crate::model::{EndpointSet, PortId, PortProtocol};
use crate::rejection::Rejection;
use crate::router::{PortTable, Stream};
use crate::runtime::Thread;
use crate::timer::Timer;
use crate::upstream::BackendState;
use crate::upstream::open::choose;
use crate::upstream::pool::{Connected, Lease};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// The largest datagram there is.
const LARGEST: usize = 65_535;

/// Sessions of one socket. Their tasks hold it weakly: the socket is closed when it is to be closed.
struct Sessions {
    thread: Rc<Thread>,
    port: Arc<PortId>,
    /// What clients send to.
    socket: UdpSocket,
    open: RefCell<HashMap<SocketAddr, Rc<Session>>>,
    /// Where answers are read into, one at a time.
    answers: RefCell<Box<[u8]>>,
}

/// One client and its endpoint.
struct Session {
    client: SocketAddr,
    endpoint: UdpSocket,
    address: SocketAddr,
    backend: Arc<BackendState>,
    lease: Lease,
    /// Under which generation the route was seen to have the backend.
    generation: Cell<u64>,
    /// In which the address was seen.
    endpoints: RefCell<Arc<EndpointSet>>,
    /// Whether datagrams passed since the clock was looked at.
    moved: Cell<bool>,
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

/// Whether a session may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    /// The endpoint leaves: it may still answer what it has.
    Moved,
    /// The route doesn't have the backend any more.
    Revoked,
}

/// Serves a port's datagrams until asked to end.
pub(crate) async fn serve(
    thread: Rc<Thread>,
    port: Arc<PortId>,
    socket: std::net::UdpSocket,
    closing: Rc<Closing>,
) {
    match UdpSocket::from_std(socket) {
        Ok(socket) => {
            let answers = RefCell::new(vec![0; LARGEST].into());
            let sessions = Rc::new(Sessions { thread, port, socket, open: RefCell::default(), answers });
            sessions.receive(&closing).await;
            // Sessions end with the socket that their answers leave by.
            sessions.open.take().values().for_each(|session| session.stop());
        }
        Err(error) => tracing::error!(%port, %error, "can't receive on a port"),
    }
    closing.done();
}

impl Session {
    /// Has the session's task end.
    fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn standing(&self, thread: &Thread, port: &PortId) -> Standing {
        let generation = thread.generation();
        if self.generation.get() != generation {
            let table = thread.table(port);
            let stream = table.as_deref().and_then(PortTable::stream);
            if !stream.is_some_and(|stream| stream.split().has(&self.backend)) {
                return Standing::Revoked;
            }
            self.generation.set(generation);
        }
        let endpoints = self.backend.endpoints();
        let mut seen = self.endpoints.borrow_mut();
        if !Arc::ptr_eq(&endpoints, &seen) {
            if !endpoints.endpoints.iter().any(|endpoint| endpoint.address == self.address) {
                return Standing::Moved;
            }
            *seen = endpoints;
        }
        Standing::Good
    }
}

impl Sessions {
    async fn receive(self: &Rc<Self>, closing: &Closing) {
        let mut buffer = vec![0; LARGEST];
        loop {
            let received = std::future::poll_fn(|cx| {
                if closing.poll_asked(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let mut free = ReadBuf::new(&mut buffer);
                self.socket.poll_recv_from(cx, &mut free).map(|from| Some((free.filled().len(), from)))
            });
            match received.await {
                None => return,
                Some((length, Ok(from))) => self.take(from, &buffer[..length]),
                // About a datagram of ours that didn't arrive: not about this socket.
                Some((_, Err(error))) => {
                    tracing::debug!(port = %self.port, %error, "an error of a socket for datagrams");
                }
            }
        }
    }

    fn take(self: &Rc<Self>, from: SocketAddr, datagram: &[u8]) {
        let session = match self.known(from).map_or_else(|| self.begin(from), Ok) {
            Ok(session) => session,
            Err(why) => return self.thread.metrics.rejected(why),
        };
        session.moved.set(true);
        session.received.set(session.received.get() + datagram.len() as u64);
        // Past the runtime, which doesn't know yet that a new socket has room. As on any network: what doesn't fit is lost.
        if let Err(error) = SockRef::from(&session.endpoint).send(datagram)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.end(&session, &error);
        }
    }

    /// The session of a client, if it may go on.
    fn known(&self, from: SocketAddr) -> Option<Rc<Session>> {
        let session = self.open.borrow().get(&from)?.clone();
        match session.standing(&self.thread, &self.port) {
            Standing::Good => return Some(session),
            Standing::Moved => {}
            Standing::Revoked => session.stop(),
        }
        self.open.borrow_mut().remove(&from);
        None
    }

    fn begin(self: &Rc<Self>, from: SocketAddr) -> Result<Rc<Session>, Rejection> {
        let thread = &self.thread;
        if thread.sessions.get() >= thread.limits.udp_sessions {
            return Err(Rejection::Overloaded);
        }
        let generation = thread.generation();
        let table = thread.table(&self.port).ok_or(Rejection::NoListener)?;
        let stream = table.stream().ok_or(Rejection::NoRoute)?;
        let backend = stream.split().pick(thread.random()).target.as_ref().map_err(|why| *why)?;
        // Before the choice: a set that comes in between is looked at with the next datagram.
        let endpoints = RefCell::new(backend.endpoints());
        let (address, lease, _) = choose(thread, backend, &[]).ok_or(Rejection::NoEndpoints)?;
        let endpoint = connect(address.socket()).map_err(|error| {
            tracing::debug!(backend = %backend.id(), %error, "can't send to an endpoint");
            thread.metrics.backend_failed(backend.metrics(), Rejection::ConnectFailed);
            Rejection::ConnectFailed
        })?;
        thread.metrics.backend_connected(backend.metrics());
        let session = Rc::new(Session {
            client: from,
            endpoint,
            address: address.socket(),
            backend: backend.clone(),
            lease,
            generation: Cell::new(generation),
            endpoints,
            moved: Cell::new(true),
            stopped: Cell::new(false),
            waker: RefCell::default(),
            received: Cell::default(),
            sent: Cell::default(),
        });
        self.open.borrow_mut().insert(from, session.clone());
        let counted = Counted::new(thread);
        let answering = answer(Rc::downgrade(self), counted, session.clone(), stream.clone());
        tokio::task::spawn_local(answering);
        Ok(session)
    }

    /// Sends what the endpoint has answered to the client, until there is no more for now.
    fn poll_answers(&self, cx: &mut Context<'_>, session: &Session) -> Poll<io::Error> {
        let mut buffer = self.answers.borrow_mut();
        loop {
            let mut free = ReadBuf::new(&mut buffer);
            if let Err(error) = ready!(session.endpoint.poll_recv(cx, &mut free)) {
                return Poll::Ready(error);
            }
            session.moved.set(true);
            session.sent.set(session.sent.get() + free.filled().len() as u64);
            // At once or not at all: waiting would take a buffer for each session.
            if let Err(error) = SockRef::from(&self.socket).send_to(free.filled(), &session.client.into()) {
                tracing::debug!(client = %session.client, %error, "a datagram for a client is lost");
            }
        }
    }

    /// The endpoint can't be reached: the client's next datagram looks for another.
    fn end(&self, session: &Session, error: &io::Error) {
        tracing::debug!(client = %session.client, endpoint = %session.address, %error, "an endpoint takes no datagrams");
        session.lease.note_connect(Connected::No);
        self.forget(session);
        session.stop();
    }

    fn forget(&self, session: &Session) {
        let mut open = self.open.borrow_mut();
        if open.get(&session.client).is_some_and(|known| std::ptr::eq(&**known, session)) {
            open.remove(&session.client);
        }
    }
}

/// Sends a session's answers to its client, to the session's end.
async fn answer(sessions: Weak<Sessions>, counted: Counted, session: Rc<Session>, stream: Arc<Stream>) {
    let thread = &counted.0;
    let timer = Timer::new(&thread.wheel);
    let mut deadline = thread.wheel.after(thread.limits.udp_idle);
    std::future::poll_fn(|cx| {
        let Some(sessions) = sessions.upgrade().filter(|_| !session.stopped.get()) else {
            return Poll::Ready(());
        };
        // A task has one waker for life.
        session.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        if let Poll::Ready(error) = sessions.poll_answers(cx, &session) {
            sessions.end(&session, &error);
            return Poll::Ready(());
        }
        while timer.poll_at(cx, deadline).is_ready() {
            if !session.moved.take() {
                sessions.forget(&session);
                return Poll::Ready(());
            }
            // The clock had not heard of the last datagrams.
            deadline = thread.wheel.after(thread.limits.udp_idle);
        }
        Poll::Pending
    })
    .await;
    tracing::debug!(route = %stream.id(), client = %session.client, "a session of datagrams is over");
    thread.metrics.transferred(session.received.get(), session.sent.get());
}

/// A socket that sends to one endpoint, and hears only from there.
fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    UdpSocket::from_std(socket)
}

/// Counts a session as long as it lasts.
struct Counted(Rc<Thread>);

impl Counted {
    fn new(thread: &Rc<Thread>) -> Self {
        thread.sessions.set(thread.sessions.get() + 1);
        thread.metrics.connection_opened(PortProtocol::Udp);
        Self(thread.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.set(self.0.sessions.get() - 1);
        self.0.metrics.connection_closed(PortProtocol::Udp);
    }
}
