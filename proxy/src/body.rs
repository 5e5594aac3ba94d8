//! Bodies: the client's on its way in, the backend's or our own on its way out.
//!
//! Both count bytes; the outgoing one carries the [`Finish`] of its request, which is told when the last byte is handed
//! over or when the client goes away. Nothing is buffered here, but what may be sent again ([`replay`]).

pub(crate) mod replay;

use crate::connection::Client;
use crate::finish::Finish;
use crate::http1;
use crate::http2;
use crate::limits;
use crate::rejection::{Malformed, Rejection};
use crate::upstream::h1::{CutShort, Download};
use crate::upstream::h2;
use crate::upstream::pool::Lease;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Frames by which a copy of a body may be behind.
const COPIED: usize = 16;

/// The body of a client's request, or a copy of it.
pub(crate) struct Inbound {
    from: From,
    received: Rc<Received>,
    /// Whether all of it was read: a chunked body doesn't know by itself.
    ended: bool,
    /// None: it may take its time.
    pace: Option<Pace>,
    /// Who gets a copy. Most bodies aren't copied.
    copies: Option<Box<Copies>>,
}

/// How much of a body has come, and may come. Behind a pointer that is there in any case: bodies are moved often.
pub(crate) struct Received {
    bytes: Cell<u64>,
    most: Cell<u64>,
    /// What policies in shadow would let come.
    tried: Cell<u64>,
}

impl Received {
    /// How many bytes have come.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether more has come than policies in shadow would let.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes.get() > self.tried.get()
    }

    /// Whether more has come than may.
    fn add(&self, bytes: usize) -> bool {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.bytes.get() > self.most.get()
    }
}

impl Default for Received {
    fn default() -> Self {
        Self { bytes: Cell::new(0), most: Cell::new(u64::MAX), tried: Cell::new(u64::MAX) }
    }
}

/// Where a request body comes from.
enum From {
    Http1(http1::Body, Rc<Client>),
    // In a box: bodies are moved often, and it is four times as large.
    Http2(Box<http2::Body>, Rc<Client>),
    // In a box: copies are few, and bodies are moved often.
    Copy(Box<Copy>),
    Kept(replay::Reading),
    /// It was read before.
    Whole(Bytes),
}

/// A body of which each piece comes when another one has had it.
struct Copy {
    pieces: mpsc::Receiver<Piece>,
    /// That of the original when it was copied.
    hint: SizeHint,
}

/// Those who get copies.
#[derive(Default)]
struct Copies(Vec<mpsc::Sender<Piece>>);

impl Copies {
    /// `None` is the end. A copy that is too far behind gets no more, and breaks.
    fn feed(&mut self, frame: Option<&Frame<Bytes>>) {
        self.0.retain(|copy| {
            let piece = frame.map_or(Some(Piece::End), |frame| same(frame).map(Piece::Frame));
            piece.is_some_and(|piece| copy.try_send(piece).is_ok())
        });
    }
}

/// A piece of a body that is copied.
enum Piece {
    Frame(Frame<Bytes>),
    /// All of it was there.
    End,
}

/// How long a client let us wait for its body.
#[derive(Default)]
struct Pace {
    /// Microseconds.
    waited: u64,
    since: Option<Instant>,
}

impl Pace {
    /// Nothing is there yet.
    fn wait(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether a body comes too slowly of which `received` bytes have come. Waiting for `free` is allowed.
    fn is_too_slow(&mut self, received: u64, free: Duration) -> bool {
        let Some(since) = self.since.take() else { return false };
        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited = self.waited.saturating_add(waited);
        let expected = u128::from(self.waited) * u128::from(limits::BODY_RATE) / 1_000_000;
        Duration::from_micros(self.waited) > free && u128::from(received) < expected
    }
}

/// Why a client's body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The client broke off, or its body is malformed.
    #[error(transparent)]
    Http1(#[from] http1::Broken),
    /// The same over HTTP/2.
    #[error(transparent)]
    Http2(Box<::h2::Error>),
    /// It comes so slowly that it may be meant to hold us up.
    #[error("slower than {} bytes a second", limits::BODY_RATE)]
    TooSlow,
    /// More comes than it may have.
    #[error("more bytes than a policy allows")]
    TooLarge,
    /// It is a copy, and the original broke off, or was too fast.
    #[error("the original broke off, or was too fast")]
    Copy,
}

impl Broken {
    /// What the client is told.
    pub(crate) fn rejection(&self) -> Rejection {
        match self {
            Self::Http1(_) | Self::Http2(_) | Self::Copy => Rejection::Malformed(Malformed::Body),
            Self::TooSlow => Rejection::BodyTimeout,
            Self::TooLarge => Rejection::BodyTooLarge,
        }
    }
}

impl Inbound {
    /// The body of a request over HTTP/1.1.
    pub(crate) fn http1(body: http1::Body, headers: &HeaderMap, client: &Rc<Client>) -> Self {
        Self::of(From::Http1(body, client.clone()), pace(headers))
    }

    /// The body of a request over HTTP/2.
    pub(crate) fn http2(body: http2::Body, headers: &HeaderMap, client: &Rc<Client>) -> Self {
        Self::of(From::Http2(Box::new(body), client.clone()), pace(headers))
    }

    fn of(from: From, pace: Option<Pace>) -> Self {
        Self { from, received: Rc::default(), ended: false, pace, copies: None }
    }

    /// A body of which each frame comes when this one has had it. It breaks when it falls more than [`COPIED`] frames
    /// behind: this one never waits.
    pub(crate) fn copy(&mut self) -> Self {
        if let From::Whole(data) = &self.from {
            return Self::whole(data.clone());
        }
        let (sender, pieces) = mpsc::channel(COPIED);
        self.copies.get_or_insert_default().0.push(sender);
        Self::of(From::Copy(Box::new(Copy { pieces, hint: self.size_hint() })), None)
    }

    /// Breaks a body that has more than so many bytes, at once if it is known by now.
    pub(crate) fn bound(&self, most: u64) -> Result<(), Broken> {
        self.received.most.set(most);
        if self.size_hint().lower() > most { Err(Broken::TooLarge) } else { Ok(()) }
    }

    /// Tries a bound: whether it would break the body at once; else [`Received::is_over`] tells at its end.
    pub(crate) fn tries(&self, most: u64) -> Result<(), Broken> {
        if self.size_hint().lower() > most {
            return Err(Broken::TooLarge);
        }
        self.received.tried.set(most);
        Ok(())
    }

    /// Whether it still comes from the client.
    pub(crate) fn is_clients(&self) -> bool {
        match &self.from {
            From::Http1(..) | From::Http2(..) | From::Kept(_) => true,
            From::Copy(_) | From::Whole(_) => false,
        }
    }

    /// A body that was read before.
    pub(crate) fn whole(data: Bytes) -> Self {
        Self::of(From::Whole(data), None)
    }

    /// How many bytes have come; goes on counting.
    pub(crate) fn counter(&self) -> Rc<Received> {
        self.received.clone()
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let (frame, client) = match &mut this.from {
            From::Http1(body, client) => {
                (body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Broken::Http1))), client)
            }
            From::Http2(body, client) => {
                let frame = body.poll_frame(cx);
                (
                    frame.map(|frame| {
                        frame.map(|frame| frame.map_err(|error| Broken::Http2(Box::new(error))))
                    }),
                    client,
                )
            }
            From::Copy(copy) => {
                return Poll::Ready(match ready!(copy.pieces.poll_recv(cx)) {
                    Some(Piece::Frame(frame)) => Some(Ok(frame)),
                    Some(Piece::End) => None,
                    None => Some(Err(Broken::Copy)),
                });
            }
            From::Kept(reading) => return reading.poll_frame(cx),
            From::Whole(data) => {
                let data = std::mem::take(data);
                return Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))));
            }
        };
        let Poll::Ready(frame) = frame else {
            this.pace.iter_mut().for_each(Pace::wait);
            return Poll::Pending;
        };
        this.ended = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers(),
            Some(Err(_)) => false,
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            if this.received.add(data.len()) {
                return Poll::Ready(Some(Err(Broken::TooLarge)));
            }
            let free = client.thread.limits.slow_body;
            if this.pace.as_mut().is_some_and(|pace| pace.is_too_slow(this.received.bytes(), free)) {
                return Poll::Ready(Some(Err(Broken::TooSlow)));
            }
        }
        if let Some(copies) = &mut this.copies
            && !matches!(frame, Some(Err(_)))
        {
            copies.feed(frame.as_ref().and_then(|frame| frame.as_ref().ok()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Http1(body, _) => body.is_end(),
            From::Http2(body, _) => body.is_end(),
            From::Copy(_) => false,
            From::Kept(reading) => reading.is_end(),
            From::Whole(data) => data.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Http1(body, _) => body.size_hint(),
            From::Http2(body, _) => body.size_hint(),
            From::Copy(copy) => copy.hint,
            From::Kept(reading) => reading.hint(),
            From::Whole(data) => SizeHint::with_exact(data.len() as u64),
        }
    }
}

/// Messages of gRPC may be far between.
fn pace(headers: &HeaderMap) -> Option<Pace> {
    let grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    (!headers.get(CONTENT_TYPE).is_some_and(grpc)).then(Pace::default)
}

/// Frames can't be cloned: nobody knows what else may be in them one day.
fn same(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    let data = frame.data_ref().map(|data| Frame::data(data.clone()));
    data.or_else(|| frame.trailers_ref().map(|fields| Frame::trailers(fields.clone())))
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let (client, end) = match &self.from {
            From::Http1(body, client) => (client, body.is_end()),
            From::Http2(body, client) => (client, body.is_end()),
            From::Copy(_) | From::Kept(_) | From::Whole(_) => return,
        };
        if !self.ended && !end {
            client.left_unread();
        }
    }
}

/// Where the bytes of a response come from.
pub(crate) enum Source {
    /// Nowhere: there is no body.
    Empty,
    /// All of it is here.
    Whole(Bytes),
    /// An HTTP/1.1 backend. In a box: most answers come whole, and what they are in is moved a dozen times.
    Http1(Box<Download<Lease>>),
    /// An HTTP/2 backend.
    Http2(Box<h2::Download>),
}

/// The body of a response.
pub(crate) struct Outbound {
    source: Source,
    finish: Option<Finish>,
}

impl Outbound {
    /// A body whose end `finish` hears of.
    pub(crate) fn new(source: Source, finish: Option<Finish>) -> Self {
        Self { source, finish }
    }

    /// Says those fields of its answer that aren't among the others.
    pub(crate) fn say(&self, head: &mut Vec<u8>) {
        if let Some(finish) = &self.finish {
            finish.tell_limits(head);
        }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Empty => None,
            Source::Whole(_) => match std::mem::replace(&mut this.source, Source::Empty) {
                Source::Whole(data) => Some(Ok(Frame::data(data))),
                Source::Empty | Source::Http1(_) | Source::Http2(_) => None,
            },
            Source::Http1(download) => ready!(download.poll_frame(cx)),
            Source::Http2(download) => ready!(download.poll_frame(cx)),
        };
        if let Some(finish) = &mut this.finish {
            match &frame {
                Some(Ok(frame)) => finish.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(error)) => finish.cut_short(error),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Whole(_) => false,
            Source::Http1(download) => download.is_end(),
            Source::Http2(download) => download.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Source::Http1(download) => download.size_hint(),
            Source::Http2(download) => download.size_hint(),
        }
    }
}
