//! The body of a request over HTTP/2, as the client sends it. What is taken makes room for more.

use bytes::Bytes;
use h2::RecvStream;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Frame, SizeHint};
use std::task::{Context, Poll, ready};

/// A body on its way.
pub(crate) struct Body {
    stream: RecvStream,
    /// What is left of what the head promised; h2 holds the client to it.
    left: Option<u64>,
    /// Whether all data was taken: trailers may follow.
    trailing: bool,
}

impl Body {
    /// Of a request with these fields. None: there is none.
    pub(super) fn of(stream: RecvStream, headers: &HeaderMap) -> Option<Self> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        (!stream.is_end_stream()).then_some(Self { stream, left: length, trailing: false })
    }

    /// The next piece.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.trailing {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.stream.flow_control().release_capacity(data.len())?;
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.trailing = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Whether all of it was taken.
    pub(crate) fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// What is left, if the head said so.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
