//! The body of an answer, read as the client takes it, while the rest of the request may still be on its way.
//!
//! A body that is cut short is an error, never an end: the client must see that something is missing (security.md
//! §1, §3). A connection that is in order at the end goes [`Home`]; bytes past the end close it.

use super::chunked::{Decoder, Piece};
use super::exchange::Bounds;
use super::head::{Framing, Malformed};
use super::upload::{SendError, Upload};
use super::{Connection, Home, KEPT_BUFFER};
use crate::body::Broken;
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

enum Decode {
    Length(u64),
    Chunked(Decoder),
    Close,
    End,
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
        framing: Framing,
        keep_alive: bool,
        bounds: Bounds,
        home: H,
    ) -> Self {
        let decode = match framing {
            Framing::None => Decode::End,
            Framing::Length(length) => Decode::Length(length),
            Framing::Chunked => Decode::Chunked(Decoder::new()),
            Framing::Close => Decode::Close,
        };
        let mut download =
            Self { parts: Some((connection, upload, home)), decode, keep_alive, bounds, silent: None };
        if framing == Framing::None {
            download.finish();
        }
        download
    }

    /// Whether the whole body was taken.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self.decode, Decode::End)
    }

    /// What is left, if the head said so.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.decode {
            Decode::Length(left) => SizeHint::with_exact(left),
            Decode::Chunked(_) | Decode::Close => SizeHint::default(),
            Decode::End => SizeHint::with_exact(0),
        }
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
            match &mut self.decode {
                Decode::End => return Poll::Ready(Ok(None)),
                Decode::Length(left) if !connection.read.is_empty() => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(connection.read.len());
                    *left -= length as u64;
                    let data = connection.read.split_to(length).freeze();
                    if *left == 0 {
                        self.decode = Decode::End;
                    }
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                Decode::Close if !connection.read.is_empty() => {
                    return Poll::Ready(Ok(Some(Frame::data(connection.read.split().freeze()))));
                }
                Decode::Chunked(decoder) => match decoder.decode(&mut connection.read)? {
                    Piece::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                    Piece::End(trailers) => {
                        self.decode = Decode::End;
                        return Poll::Ready(Ok(trailers.map(Frame::trailers)));
                    }
                    Piece::More => {}
                },
                Decode::Length(_) | Decode::Close => {}
            }
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) => match self.decode {
                    Decode::Close => self.decode = Decode::End,
                    Decode::Length(_) | Decode::Chunked(_) | Decode::End => {
                        return Poll::Ready(Err(CutShort::Closed));
                    }
                },
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
        let Some((mut connection, mut upload, mut home)) = self.parts.take() else { return };
        if !(self.keep_alive && upload.is_done() && connection.read.is_empty()) {
            return;
        }
        connection.out = upload.take_buffer();
        connection.out.shrink_to(KEPT_BUFFER);
        connection.used = true;
        connection.timer.clear();
        home.park(connection);
    }
}
