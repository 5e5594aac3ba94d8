//! A client's HTTP/2 connection: hyper's server speaks the protocol; this file keeps the time, for the next request and for a client
//! that takes nothing any more, and ends connections that are flooded or asked to go.

use crate::body::{Inbound, Outbound};
use crate::connection::Client;
use crate::limits;
use crate::request;
use crate::timer::{Deadline, Timer};
use crate::transport::Transport;
use crate::upstream::h2::Local;
use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Whether bytes get to the client and come from it.
#[derive(Default)]
struct Flow {
    /// Whether the client takes nothing of what we have for it.
    blocked: Cell<bool>,
    /// Whether bytes moved since the timer looked.
    moved: Cell<bool>,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request: hyper doesn't tell half a header block from none.
    Idle,
    /// Backends, or bodies: they have bounds of their own.
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
    fn poll(&mut self, cx: &mut Context<'_>, client: &Client, flow: &Flow) -> Poll<Phase> {
        let phase = match (flow.blocked.get(), client.exchanges()) {
            (true, _) => Phase::Blocked,
            (false, 0) => Phase::Idle,
            (false, _) => Phase::Busy,
        };
        let moved = flow.moved.take();
        if self.phase != Some(phase) || (moved && phase != Phase::Idle) {
            let limits = client.limits();
            self.phase = Some(phase);
            self.deadline = match phase {
                Phase::Idle => client.idle_deadline(),
                Phase::Blocked => self.timer.wheel().after(limits.body),
                // A client that gives its streams no window holds their backends: none of our timers sees that.
                Phase::Busy => self.timer.wheel().after(limits.stream + limits.body),
            };
        }
        self.timer.poll_at(cx, self.deadline).map(|()| phase)
    }
}

/// Why a connection's HTTP ended.
enum End {
    Done(hyper::Result<()>),
    Expired(Phase),
}

async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<Outbound>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = Inbound::http2(body, &parts.headers, &client);
    Ok(request::answer(&client, parts, body, None).await)
}

/// Serves a client to its end. `begun`: what was read of it before.
pub(crate) async fn serve(client: Rc<Client>, transport: Transport, begun: Bytes, timer: Timer) {
    let flow = Rc::new(Flow::default());
    let io = Io { inner: TokioIo::new(transport), begun, flow: flow.clone() };
    let service = service_fn(|request| answer(client.clone(), request));
    let limits = client.limits();
    let connection = Builder::new(Local)
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
            let leaving = client.is_leaving(cx) || client.is_unwanted() || client.floods();
            let expired = match watch.poll(cx, &client, &flow) {
                Poll::Ready(Phase::Idle) if !asked => true,
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

/// A client's bytes for hyper, watched.
struct Io {
    inner: TokioIo<Transport>,
    /// Bytes that were read before hyper.
    begun: Bytes,
    flow: Rc<Flow>,
}

impl Io {
    fn wrote<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.flow.blocked.set(outcome.is_pending());
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
        self.flow.moved.set(true);
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.flow.moved.set(self.flow.moved.get() || written.is_ready());
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.flow.moved.set(self.flow.moved.get() || written.is_ready());
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
