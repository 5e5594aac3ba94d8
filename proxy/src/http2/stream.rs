//! One request over HTTP/2: answered by [`crate::request`], and written as the client makes room for it.

use super::Body;
use crate::body::{Inbound, Outbound};
use crate::connection::Client;
use crate::headers::{Upgrade, prepare_response, spare_parts};
use crate::hints::Hints;
use crate::http1;
use crate::request;
use crate::spare_box::Spare;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Serves one request to its end.
pub(super) async fn serve(
    client: Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let body = Body::of(body, &parts.headers).map(|body| Inbound::http2(body, &parts.headers, &client));
    let hints = client.headers().early_hints().then(Rc::<Hints>::default);
    let mut boxed = spare_parts();
    *boxed = parts;
    let mut answering = Spare::boxed(|| request::answer(client.clone(), boxed, body, None, hints.clone()));
    let answer = std::future::poll_fn(|cx| {
        let answer = Pin::new(&mut answering).poll(cx);
        // They may have come together with the answer.
        hints.iter().flat_map(|hints| hints.take()).for_each(|fields| hint(&mut respond, fields));
        if let Poll::Ready(answer) = answer {
            return Poll::Ready(Some(answer));
        }
        // A client that gives up takes its request with it.
        respond.poll_reset(cx).map(|_| None)
    })
    .await;
    drop(answering);
    if let Some(answer) = answer {
        // Whoever reset the stream knows why.
        let _ = write(respond, answer).await;
    }
}

/// Passes on what a backend says ahead of its answer (RFC 8297).
fn hint(respond: &mut SendResponse<Bytes>, mut fields: HeaderMap) {
    prepare_response(&mut fields, Upgrade::None);
    fields.remove(CONTENT_LENGTH);
    let mut hint = Response::new(());
    *hint.status_mut() = StatusCode::EARLY_HINTS;
    *hint.headers_mut() = fields;
    // The answer itself will show what is wrong with the stream.
    let _ = respond.send_informational(hint);
}

async fn write(mut respond: SendResponse<Bytes>, answer: request::Response) -> Result<(), h2::Error> {
    let request::Response { status, headers, body, .. } = answer;
    let mut headers = headers.into_map();
    headers.remove(CONNECTION);
    if !headers.contains_key(DATE) {
        headers.insert(DATE, http1::date());
    }
    let ended = body.is_end_stream();
    if !ended && let Some(length) = body.size_hint().exact() {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let mut head = Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = headers;
    let stream = respond.send_response(head, ended)?;
    if ended {
        return Ok(());
    }
    let mut writing = Writing { stream, body };
    std::future::poll_fn(|cx| writing.poll(cx)).await
}

/// A body on its way.
struct Writing {
    stream: SendStream<Bytes>,
    body: Outbound,
}

impl Writing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            ready!(self.poll_room(cx))?;
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                // It must not look like the end.
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Ok(()));
                }
                None => return Poll::Ready(self.stream.send_data(Bytes::new(), true)),
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = self.body.is_end_stream();
                    self.stream.send_data(data, last)?;
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.stream.send_trailers(trailers));
                }
            }
        }
    }

    /// Waits until the client takes something; pieces larger than it takes at once wait in h2.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(room) => {
                    room?;
                }
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        match self.stream.poll_reset(cx) {
            Poll::Ready(reason) => Poll::Ready(Err(reason?.into())),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}
