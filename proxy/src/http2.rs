//! A client's HTTP/2 connection: h2 speaks the protocol, and each stream is a task ([`stream`]). This file keeps the time, for the next
//! request and for a client that takes nothing any more, and ends connections that are flooded or asked to go.

mod body;
mod io;
mod stream;

pub(crate) use body::Body;

use crate::connection::Client;
use crate::limits;
use crate::spare_box::Spare;
use crate::timer::{Deadline, Timer};
use crate::transport::Transport;
use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Connection};
use io::{Io, Wire};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// With so many streams under way, what a connection writes may wait for what the others have.
const GATHERED: u32 = 4;

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request: h2 doesn't tell half a header block from none.
    Idle,
    /// Backends, or bodies: they have bounds of their own.
    Busy,
    /// The client, to take what we have for it.
    Blocked,
}

/// The connection's own clock.
struct Watch<'a> {
    timer: &'a Timer,
    phase: Option<Phase>,
    deadline: Deadline,
}

impl<'a> Watch<'a> {
    fn new(timer: &'a Timer) -> Self {
        Self { timer, phase: None, deadline: Deadline::NEVER }
    }

    /// Ready when the phase that the connection is in has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>, client: &Client, wire: &Wire) -> Poll<Phase> {
        let phase = match (wire.is_blocked(), client.exchanges()) {
            (true, _) => Phase::Blocked,
            (false, 0) => Phase::Idle,
            (false, _) => Phase::Busy,
        };
        let moved = wire.take_moved();
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

/// Why a connection ended.
enum End {
    Done(Result<(), h2::Error>),
    /// The client takes nothing any more.
    Broken(std::io::Error),
    Expired(Phase),
}

/// Serves a client to its end. `begun`: what was read of it before.
pub(crate) async fn serve(client: Rc<Client>, transport: Transport, begun: BytesMut, timer: Timer) {
    let wire = Rc::new(Wire::new(transport));
    let io = Io::new(&wire, begun);
    let limits = client.limits();
    let handshake = Builder::new()
        .max_concurrent_streams(limits.streams)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_header_list_size(limits.header_list)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS)
        .max_local_error_reset_streams(Some(limits::LOCAL_RESETS))
        .handshake(io);
    let mut handshake = pin!(timer.bound(client.idle_deadline(), handshake));
    let greeted = std::future::poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Pending if client.is_leaving(cx) => Poll::Ready(None),
        Poll::Pending if wire.send(cx).is_err() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
        Poll::Ready(outcome) => Poll::Ready(outcome),
    });
    let Some(Ok(connection)) = greeted.await else {
        return tracing::debug!(peer = %client.peer, "no HTTP/2 after all");
    };
    match run(&client, connection, &wire, &timer).await {
        End::Done(Err(error)) => tracing::debug!(peer = %client.peer, %error, "connection ended"),
        End::Broken(error) => tracing::debug!(peer = %client.peer, %error, "connection broke"),
        End::Expired(phase) => tracing::debug!(peer = %client.peer, ?phase, "connection expired"),
        End::Done(Ok(())) => {}
    }
}

async fn run(client: &Rc<Client>, mut connection: Connection<Io, Bytes>, wire: &Wire, timer: &Timer) -> End {
    let mut watch = Watch::new(timer);
    let mut asked = false;
    let mut gathering = pin!(None);
    std::future::poll_fn(|cx| {
        // Answers that are ready one after the other leave in one write: the runtime looks once more what has come.
        if client.exchanges() >= GATHERED {
            if gathering.is_none() {
                gathering.set(Some(tokio::task::yield_now()));
            }
            if let Some(more) = gathering.as_mut().as_pin_mut() {
                ready!(more.poll(cx));
            }
            gathering.set(None);
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    // In a box: what is spawned is moved nine times.
                    tokio::task::spawn_local(Spare::boxed(|| {
                        stream::serve(client.clone(), request, respond)
                    }));
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(End::Done(Err(error))),
                Poll::Ready(None) => return Poll::Ready(End::Done(Ok(()))),
                Poll::Pending => {}
            }
            if let Err(error) = wire.send(cx) {
                return Poll::Ready(End::Broken(error));
            }
            let leaving = client.is_leaving(cx) || client.is_unwanted() || client.floods();
            let expired = match watch.poll(cx, client, wire) {
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
            connection.graceful_shutdown();
        }
    })
    .await
}
