//! Listening sockets: which ports are open, one socket per thread for each, and the loop that accepts.
//!
//! All sockets of a port listen before any thread accepts from one, and their number never changes: the kernel spreads
//! connections over them by hash, and drops what is queued on one that closes. A port whose address is unchanged
//! keeps its sockets. Must not know what is spoken on a port: the table in force says so when a client comes.

use crate::connection;
use crate::model::{PortId, PortProtocol, Transport};
use crate::runtime::{Command, Thread};
use crate::snapshot::Ports;
use socket2::{Domain, Protocol, Type};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
#[expect(clippy::disallowed_types, reason = "taken when ports change, never by a request")]
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::mpsc;

/// Connections that the kernel keeps for one socket before they are accepted: a burst of a second at 4,000 a second.
const BACKLOG: i32 = 4_096;
/// Pause when the process or the machine has no descriptors or memory left (security.md §9, fault 22).
const PAUSE: Duration = Duration::from_millis(200);
/// What closing a socket may take: the loop that has it is woken, takes what is queued, and is done.
const CLOSE: Duration = Duration::from_secs(2);

/// A thread's socket of a port.
pub(crate) enum Socket {
    /// Listens for connections.
    Tcp(TcpListener),
    /// Receives datagrams.
    Udp(UdpSocket),
}

#[derive(Debug)]
struct Open {
    /// What the model asked for; its port may be 0.
    wanted: SocketAddr,
    actual: SocketAddr,
}

/// The open ports of the process. The control side.
#[derive(Debug)]
pub(crate) struct Listeners {
    threads: Vec<mpsc::Sender<Command>>,
    #[expect(clippy::disallowed_types, reason = "taken when ports change, never by a request")]
    open: Mutex<BTreeMap<PortId, Open>>,
}

impl Listeners {
    /// No port open yet.
    #[expect(clippy::disallowed_types, reason = "taken when ports change, never by a request")]
    pub(crate) fn new(threads: Vec<mpsc::Sender<Command>>) -> Self {
        Self { threads, open: Mutex::new(BTreeMap::new()) }
    }

    /// Where a port is open: differs from what the model says when that leaves the choice to the system (port 0).
    pub(crate) fn address(&self, port: &PortId) -> Option<SocketAddr> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(port).map(|open| open.actual)
    }

    fn open_port(&self, port: &PortId, wanted: SocketAddr) -> io::Result<Open> {
        let (sockets, actual) = bind(wanted, port.transport, self.threads.len())?;
        let port = Arc::new(port.clone());
        for (thread, socket) in self.threads.iter().zip(sockets) {
            let command = Command::Listen { port: port.clone(), socket };
            thread.try_send(command).map_err(|_| io::Error::other("a worker thread takes no commands"))?;
        }
        Ok(Open { wanted, actual })
    }

    /// Returns when the sockets are closed: somebody else may want the address.
    fn close_port(&self, port: &PortId) {
        let (closed, done) = sync_channel(self.threads.len());
        for thread in &self.threads {
            // A thread that takes no commands has ended, and its sockets with it.
            let _ = thread.try_send(Command::Close { port: port.clone(), closed: closed.clone() });
        }
        drop(closed);
        // Ends when each thread has sent its word or dropped its sender.
        while done.recv_timeout(CLOSE).is_ok() {}
    }
}

impl Ports for Arc<Listeners> {
    fn apply(&self, wanted: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |id: &PortId, open: &Open| {
            wanted.iter().any(|(wanted_id, address, _)| wanted_id == id && *address == open.wanted)
        };
        let gone: Vec<PortId> =
            open.iter().filter(|(id, open)| !kept(id, open)).map(|(id, _)| id.clone()).collect();
        for port in gone {
            self.close_port(&port);
            open.remove(&port);
        }
        let mut failed = Vec::new();
        for (port, address, _) in wanted {
            if open.contains_key(port) {
                continue;
            }
            let taken = open.iter().find(|(other, open)| {
                other.transport == port.transport && open.wanted == *address && address.port() != 0
            });
            if let Some((other, _)) = taken {
                failed.push((
                    port.clone(),
                    format!("{address} is already in use by Gateway {}", other.gateway),
                ));
                continue;
            }
            match self.open_port(port, *address) {
                Ok(opened) => drop(open.insert(port.clone(), opened)),
                Err(error) => {
                    // Threads that got their socket before it failed give it back.
                    self.close_port(port);
                    failed.push((port.clone(), format!("can't listen on {address}: {error}")));
                }
            }
        }
        failed
    }
}

/// One socket per thread, and their address. Fails when any other process, or an unrelated socket, has it. Datagrams
/// of one client all come to one of the sockets, as long as their number stays.
fn bind(address: SocketAddr, transport: Transport, threads: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    if address.port() != 0 {
        // With SO_REUSEPORT alone we would share the port with another process of the same user and get half of its
        // clients: without it, binding says whether anybody listens there.
        socket(address, transport)?.bind(&address.into())?;
    }
    let mut sockets = Vec::with_capacity(threads);
    let mut address = address;
    for _ in 0..threads.max(1) {
        let socket = socket(address, transport)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        sockets.push(match transport {
            Transport::Tcp => {
                socket.listen(BACKLOG)?;
                let socket: TcpListener = socket.into();
                address = socket.local_addr()?;
                Socket::Tcp(socket)
            }
            Transport::Udp => {
                let socket: UdpSocket = socket.into();
                address = socket.local_addr()?;
                Socket::Udp(socket)
            }
        });
    }
    Ok((sockets, address))
}

fn socket(address: SocketAddr, transport: Transport) -> io::Result<socket2::Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if transport == Transport::Tcp {
        // Connections in TIME_WAIT don't keep a restarted gateway from its port.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Ends an accept loop, after it has taken what is queued.
#[derive(Default)]
pub(crate) struct Closing {
    /// Hears when the socket is closed.
    asked: RefCell<Option<SyncSender<()>>>,
    waker: RefCell<Option<Waker>>,
}

impl Closing {
    /// Asks the loop to end; `closed` hears when it has, or is dropped.
    pub(crate) fn ask(&self, closed: SyncSender<()>) {
        *self.asked.borrow_mut() = Some(closed);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ready when the loop is asked to end.
    pub(crate) fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        if self.asked.borrow().is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The socket is closed.
    pub(crate) fn done(&self) {
        if let Some(closed) = self.asked.borrow_mut().take() {
            // Nobody may be waiting any more.
            let _ = closed.try_send(());
        }
    }
}

/// Accepts clients of one port until asked to end.
pub(crate) async fn accept(thread: Rc<Thread>, port: Arc<PortId>, socket: TcpListener, closing: Rc<Closing>) {
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => accept_all(&thread, &port, socket, &closing).await,
        Err(error) => tracing::error!(%port, %error, "can't accept on a port"),
    }
    closing.done();
}

async fn accept_all(
    thread: &Rc<Thread>,
    port: &Arc<PortId>,
    socket: tokio::net::TcpListener,
    closing: &Closing,
) {
    loop {
        let accepted = std::future::poll_fn(|cx| {
            let asked = closing.poll_asked(cx).is_ready();
            if !asked {
                ready!(thread.guests.poll_fewer_than(cx, thread.limits.connections));
            }
            match socket.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                Poll::Pending if asked => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        match accepted.await {
            None => break,
            Some(Ok((client, peer))) => welcome(thread, port, client, peer),
            Some(Err(error)) if is_of_one_client(&error) => {}
            Some(Err(error)) => {
                tracing::warn!(%port, %error, "can't accept: pausing");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if let Err(error) = accept_rest(thread, port, socket) {
        tracing::warn!(%port, %error, "can't accept the last clients of a port");
    }
}

/// Takes what is queued by asking the kernel: the runtime may not have heard of the last ones yet.
fn accept_rest(thread: &Rc<Thread>, port: &Arc<PortId>, socket: tokio::net::TcpListener) -> io::Result<()> {
    let socket = socket.into_std()?;
    loop {
        match socket.accept() {
            Ok((client, peer)) => {
                client.set_nonblocking(true)?;
                welcome(thread, port, tokio::net::TcpStream::from_std(client)?, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn welcome(thread: &Rc<Thread>, port: &Arc<PortId>, client: tokio::net::TcpStream, peer: SocketAddr) {
    // The table now, not when the task runs: the port may be gone by then.
    let Some(table) = thread.table(port) else { return };
    let stay = thread.guests.enter(port.clone());
    // In a box: what is spawned is moved nine times.
    tokio::task::spawn_local(Box::pin(connection::serve(thread.clone(), client, peer, table, stay)));
}

/// Whether the error is about the connection that was to be accepted, not about us (accept(2)).
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_gets_a_socket_of_the_same_port() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let (sockets, address) = bind(([127, 0, 0, 1], 0).into(), transport, 3).unwrap();
            let addresses = sockets.iter().map(|socket| match socket {
                Socket::Tcp(socket) => socket.local_addr().unwrap(),
                Socket::Udp(socket) => socket.local_addr().unwrap(),
            });
            assert_eq!(addresses.collect::<Vec<_>>(), [address; 3]);
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_refused() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let (taken, address) = bind(([127, 0, 0, 1], 0).into(), transport, 1).unwrap();
            let error = bind(address, transport, 2).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            drop(taken);
            bind(address, transport, 2).unwrap();
        }
    }
}
