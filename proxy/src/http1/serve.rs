//! The life of a client's HTTP/1.1 connection: wait for a head, have it answered, write the answer, and again; then its end.
//!
//! It keeps the time: for the next request, for a head to arrive, for a client that takes nothing any more. Backends and bodies
//! that come have bounds of their own.

use super::answer::{self, Asked, Framing};
use super::body::Body;
use super::head::{Head, Reader};
use super::wire::{Open, Wire};
use crate::body::{Inbound, Outbound};
use crate::connection::{self, Client};
use crate::rejection::Rejection;
use crate::request::{self, Response};
use crate::spare_box::Spare;
use crate::timer::{Deadline, Timer};
use crate::transport::Transport;
use bytes::BytesMut;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Serves a client to its end. `begun`: what was read of it before.
pub(crate) async fn serve(client: Rc<Client>, io: Transport, begun: BytesMut, timer: Timer) {
    let wire = Rc::new(Wire::new(io, begun));
    let mut reader = Reader::default();
    let mut waiting = Waiting::First;
    let end = loop {
        let head = match next(&wire, &client, &timer, &mut reader, waiting).await {
            Next::Head(head) => head,
            Next::Refused(rejection) => break End::Refused(rejection),
            Next::Gone => break End::Gone,
        };
        timer.clear();
        waiting = Waiting::Again;
        match exchange(&wire, &client, &timer, head).await {
            Exchanged::Kept => {}
            Exchanged::Last => break End::Last,
            Exchanged::Switched => break End::Switched,
            Exchanged::Cut => break End::Cut,
        }
    };
    // In a box, as all that an idle connection is better without.
    if let Some(open) = wire.close() {
        Box::pin(finish(&client, open, end, timer)).await;
    }
}

/// Why there is no further request.
enum End {
    /// The last answer is written.
    Last,
    /// What came isn't a request.
    Refused(Rejection),
    /// Another protocol follows.
    Switched,
    /// The client has left between requests, or waited for too long, or is asked to go.
    Gone,
    /// An answer ends before its end.
    Cut,
}

async fn finish(client: &Rc<Client>, open: Open, end: End, timer: Timer) {
    let Open { io, input, .. } = open;
    match end {
        End::Switched => connection::carry(client, io, input.bytes, timer).await,
        End::Refused(rejection) => {
            tracing::debug!(peer = %client.peer, reason = rejection.reason(), "not a request");
            client.thread.metrics.rejected(rejection);
            let mut answer = Vec::new();
            answer::refuse(&mut answer, rejection);
            connection::linger(io, &answer, &timer).await;
        }
        End::Last if client.has_left_unread() => connection::linger(io, &[], &timer).await,
        // What was held for the farewell may find no room at once.
        End::Last => connection::part(io, &timer, client.limits().body).await,
        End::Gone => connection::part(io, &timer, connection::LINGER).await,
        // Without TLS's farewell: it would make a body whole that ends with the connection.
        End::Cut => {}
    }
}

/// What a connection waits for when it waits for a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The first request: its time has begun.
    First,
    /// Another one, perhaps.
    Again,
    /// The rest of a head.
    Rest,
}

/// What a client says next.
enum Next {
    Head(Head),
    Refused(Rejection),
    Gone,
}

async fn next(
    wire: &Wire,
    client: &Client,
    timer: &Timer,
    reader: &mut Reader,
    mut waiting: Waiting,
) -> Next {
    let mut deadline = None;
    std::future::poll_fn(|cx| {
        let mut open = wire.open();
        let Some(open) = open.as_mut() else { return Poll::Ready(Next::Gone) };
        loop {
            let bytes = &mut open.input.bytes;
            if !bytes.is_empty() {
                match reader.take(bytes, client.limits()) {
                    Ok(Some(head)) => return Poll::Ready(Next::Head(head)),
                    Ok(None) => {}
                    Err(rejection) => return Poll::Ready(Next::Refused(rejection)),
                }
            }
            match open.input.poll_fill(cx, &mut open.io) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Gone),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        let begun = !open.input.bytes.is_empty();
        // After the read: a request that is already there is still served.
        if !begun && client.is_leaving(cx) {
            return Poll::Ready(Next::Gone);
        }
        if begun && waiting == Waiting::Again {
            (waiting, deadline) = (Waiting::Rest, None);
        }
        let deadline = *deadline.get_or_insert_with(|| match waiting {
            Waiting::Again => client.idle_deadline(),
            Waiting::First | Waiting::Rest => client.head_deadline(),
        });
        match timer.poll_at(cx, deadline) {
            Poll::Pending => Poll::Pending,
            // A client that connected ahead of time and said nothing gets no answer to it.
            Poll::Ready(()) if begun => Poll::Ready(Next::Refused(Rejection::HeadTimeout)),
            Poll::Ready(()) => Poll::Ready(Next::Gone),
        }
    })
    .await
}

/// What became of a request.
enum Exchanged {
    /// There may be another one.
    Kept,
    /// There may not.
    Last,
    Switched,
    /// The client has left, or the answer was cut short.
    Cut,
}

async fn exchange(wire: &Rc<Wire>, client: &Rc<Client>, timer: &Timer, head: Head) -> Exchanged {
    let Head { parts, body, keep_alive, expects, trailers, refused } = head;
    let asked =
        Asked { head: parts.method == Method::HEAD, old: parts.version == Version::HTTP_10, keep_alive };
    let has_body = !body.is_end();
    if let Some(open) = wire.open().as_mut() {
        (open.decode, open.expects) = (body, expects);
        // The head's buffer is free for others from here on.
        open.input.rest();
    }
    let body = has_body.then(|| Inbound::http1(Body(wire.clone()), &parts.headers, client));
    // In a box: its room is a multiple of what an idle connection needs.
    let mut answering = Spare::boxed(|| request::answer(client.clone(), parts, body, refused, None));
    let answer = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = Pin::new(&mut answering).poll(cx) {
            return Poll::Ready(Some(answer));
        }
        match wire.open().as_mut() {
            Some(open) => listen(open, cx).map(|()| None),
            None => Poll::Ready(None),
        }
    })
    .await;
    drop(answering);
    match answer {
        Some(answer) => write(wire, client, timer, asked, trailers, answer).await,
        None => Exchanged::Cut,
    }
}

/// While there is no answer yet: ready when the client has left.
fn listen(open: &mut Open, cx: &mut Context<'_>) -> Poll<()> {
    if !open.output.is_empty()
        && let Poll::Ready(Err(_)) = open.poll_flush(cx)
    {
        return Poll::Ready(());
    }
    open.poll_left(cx)
}

async fn write(
    wire: &Wire,
    client: &Client,
    timer: &Timer,
    asked: Asked,
    trailers: bool,
    answer: Response,
) -> Exchanged {
    let Response { status, headers, close, body } = answer;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let (framing, keep_alive) = match wire.open().as_mut() {
        Some(open) => {
            let length = body.size_hint().exact();
            let keep_alive = asked.keep_alive && !close && !client.is_asked_to_leave();
            let asked = Asked { keep_alive, ..asked };
            let out = open.output.head();
            answer::write(out, status, &headers, |out| body.say(out), length, asked)
        }
        None => return Exchanged::Cut,
    };
    headers.keep();
    let body = (framing != Framing::None).then_some(body);
    let mut writing =
        Writing { body, framing, trailers, last: !keep_alive && !switches, begun: false, silent: None };
    let outcome = std::future::poll_fn(|cx| writing.poll(cx, wire, client, timer)).await;
    timer.clear();
    drop(writing);
    let mut open = wire.open();
    let Some(open) = open.as_mut() else { return Exchanged::Cut };
    open.output.rest();
    match outcome {
        Err(_) => Exchanged::Cut,
        Ok(()) if switches => Exchanged::Switched,
        Ok(()) if keep_alive && !client.has_left_unread() && open.decode.is_end() => Exchanged::Kept,
        Ok(()) => Exchanged::Last,
    }
}

/// An answer on its way.
struct Writing {
    /// What is still to be taken of it. Let go of with its last piece, before that is written: a client that has all of an
    /// answer finds its request counted, and no longer in flight.
    body: Option<Outbound>,
    framing: Framing,
    /// Whether the client takes trailers.
    trailers: bool,
    /// Whether the connection ends with it.
    last: bool,
    /// Whether any of it has left.
    begun: bool,
    /// When a client that takes nothing is given up.
    silent: Option<Deadline>,
}

impl Writing {
    /// Ready when all is written, or nothing more can be.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wire: &Wire,
        client: &Client,
        timer: &Timer,
    ) -> Poll<io::Result<()>> {
        loop {
            // Not while the connection is held: the request's body may still be read by whom the answer comes from.
            let body = self.poll_body(cx, wire);
            let mut open = wire.open();
            let Some(open) = open.as_mut() else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            // Only one that leaves in one piece: whoever takes a long one slowly has more time for it than for a farewell.
            if self.last && self.body.is_none() && !self.begun && !client.has_left_unread() {
                open.io.cork();
            }
            let flushed = open.poll_flush(cx)?;
            let waits = body?.is_pending();
            if open.output.take_moved() {
                self.begun = true;
                self.silent = None;
            }
            if flushed.is_pending() {
                let deadline = *self.silent.get_or_insert_with(|| timer.wheel().after(client.limits().body));
                return timer.poll_at(cx, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()));
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return open.poll_left(cx).map(|()| Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }

    /// Takes the next piece, if there is room for it.
    fn poll_body(&mut self, cx: &mut Context<'_>, wire: &Wire) -> Poll<io::Result<()>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        if wire.open().as_ref().is_some_and(|open| open.output.holds_body()) {
            return Poll::Ready(Ok(()));
        }
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
        let mut held = wire.open();
        let Some(open) = held.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let chunked = self.framing == Framing::Chunked;
        let trailers = match frame {
            // It must not look like the end.
            Some(Err(cut)) => return Poll::Ready(Err(io::Error::other(cut))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    open.output.push(data, chunked);
                    if !body.is_end_stream() {
                        return Poll::Ready(Ok(()));
                    }
                    None
                }
                Err(frame) => frame.into_trailers().ok().filter(|_| self.trailers),
            },
            None => None,
        };
        if chunked {
            open.output.end_chunks(trailers.as_ref());
        }
        // Not while the connection is held: with the answer may go the request's body, which looks at it.
        drop(held);
        self.body = None;
        Poll::Ready(Ok(()))
    }
}
