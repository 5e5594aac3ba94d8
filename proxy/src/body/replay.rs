//! A client's body that can be sent more than once: what was read of it is kept, up to a bound.
//!
//! Nothing is read ahead: each [`Reading`] gets first what is kept, then what the client sends. Beyond the bound nothing is
//! kept any more; the reading that is under way goes on, but there can't be another one.

use super::{Broken, Inbound, same};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Bytes that are kept: forms, small documents and calls. Uploads are sent once.
const KEPT: usize = 64 * 1024;
/// What a frame counts for beside its bytes, so that many small ones are bounded, too.
const FRAME: usize = 64;

/// A body that can be read again.
pub(crate) struct Replay(Rc<RefCell<Kept>>);

struct Kept {
    client: Inbound,
    hint: SizeHint,
    frames: Vec<Frame<Bytes>>,
    size: usize,
    /// Whether the client's end was seen.
    ended: bool,
    /// Whether more came than is kept.
    overflown: bool,
    /// Only the newest reading gets anything: an abandoned one may still be with a connection's task.
    newest: u32,
}

/// One way through the body.
pub(crate) struct Reading {
    kept: Rc<RefCell<Kept>>,
    number: u32,
    next: usize,
}

impl Replay {
    /// Keeps a body of which nothing was read yet.
    pub(crate) fn new(client: Inbound) -> Self {
        let hint = client.size_hint();
        let kept =
            Kept { client, hint, frames: Vec::new(), size: 0, ended: false, overflown: false, newest: 0 };
        Self(Rc::new(RefCell::new(kept)))
    }

    /// The body from its beginning; `None` when that isn't there any more.
    pub(crate) fn again(&self) -> Option<Inbound> {
        let mut kept = self.0.borrow_mut();
        if kept.overflown {
            return None;
        }
        kept.newest += 1;
        let reading = Reading { kept: self.0.clone(), number: kept.newest, next: 0 };
        Some(Inbound::of(super::From::Kept(reading), None))
    }

    /// Whether [`Replay::again`] would have one.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.borrow().overflown
    }
}

impl Kept {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        self.size += FRAME + frame.data_ref().map_or(0, Bytes::len);
        match same(frame) {
            Some(copy) if self.size <= KEPT && !self.overflown => self.frames.push(copy),
            Some(_) | None => {
                self.overflown = true;
                self.frames = Vec::new();
            }
        }
    }
}

impl Reading {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut kept = self.kept.borrow_mut();
        if self.number != kept.newest {
            return Poll::Ready(Some(Err(Broken::Copy)));
        }
        // What is kept was read by this one, too, when it overflows.
        if let Some(frame) = kept.frames.get(self.next).and_then(same) {
            self.next += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut kept.client).poll_frame(cx));
        match &frame {
            None => kept.ended = true,
            Some(Ok(frame)) => {
                kept.keep(frame);
                self.next += 1;
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end(&self) -> bool {
        let kept = self.kept.borrow();
        (kept.overflown || self.next == kept.frames.len()) && (kept.ended || kept.client.is_end_stream())
    }

    pub(super) fn hint(&self) -> SizeHint {
        self.kept.borrow().hint
    }
}
