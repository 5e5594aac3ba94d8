//! `RequestMirror`: copies of requests, whose answers nobody sees.
//!
//! A copy is made of a request as it goes to its backend. Its body is copied while the backend takes it; a mirror that
//! can't keep up loses its copy, and the request never waits for one. Copies run in tasks of their own, a bounded number
//! of them per thread, and end with the process.

use crate::body::{Inbound, Source};
use crate::rejection::Rejection;
use crate::router::Mirror;
use crate::runtime::Thread;
use crate::timer::{Deadline, Timer};
use crate::upstream::forward::{Answer, Body, Times, forward};
use crate::upstream::h1::{Framing, RequestHead};
use crate::upstream::pick::Choice;
use crate::upstream::{BackendState, Way};
use http::{HeaderMap, Method};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

/// Copies that a thread has under way; beyond that, requests go uncopied.
const AT_ONCE: usize = 1024;
/// How long a copy may take, with its answer.
const LONGEST: Duration = Duration::from_secs(60);

/// A request head that outlives its request.
struct Head {
    method: Method,
    target: String,
    headers: HeaderMap,
    framing: Framing,
}

/// Sends copies of a request to those of the mirrors that get one, by their share.
pub(crate) fn send<'a>(
    thread: &Rc<Thread>,
    mirrors: impl Iterator<Item = &'a Mirror>,
    way: impl Fn(&BackendState) -> Result<Way, Rejection>,
    head: &RequestHead<'_>,
    body: &mut Option<Inbound>,
) {
    // What follows a WebSocket's handshake is a conversation.
    if head.websocket {
        return;
    }
    for mirror in mirrors.filter(|mirror| mirror.wants(thread.random())) {
        if thread.mirrored.get() >= AT_ONCE {
            tracing::debug!(backend = %mirror.backend.id(), "too many mirrored requests under way: one is left out");
            return;
        }
        let backend = mirror.backend.clone();
        let way = match way(&backend) {
            Ok(way) => way,
            Err(why) => {
                tracing::debug!(backend = %backend.id(), why = why.reason(), "a request can't be mirrored");
                continue;
            }
        };
        let place = Place::take(thread);
        let copy = Head {
            method: head.method.clone(),
            target: head.target.to_owned(),
            headers: head.headers.clone(),
            framing: head.framing,
        };
        let body = body.as_mut().map(Inbound::copy);
        tokio::task::spawn_local(async move { run(&place.0, &backend, way, copy, body).await });
    }
}

/// One of the copies that a thread has under way.
struct Place(Rc<Thread>);

impl Place {
    fn take(thread: &Rc<Thread>) -> Self {
        thread.mirrored.set(thread.mirrored.get() + 1);
        Self(thread.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mirrored.set(self.0.mirrored.get() - 1);
    }
}

async fn run(
    thread: &Rc<Thread>,
    backend: &Arc<BackendState>,
    way: Way,
    copy: Head,
    mut body: Option<Inbound>,
) {
    let Head { method, target, headers, framing } = &copy;
    let head = RequestHead::own(method, target, headers, *framing);
    let until = thread.wheel.after(LONGEST);
    let limits = &thread.limits;
    let times = Times { request: until, attempt: None, body: limits.body, stream: limits.stream };
    match forward(thread, backend, way, &head, &mut body, times, &Choice::Any).await {
        Ok(answer) => discard(thread, answer, until).await,
        Err(why) => tracing::debug!(backend = %backend.id(), why = why.reason(), "a mirrored request failed"),
    }
}

/// Reads an answer to its end, so that its connection can be used again.
async fn discard(thread: &Rc<Thread>, answer: Answer, until: Deadline) {
    let Body::Plain(mut source) = answer.body else { return };
    let timer = Timer::new(&thread.wheel);
    let read = poll_fn(|cx| {
        loop {
            let frame = match &mut source {
                Source::Empty | Source::Whole(_) => return Poll::Ready(()),
                Source::Http1(download) => ready!(download.poll_frame(cx)),
                Source::Http2(download) => ready!(download.poll_frame(cx)),
            };
            if !matches!(frame, Some(Ok(_))) {
                return Poll::Ready(());
            }
        }
    });
    // Late is as good as never: dropping it ends the connection.
    let _ = timer.bound(until, read).await;
}
