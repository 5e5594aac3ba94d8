//! The request on its way to an HTTP/1.1 backend: head, body frames as the client sends them, chunked or counted.
//!
//! Back-pressure: the next frame is asked of the client only when the last one is written. A head with a small body
//! goes out in one write. Must not know what comes back.

use super::encode::{self, Framing};
use crate::body::{Broken, Inbound};
use crate::http1::Output;
use crate::transport::Transport;
use http::HeaderMap;
use http_body::Body;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body of at most so many bytes is awaited so that it leaves in one write with the head: it came, most likely, in
/// one packet with the client's head.
const GATHERED: u64 = 16 * 1024;

/// Why sending stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The backend's connection failed.
    #[error(transparent)]
    Backend(#[from] io::Error),
    /// The client broke off, or its body is malformed.
    #[error(transparent)]
    Client(Broken),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The body stays with the client until the backend says 100 (RFC 9110 §10.1.1).
    Expecting,
    /// Head and first frame leave together.
    Gathering,
    /// Frame by frame.
    Streaming,
    /// All is taken from the client; what is left is in the buffers.
    Flushing,
    Done,
}

/// A request being sent.
pub(super) struct Upload {
    state: State,
    body: Option<Inbound>,
    framing: Framing,
    out: Output,
    /// Whether any frame was taken from the client: then the request can't be sent again.
    taken: bool,
    /// Whether anything was taken since [`Upload::take_moved`].
    moved: bool,
}

impl Upload {
    /// A request to be sent. A body that the client waits to be asked for is held back until [`Upload::go_on`].
    pub(super) fn new(head: &encode::Head<'_>, body: Option<Inbound>) -> Self {
        let mut out = Output::with_room();
        encode::write(head, out.head());
        let state = match (&body, head.framing) {
            (None, _) | (_, Framing::None | Framing::Length(0)) => State::Flushing,
            (Some(_), _) if head.expecting => State::Expecting,
            (Some(_), Framing::Length(length)) if length <= GATHERED => State::Gathering,
            (Some(_), Framing::Length(_) | Framing::Chunked) => State::Streaming,
        };
        let framing = head.framing;
        Self { state, body, framing, out, taken: false, moved: false }
    }

    /// Whether everything has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the body is held back.
    pub(super) fn is_expecting(&self) -> bool {
        self.state == State::Expecting
    }

    /// Whether the client has to move next: nothing waits to be written.
    pub(super) fn awaits_client(&self) -> bool {
        match self.state {
            State::Gathering => true,
            State::Streaming => self.out.is_empty(),
            State::Expecting | State::Flushing | State::Done => false,
        }
    }

    /// Whether any byte has left.
    pub(super) fn has_begun(&self) -> bool {
        self.out.has_begun()
    }

    /// Whether anything moved since this was asked last.
    pub(super) fn take_moved(&mut self) -> bool {
        let written = self.out.take_moved();
        std::mem::take(&mut self.moved) || written
    }

    /// Sends the body that was held back.
    pub(super) fn go_on(&mut self) {
        if self.state == State::Expecting {
            self.state = State::Streaming;
        }
    }

    /// Gives back the body, and whether any of it was taken.
    pub(super) fn into_body(self) -> (Option<Inbound>, bool) {
        (self.body, self.taken)
    }

    /// Sends as much as client and backend allow. Pending also while the body is held back.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Transport) -> Poll<Result<(), SendError>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Gathering => {
                    ready!(self.poll_frame(cx))?;
                    if self.state == State::Gathering {
                        self.state = State::Streaming;
                    }
                }
                State::Expecting | State::Streaming | State::Flushing => {
                    ready!(self.out.poll_flush(cx, io))?;
                    match self.state {
                        State::Flushing => {
                            self.state = State::Done;
                            self.body = None;
                            // Whoever writes next may have its buffer while the backend thinks.
                            self.out.rest();
                        }
                        State::Streaming => ready!(self.poll_frame(cx))?,
                        State::Expecting => return Poll::Pending,
                        State::Gathering | State::Done => {}
                    }
                }
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(body) = &mut self.body else {
            self.end(None);
            return Poll::Ready(Ok(()));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        self.taken = true;
        self.moved = true;
        match frame.transpose().map_err(SendError::Client)? {
            None => self.end(None),
            Some(frame) => match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    self.out.push(data, self.framing == Framing::Chunked);
                    if last {
                        self.end(None);
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.end(Some(&trailers));
                    }
                }
            },
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.state = State::Flushing;
        if self.framing == Framing::Chunked {
            self.out.end_chunks(trailers);
        }
    }
}
