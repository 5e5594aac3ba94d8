//! UDP: sessions, one for each address that clients send from.
//!
//! A session picks an endpoint by the weights of the route and has a socket of its own, connected to that endpoint, so
//! that answers find their way back. It ends after a minute of silence, or when the endpoint says that nobody listens
//! there; the next datagram begins another. Sessions of a thread are bounded: beyond that, new clients aren't heard.

use crate::listener::Closing;
use crate::model::{PortId, PortProtocol};
use crate::rejection::Rejection;
use crate::router::Stream;
use crate::runtime::Thread;
use crate::timer::Timer;
use crate::upstream::open::choose;
use crate::upstream::pool::{Connected, Lease};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio::net::UdpSocket;

/// The largest datagram there is.
const LARGEST: usize = 65_535;

/// Sessions of one socket.
struct Sessions {
    thread: Rc<Thread>,
    /// What clients send to.
    socket: UdpSocket,
    open: RefCell<HashMap<SocketAddr, Rc<Session>>>,
}

/// One client and its endpoint.
struct Session {
    endpoint: UdpSocket,
    lease: Lease,
    /// Whether datagrams passed since the clock was looked at.
    moved: Cell<bool>,
    received: Cell<u64>,
    sent: Cell<u64>,
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
            let sessions = Rc::new(Sessions { thread, socket, open: RefCell::default() });
            sessions.receive(&port, &closing).await;
        }
        Err(error) => tracing::error!(%port, %error, "can't receive on a port"),
    }
    closing.done();
}

impl Sessions {
    async fn receive(self: &Rc<Self>, port: &PortId, closing: &Closing) {
        let mut buffer = vec![0; LARGEST];
        loop {
            let received = std::future::poll_fn(|cx| {
                if closing.poll_asked(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let mut free = tokio::io::ReadBuf::new(&mut buffer);
                self.socket.poll_recv_from(cx, &mut free).map(|from| Some((free.filled().len(), from)))
            });
            match received.await {
                None => break,
                Some((length, Ok(from))) => self.take(port, from, &buffer[..length]),
                // About a datagram of ours that didn't arrive: not about this socket.
                Some((_, Err(error))) => tracing::debug!(%port, %error, "an error of a socket for datagrams"),
            }
        }
        // Sessions end with the socket that their answers leave by.
        self.open.borrow_mut().clear();
    }

    fn take(self: &Rc<Self>, port: &PortId, from: SocketAddr, datagram: &[u8]) {
        let known = self.open.borrow().get(&from).cloned();
        let session = match known.map_or_else(|| self.begin(port, from), Ok) {
            Ok(session) => session,
            Err(why) => return self.thread.metrics.rejected(why),
        };
        session.moved.set(true);
        session.received.set(session.received.get() + datagram.len() as u64);
        // Past the runtime, which doesn't know yet that a new socket has room. As on any network: what doesn't fit is lost.
        if let Err(error) = SockRef::from(&session.endpoint).send(datagram)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.end(from, &session, &error);
        }
    }

    fn begin(self: &Rc<Self>, port: &PortId, from: SocketAddr) -> Result<Rc<Session>, Rejection> {
        let thread = &self.thread;
        if thread.sessions.get() >= thread.limits.udp_sessions {
            return Err(Rejection::Overloaded);
        }
        let table = thread.table(port).ok_or(Rejection::NoListener)?;
        let stream = table.stream().ok_or(Rejection::NoRoute)?;
        let backend = stream.split().pick(thread.random()).target.as_ref().map_err(|why| *why)?;
        let (address, lease, _) = choose(thread, backend, &[]).ok_or(Rejection::NoEndpoints)?;
        let endpoint = connect(address.socket()).map_err(|error| {
            tracing::debug!(backend = %backend.id(), %error, "can't send to an endpoint");
            thread.metrics.backend_failed(backend.metrics(), Rejection::ConnectFailed);
            Rejection::ConnectFailed
        })?;
        thread.metrics.backend_connected(backend.metrics());
        let session = Rc::new(Session {
            endpoint,
            lease,
            moved: Cell::new(true),
            received: Cell::default(),
            sent: Cell::default(),
        });
        self.open.borrow_mut().insert(from, session.clone());
        let counted = Counted::new(thread);
        let (sessions, stream, session_task) = (self.clone(), stream.clone(), session.clone());
        tokio::task::spawn_local(async move {
            let _counted = counted;
            sessions.answer(from, &session_task, &stream).await;
        });
        Ok(session)
    }

    /// Sends a session's answers to its client, to the session's end.
    async fn answer(&self, client: SocketAddr, session: &Rc<Session>, stream: &Stream) {
        let thread = &self.thread;
        let timer = Timer::new(&thread.wheel);
        let mut buffer = vec![0; LARGEST];
        let mut deadline = thread.wheel.after(thread.limits.udp_idle);
        let is_over = || !self.open.borrow().get(&client).is_some_and(|known| Rc::ptr_eq(known, session));
        loop {
            let received = std::future::poll_fn(|cx| {
                let mut free = tokio::io::ReadBuf::new(&mut buffer);
                if let Poll::Ready(outcome) = session.endpoint.poll_recv(cx, &mut free) {
                    return Poll::Ready(Some(outcome.map(|()| free.filled().len())));
                }
                if timer.poll_at(cx, deadline).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            });
            match received.await {
                // Silence, or the clock had not heard of the last datagrams.
                None if is_over() || !session.moved.take() => break,
                None => deadline = thread.wheel.after(thread.limits.udp_idle),
                Some(Ok(length)) => {
                    session.moved.set(true);
                    session.sent.set(session.sent.get() + length as u64);
                    if self.socket.send_to(&buffer[..length], client).await.is_err() {
                        break;
                    }
                }
                Some(Err(error)) => {
                    self.end(client, session, &error);
                    break;
                }
            }
        }
        tracing::debug!(route = %stream.id(), %client, "a session of datagrams is over");
        if !is_over() {
            self.open.borrow_mut().remove(&client);
        }
        thread.metrics.transferred(session.received.get(), session.sent.get());
    }

    /// The endpoint can't be reached: the client's next datagram looks for another.
    fn end(&self, client: SocketAddr, session: &Rc<Session>, error: &io::Error) {
        tracing::debug!(%client, %error, "an endpoint takes no datagrams");
        session.lease.note_connect(Connected::No);
        let mut open = self.open.borrow_mut();
        if open.get(&client).is_some_and(|known| Rc::ptr_eq(known, session)) {
            open.remove(&client);
        }
    }
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
