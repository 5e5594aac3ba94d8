//! The body of a request, read by whoever takes it, straight from the connection. The connection's task reads nothing while
//! there is some of it left.

use super::CONTINUE;
use super::chunked::{self, Piece};
use super::wire::Wire;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client closed the connection, or its connection is over.
    #[error("connection closed in the midst of the body")]
    Closed,
    /// It breaks the protocol.
    #[error(transparent)]
    Malformed(#[from] chunked::Malformed),
}

/// A body on its way.
pub(crate) struct Body(pub(super) Rc<Wire>);

impl Body {
    /// The next piece.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut open = self.0.open();
        let Some(wire) = open.as_mut() else { return Poll::Ready(Some(Err(Broken::Closed))) };
        if std::mem::take(&mut wire.expects) {
            wire.output.head().extend_from_slice(CONTINUE);
            // What the client doesn't take at once the connection's task writes.
            if wire.output.poll_flush(cx, &mut wire.io)?.is_pending() {
                wire.wake_other(cx);
            }
        }
        loop {
            match wire.decode.take(&mut wire.input.bytes)? {
                Piece::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Piece::End(trailers) => {
                    // From now on the connection's task listens.
                    wire.wake_other(cx);
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Piece::More => {}
            }
            if ready!(wire.input.poll_fill(cx, &mut wire.io))? == 0 {
                return Poll::Ready(Some(Err(Broken::Closed)));
            }
        }
    }

    /// Whether all of it was taken.
    pub(crate) fn is_end(&self) -> bool {
        self.0.open().as_ref().is_some_and(|wire| wire.decode.is_end())
    }

    /// What is left, if the head said so.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.0.open().as_ref().map_or_else(SizeHint::default, |wire| wire.decode.size_hint())
    }
}
