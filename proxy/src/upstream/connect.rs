//! Opening connections to endpoints, with TLS where the backend has it.

use super::h1;
use super::identity::{Identity, Speaks};
use crate::model::BackendId;
use crate::runtime::Thread;
use crate::timer::{Deadline, Timer};
use crate::transport::Transport;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Refused, unreachable, or no socket to be had.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// The handshake failed: the backend isn't who it should be, or doesn't want us.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
}

/// Logs why there is no connection. A backend that isn't who it should be is for people to look at.
pub(super) fn log(thread: &Thread, backend: &BackendId, endpoint: SocketAddr, error: &ConnectError) {
    match error {
        ConnectError::Tls(_) if thread.may_complain() => {
            tracing::warn!(%backend, %endpoint, %error, "a backend can't be verified, or refuses us");
        }
        ConnectError::Tls(_) | ConnectError::Failed(_) | ConnectError::Timeout => {
            tracing::debug!(%backend, %endpoint, %error, "can't connect to an endpoint");
        }
    }
}

/// Opens a connection, at most until `deadline`; under an identity it is encrypted, and the backend verified.
pub(super) async fn connect(
    address: SocketAddr,
    identity: Option<&Identity>,
    speaks: Speaks,
    timer: &Timer,
    deadline: Deadline,
) -> Result<Transport, ConnectError> {
    let socket = open(address, timer, deadline).await?;
    let Some(identity) = identity else { return Ok(Transport::Clear(socket.into())) };
    // In a box: the path in clear text keeps no room for it.
    match timer.bound(deadline, Box::pin(identity.secure(socket, speaks))).await {
        Some(secured) => secured.map_err(ConnectError::Tls),
        None => Err(ConnectError::Timeout),
    }
}

async fn open(address: SocketAddr, timer: &Timer, deadline: Deadline) -> Result<TcpStream, ConnectError> {
    let Some(socket) = timer.bound(deadline, TcpStream::connect(address)).await else {
        return Err(ConnectError::Timeout);
    };
    let socket = socket?;
    // Heads and small bodies leave at once; what streams is written in large pieces anyway.
    socket.set_nodelay(true)?;
    if socket.local_addr()? == socket.peer_addr()? {
        // A loopback port that nobody listens on, and that the system gave us for our own end: TCP's simultaneous open.
        return Err(ConnectError::Failed(io::ErrorKind::ConnectionRefused.into()));
    }
    Ok(socket)
}

/// [`connect`] for HTTP/1.1.
pub(super) async fn connect_http1(
    address: SocketAddr,
    identity: Option<&Arc<Identity>>,
    timer: Timer,
    deadline: Deadline,
) -> Result<h1::Connection, ConnectError> {
    let transport =
        connect(address, identity.map(|identity| &**identity), Speaks::Http1, &timer, deadline).await?;
    Ok(h1::Connection::new(transport, identity.cloned(), timer))
}
