//! The body of an answer, read as the client takes it, while the rest of the request may still be on its way.
//!
//! A body that is cut short is an error, never an end: the client must see that something is missing (security.md
//! §1, §3). A connection that is in order at the end goes [`Home`]; bytes past the end close it.

use super::exchange::Bounds;
use super::head::Malformed;
use super::upload::{SendError, Upload};
use super::{Connection, Home};
use crate::body::Broken;
use crate::http1::{Decode, Piece};
use crate::timer::Deadline;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::io;
use std::task::{Context, Poll, ready};

/// What follows the head of an answer.
pub(crate) enum Body<H: Home> {
    /// Nothing.
    Empty,
    /// All of it came with the head; the connection is already home.
    Whole(Bytes),
    /// It is read on demand.
    Streamed(Box<Download<H>>),
    /// Another protocol: the answer was 101 to a request for a WebSocket.
    Switched(Box<Connection>, H),
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutShort {
    /// The backend closed the connection.
    #[error("backend closed the connection in the midst of its answer")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The body breaks the protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A timeout of the rule passed, or the backend was silent for too long.
    #[error("answer took too long")]
    Timeout,
    /// The client broke off its request.
    #[error("request body: {0}")]
    Client(Broken),
    /// An HTTP/2 stream of the backend failed.
    #[error(transparent)]
    Http2(hyper::Error),
}

/// A body on its way.
pub(crate) struct Download<H: Home> {
    /// Absent once the end, or an error, was seen.
    parts: Option<(Connection, Upload, H)>,
    decode: Decode,
    keep_alive: bool,
    bounds: Bounds,
    /// When silence is too long; set anew when something moves.
    silent: Option<Deadline>,
}

impl<H: Home> Download<H> {
    pub(super) fn new(
        connection: Connection,
        upload: Upload,
        decode: Decode,
        keep_alive: bool,
        bounds: Bounds,
        home: H,
    ) -> Self {
        let mut download =
            Self { parts: Some((connection, upload, home)), decode, keep_alive, bounds, silent: None };
        if download.is_end() {
            download.finish();
        }
        download
    }

    /// Whether the whole body was taken.
    pub(crate) fn is_end(&self) -> bool {
        self.decode.is_end()
    }

    /// What is left, if the head said so.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.decode.size_hint()
    }

    /// The next piece. After an error, or the end, `None` for ever.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let Some((connection, upload, _)) = &mut self.parts else { return Poll::Ready(None) };
        // What goes wrong in sending shows in what is read; only the client's doing ends the exchange.
        if let Poll::Ready(Err(SendError::Client(error))) = upload.poll(cx, &mut connection.io) {
            self.parts = None;
            return Poll::Ready(Some(Err(CutShort::Client(error))));
        }
        if upload.take_moved() {
            self.silent = None;
        }
        let outcome = ready!(self.poll_piece(cx));
        match &outcome {
            Err(_) => self.parts = None,
            Ok(_) if self.is_end() => self.finish(),
            Ok(_) => {}
        }
        Poll::Ready(outcome.transpose())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, CutShort>> {
        loop {
            let Some((connection, ..)) = &mut self.parts else { return Poll::Ready(Ok(None)) };
            match self.decode.take(&mut connection.input.bytes).map_err(Malformed::from)? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Piece::End(trailers) => return Poll::Ready(Ok(trailers.map(Frame::trailers))),
                Piece::More => {}
            }
            match connection.input.poll_fill(cx, &mut connection.io) {
                Poll::Ready(Ok(0)) if self.decode.ends_with_connection() => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(CutShort::Closed)),
                Poll::Ready(Ok(_)) => self.silent = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return self.poll_bounds(cx),
            }
        }
    }

    fn poll_bounds<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, CutShort>> {
        let Some((connection, ..)) = &self.parts else { return Poll::Pending };
        let timer = &connection.timer;
        let silent = *self.silent.get_or_insert_with(|| timer.wheel().after(self.bounds.stream));
        let first = silent.min(self.bounds.request).min(self.bounds.attempt);
        ready!(timer.poll_at(cx, first));
        Poll::Ready(Err(CutShort::Timeout))
    }

    fn finish(&mut self) {
        let Some((mut connection, upload, mut home)) = self.parts.take() else { return };
        if !(self.keep_alive && upload.is_done() && connection.input.bytes.is_empty()) {
            return;
        }
        connection.used = true;
        connection.timer.clear();
        home.park(connection);
    }
}
