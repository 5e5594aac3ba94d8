//! One request and the head of its answer on one connection.
//!
//! Sends while it listens: a backend may answer, or refuse, before it has the whole body. Interim answers are taken
//! out here (at most 16); 100 releases a body that was held back. What failed says whether the request may be tried
//! again: nothing is sent twice that can't be.

use super::download::Download;
use super::head::{self, Malformed};
use super::upload::{SendError, Upload};
use super::{Body, Connection, Home, RequestHead};
use crate::body::{Broken, Inbound};
use crate::headers::Fields;
use crate::hints::Hints;
use crate::http1::Decode;
use crate::timer::Deadline;
use http::{Method, StatusCode};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Interim answers to one request (security.md §3).
const MAX_INTERIM: u8 = 16;
/// A client that expects 100 gets its body asked for after this time, whether or not the backend said so: many
/// backends never do (RFC 9110 §10.1.1 leaves the time to us; curl waits as long).
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// Times that an exchange must not exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The rule's `request` timeout: an instant.
    pub(crate) request: Deadline,
    /// The rule's `backendRequest` timeout of this try: an instant.
    pub(crate) attempt: Deadline,
    /// Silence of the backend before its answer's head is complete.
    pub(crate) head: Duration,
    /// Silence of the client while its body is read, or of the backend while it takes it.
    pub(crate) body: Duration,
    /// Silence of the backend in the midst of its answer's body.
    pub(crate) stream: Duration,
}

/// Why an exchange has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The backend closed or reset the connection before the head of its answer was complete.
    #[error("connection closed before the answer: {0}")]
    Closed(io::Error),
    /// The answer breaks the protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The client broke off, or its body is malformed.
    #[error("request body: {0}")]
    Client(Broken),
    /// The client's body stalled.
    #[error("request body stalled")]
    ClientStalled,
    /// The backend was silent for too long, or the try took too long.
    #[error("no answer in time")]
    Timeout,
    /// The request took too long.
    #[error("request timeout")]
    RequestTimeout,
}

/// A failed exchange: the connection is gone.
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    /// The request body, when none of it was used up.
    pub(crate) body: Option<Inbound>,
    /// Whether a part of the body was used up: the request can't be sent again.
    pub(crate) body_taken: bool,
    /// Whether any byte of the request may have reached the backend.
    pub(crate) sent: bool,
    /// Whether any byte of an answer came.
    pub(crate) answered: bool,
    /// Whether the connection had carried an exchange before.
    pub(crate) used: bool,
}

/// The head of an answer, and what follows it.
pub(crate) struct Answer<H: Home> {
    pub(crate) status: StatusCode,
    pub(crate) headers: Fields,
    pub(crate) body: Body<H>,
}

/// A request on its way.
pub(crate) struct Exchange<H: Home> {
    connection: Connection,
    upload: Upload,
    method: Method,
    websocket: bool,
    bounds: Bounds,
    /// Where the connection goes.
    home: H,
    interim: u8,
    answered: bool,
    /// Why the rest of the request can't be sent.
    broken: Option<io::Error>,
    /// When silence is too long; set anew when something moves.
    silent: Option<Deadline>,
    continue_at: Deadline,
}

impl<H: Home> Exchange<H> {
    /// Begins an exchange; nothing is sent before [`Exchange::poll_head`].
    pub(crate) fn new(
        connection: Connection,
        head: &RequestHead<'_>,
        body: Option<Inbound>,
        bounds: Bounds,
        home: H,
    ) -> Self {
        let upload = Upload::new(head, body);
        let continue_at = match upload.is_expecting() {
            true => connection.timer.wheel().after(CONTINUE_AFTER),
            false => Deadline::NEVER,
        };
        Self {
            connection,
            upload,
            method: head.method.clone(),
            websocket: head.websocket,
            bounds,
            home,
            interim: 0,
            answered: false,
            silent: None,
            broken: None,
            continue_at,
        }
    }

    /// Sends the request and waits for the answer's head. [`Exchange::end`] wants to know what came of it: that takes the
    /// exchange, and a future that held it would be twice its size.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        hints: Option<&Hints>,
    ) -> Poll<Result<head::Head, Failure>> {
        loop {
            self.poll_upload(cx)?;
            match self.poll_answer(cx, hints) {
                Poll::Ready(Ok(Some(head))) => return Poll::Ready(Ok(head)),
                // The body was released: back to sending.
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => match self.poll_bounds(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// The answer, and the body that follows its head.
    pub(crate) fn end(self, outcome: Result<head::Head, Failure>) -> Result<Answer<H>, Failed> {
        match outcome {
            Ok(head) => self.answered(head),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    fn answered(mut self, head: head::Head) -> Result<Answer<H>, Failed> {
        let head::Head { status, headers, body, keep_alive } = head;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            if !self.websocket {
                return Err(self.failed(Malformed::Upgrade.into()));
            }
            let body = Body::Switched(Box::new(self.connection), self.home);
            return Ok(Answer { status, headers, body });
        }
        if self.upload.is_done()
            && let Some(body) = self.complete(&body)
        {
            let reusable = keep_alive && self.connection.input.bytes.is_empty();
            self.connection.used = true;
            self.connection.timer.clear();
            if reusable {
                self.home.park(self.connection);
            }
            return Ok(Answer { status, headers, body });
        }
        let download = Download::new(self.connection, self.upload, body, keep_alive, self.bounds, self.home);
        Ok(Answer { status, headers, body: Body::Streamed(Box::new(download)) })
    }

    /// The whole body, when it arrived with the head.
    fn complete(&mut self, body: &Decode) -> Option<Body<H>> {
        let read = &mut self.connection.input.bytes;
        match *body {
            Decode::End => Some(Body::Empty),
            Decode::Length(length) if length <= read.len() as u64 => {
                Some(Body::Whole(read.split_to(length as usize).freeze()))
            }
            Decode::Length(_) | Decode::Chunked(_) | Decode::Close => None,
        }
    }

    fn failed(self, failure: Failure) -> Failed {
        let sent = self.upload.has_begun();
        let (body, body_taken) = self.upload.into_body();
        let (answered, used) = (self.answered, self.connection.used);
        Failed { failure, body: body.filter(|_| !body_taken), body_taken, sent, answered, used }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.broken.is_none() {
            match self.upload.poll(cx, &mut self.connection.io) {
                Poll::Ready(Err(SendError::Client(error))) => return Err(Failure::Client(error)),
                // The backend may have answered before it closed: what it said is still to be read, and then the
                // end or the error shows there, too.
                Poll::Ready(Err(SendError::Backend(error))) => self.broken = Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if self.upload.take_moved() {
            self.silent = None;
        }
        Ok(())
    }

    /// The final head, or `None` after an interim one that released the body.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        hints: Option<&Hints>,
    ) -> Poll<Result<Option<head::Head>, Failure>> {
        loop {
            let read = &mut self.connection.input.bytes;
            if !read.is_empty()
                && let Some(head) = head::parse(read, &self.method)?
            {
                match self.interim(&head)? {
                    Interim::Final => return Poll::Ready(Ok(Some(head))),
                    Interim::Continue => return Poll::Ready(Ok(None)),
                    Interim::Hint => {
                        if let Some(hints) = hints {
                            hints.add(head.headers.into_map());
                        }
                    }
                    Interim::Dropped => {}
                }
                // What follows may be there already.
                continue;
            }
            let Connection { input, io, .. } = &mut self.connection;
            match ready!(input.poll_fill(cx, io)) {
                Ok(0) => {
                    let error = self.broken.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err(Failure::Closed(error)));
                }
                Ok(_) => {
                    self.answered = true;
                    self.silent = None;
                }
                Err(error) => return Poll::Ready(Err(Failure::Closed(error))),
            }
        }
    }

    fn interim(&mut self, head: &head::Head) -> Result<Interim, Malformed> {
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Interim::Final);
        }
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(Malformed::Interim);
        }
        if head.status == StatusCode::CONTINUE && self.upload.is_expecting() {
            self.release();
            return Ok(Interim::Continue);
        }
        Ok(if head.status == StatusCode::EARLY_HINTS { Interim::Hint } else { Interim::Dropped })
    }

    fn release(&mut self) {
        self.continue_at = Deadline::NEVER;
        self.upload.go_on();
        self.silent = None;
    }

    /// Ready with `Ok` when the body was released.
    fn poll_bounds(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let wheel = self.connection.timer.wheel();
        let awaiting = self.upload.is_done() || self.broken.is_some();
        let bound = if awaiting { self.bounds.head } else { self.bounds.body };
        let silent = *self.silent.get_or_insert_with(|| wheel.after(bound));
        let Bounds { request, attempt, .. } = self.bounds;
        let first = request.min(attempt).min(silent).min(self.continue_at);
        ready!(self.connection.timer.poll_at(cx, first));
        if first == self.continue_at {
            self.release();
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(if first == request {
            Failure::RequestTimeout
        } else if first == attempt || awaiting || !self.upload.awaits_client() {
            Failure::Timeout
        } else {
            Failure::ClientStalled
        }))
    }
}

/// What an answer's head is.
enum Interim {
    /// It isn't interim.
    Final,
    /// 100 to a request whose body was held back.
    Continue,
    /// It says ahead what the answer will need.
    Hint,
    /// Another one, which ends here.
    Dropped,
}
