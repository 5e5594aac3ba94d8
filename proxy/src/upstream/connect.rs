//! Opening connections to endpoints.

use super::h1;
use crate::timer::{Deadline, Timer};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Refused, unreachable, or no socket to be had.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
}

/// Opens a connection, at most until `deadline`.
pub(super) async fn connect(
    address: SocketAddr,
    timer: &Timer,
    deadline: Deadline,
) -> Result<TcpStream, ConnectError> {
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
    timer: Timer,
    deadline: Deadline,
) -> Result<h1::Connection, ConnectError> {
    let socket = connect(address, &timer, deadline).await?;
    Ok(h1::Connection::new(socket, timer))
}
