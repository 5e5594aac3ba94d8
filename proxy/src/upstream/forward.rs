//! One request to one backend: picks an endpoint, sends, and tries again where that is safe.
//!
//! 1. Pick of two endpoints the one with fewer requests in flight; never one that this request failed on.
//! 2. Take an idle connection to it, or open one. An endpoint that can't be reached costs nothing but time: nothing
//!    was sent, so the next one is tried, as long as [`crate::limits::Limits::connect`] lasts.
//! 3. Send. A connection that closes without a byte of answer is the usual end of a pooled one: the request is sent
//!    again if nothing of it was sent, or if it is idempotent and none of its body was used. A request with a body
//!    that was begun is sent once.
//!
//! A backend with a policy is asked first whether the request may go, and told what came of it ([`super::health`]).
//!
//! Must not know routes, filters or clients.

use super::connect::{self, ConnectError, connect, connect_http1};
use super::endpoint::Member;
use super::h1::{self, Bounds, Connection, Exchange, Failure, RequestHead};
use super::health::{Breaker, Health, Kept, Sent, Watching, ends_in_trailers};
use super::identity::{Identity, Speaks};
use super::line::{Seated, Wait};
use super::pick::{Choice, choose};
use super::pool::{Connected, Lease};
use super::{BackendState, Way, h2};
use crate::body::{Inbound, Source};
use crate::headers::Fields;
use crate::model::BackendProtocol;
use crate::rejection::{Malformed, Rejection};
use crate::runtime::Thread;
use crate::timer::{Deadline, Timer};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use std::borrow::Borrow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Times a request is sent again after a connection closed on it. Two: the one that a restarted backend left in the
/// pool, and one that it closed for being idle.
const MAX_RESENT: usize = 2;

/// Times of a rule for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When the request is over.
    pub(crate) request: Deadline,
    /// How long one try may take.
    pub(crate) attempt: Option<Duration>,
    /// How long a client may be silent in its body, or take nothing of the answer.
    pub(crate) body: Duration,
    /// How long the answer's body may be silent.
    pub(crate) stream: Duration,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Fields,
    pub(crate) body: Body,
    pub(crate) endpoint: SocketAddr,
}

/// What follows the head of an answer.
pub(crate) enum Body {
    /// A body.
    Plain(Source),
    /// The WebSocket's bytes.
    Switched(Box<Connection>, Lease),
}

struct Picked {
    lease: Lease,
    /// The endpoint's breaker. In a box: few have one of their own, and what is picked is moved.
    watch: Option<Box<Kept>>,
    socket: SocketAddr,
    slot: usize,
    others: bool,
}

/// What came of one try.
pub(super) enum Try {
    Answered(Answer),
    /// The endpoint has as many connections as it may have.
    Full,
    /// The endpoint couldn't be reached.
    Unreachable(Rejection),
    /// Sent in vain; sending again is safe.
    Again(Rejection),
    Failed(Rejection),
}

/// Forwards a request in this way. A body of which nothing was used stays where it is.
pub(crate) async fn forward(
    thread: &Rc<Thread>,
    backend: &BackendState,
    way: Way,
    head: &RequestHead<'_>,
    body: &mut Option<Inbound>,
    times: Times,
    choice: &Choice,
) -> Result<Answer, Rejection> {
    let watch = match &way.guard {
        None => None,
        Some(guard) => guard.health.enter(guard.route.as_ref(), thread.random())?,
    };
    let mut forwarding = Forwarding {
        thread,
        backend,
        way: &way,
        head,
        body,
        times,
        choice,
        connect_until: None,
        tried: Vec::new(),
        resent: 0,
    };
    let mut outcome = forwarding.run().await;
    match (watch, &mut outcome) {
        (None, _) => {}
        (Some(watch), Ok(answer)) => tell(watch, answer),
        (Some(watch), Err(why)) => watch.tell(&Sent::Failed(*why)),
    }
    outcome
}

/// Tells a breaker of an answer, or has the answer tell it later.
fn tell<H: Borrow<Arc<Health>>, B: Borrow<Arc<Breaker>>>(mut watch: Watching<H, B>, answer: &mut Answer) {
    let Answer { status, headers, body, .. } = answer;
    watch.look(*status, headers);
    match body {
        Body::Plain(Source::Http2(body)) if ends_in_trailers(headers) && !body.is_end() => {
            body.watch(watch.wait(*status));
        }
        Body::Plain(Source::Http2(_)) => watch.tell(&Sent::answered(*status, headers)),
        Body::Plain(_) | Body::Switched(..) => watch.tell(&Sent::of_endpoint(*status, headers)),
    }
}

impl Forwarding<'_> {
    async fn run(&mut self) -> Result<Answer, Rejection> {
        let (thread, backend) = (self.thread, self.backend);
        let mut last = Rejection::NoEndpoints;
        loop {
            // Not `while let`: what it is taken from would be kept meanwhile.
            let Some(mut picked) = self.pick()? else { return Err(last) };
            let (slot, socket, watch) = (picked.slot, picked.socket, picked.watch.take());
            let mut tried = self.attempt(picked).await;
            self.judge(socket, watch, &mut tried);
            match tried {
                Try::Answered(answer) => {
                    thread.metrics.backend_response(&backend.metrics, answer.status);
                    return Ok(answer);
                }
                Try::Full => {
                    last = Rejection::BackendLimit;
                    self.tried.push(slot);
                }
                Try::Unreachable(why) => {
                    thread.metrics.backend_failed(&backend.metrics, why);
                    last = why;
                    self.tried.push(slot);
                }
                Try::Again(why) => {
                    thread.metrics.backend_failed(&backend.metrics, why);
                    last = why;
                    self.resent += 1;
                    if self.resent > MAX_RESENT {
                        return Err(last);
                    }
                    thread.metrics.backend_retried(&backend.metrics);
                }
                Try::Failed(why) => {
                    thread.metrics.backend_failed(&backend.metrics, why);
                    return Err(why);
                }
            }
        }
    }

    /// Tells what watches an endpoint what came of a try there.
    fn judge(&self, socket: SocketAddr, watch: Option<Box<Kept>>, tried: &mut Try) {
        let Some(guard) = &self.way.guard else { return };
        if watch.is_none() && !guard.health.ejects() {
            return;
        }
        let sent = match tried {
            Try::Answered(answer) => Sent::of_endpoint(answer.status, &answer.headers),
            Try::Unreachable(why) | Try::Failed(why) => Sent::Failed(*why),
            // The usual end of a connection that was idle.
            Try::Again(_) | Try::Full => Sent::Unknown,
        };
        guard.health.note(socket, &sent, || self.backend.endpoints.borrow().members.len());
        match (watch, tried) {
            (None, _) => {}
            (Some(watch), Try::Answered(answer)) => tell(*watch, answer),
            (Some(watch), _) => watch.tell(&sent),
        }
    }
}

/// What comes of a try without a connection: while the request has time, another endpoint may be there.
fn unconnected(why: Rejection) -> Try {
    match why == Rejection::RequestTimeout {
        true => Try::Failed(why),
        false => Try::Unreachable(why),
    }
}

struct Forwarding<'a> {
    thread: &'a Rc<Thread>,
    backend: &'a BackendState,
    way: &'a Way,
    head: &'a RequestHead<'a>,
    /// Taken by a try; back here when the try didn't use it.
    body: &'a mut Option<Inbound>,
    times: Times,
    choice: &'a Choice,
    /// Set with the first connection that is opened.
    connect_until: Option<Deadline>,
    /// Slots of endpoints that couldn't be reached.
    tried: Vec<usize>,
    resent: usize,
}

impl Forwarding<'_> {
    /// An endpoint that wasn't tried, if one is left.
    fn pick(&self) -> Result<Option<Picked>, Rejection> {
        let endpoints = self.backend.endpoints.borrow();
        let (members, pools) = (&endpoints.members, &self.thread.pools);
        let random = self.thread.random();
        let picked = |member: &Member| Picked {
            lease: pools.lease(&member.address),
            watch: None,
            socket: member.address.socket(),
            slot: member.address.slot(),
            others: members.len() > self.tried.len() + 1,
        };
        let pick = |tried: &[usize]| choose(members, pools, random, tried, self.choice);
        let guard = self.way.guard.as_ref().filter(|guard| guard.health.chooses());
        let Some(guard) = guard else { return Ok(pick(&self.tried).map(picked)) };
        let chosen = match guard.health.choose(members, &self.tried, random, pick) {
            Ok(chosen) => chosen,
            // What was tried and failed says more.
            Err(Some(barred)) if self.tried.is_empty() => return Err(barred),
            Err(_) => return Ok(None),
        };
        let mut picked = picked(chosen.member);
        picked.lease.places = chosen.places;
        picked.lease.line = guard.health.seats().map(|room| pools.line(room));
        picked.watch = chosen.watch;
        Ok(Some(picked))
    }

    async fn attempt(&mut self, picked: Picked) -> Try {
        match self.way.protocol {
            BackendProtocol::Http1 => self.attempt_http1(picked).await,
            // In a box: idle connections keep the room of the largest request.
            BackendProtocol::H2c => Box::pin(self.attempt_http2(picked)).await,
        }
    }

    async fn attempt_http1(&mut self, picked: Picked) -> Try {
        let Picked { lease, socket, others, .. } = picked;
        let idempotent = self.head.method.is_idempotent();
        // After a connection died on us the others in the pool are suspect, too.
        let mut idle = if self.resent == 0 { lease.idle(self.identity(), !idempotent) } else { None };
        let mut seat = None;
        if idle.is_none() && lease.line.is_some() {
            let (first, identity) = (self.resent == 0, self.way.identity.clone());
            let free = |lease: &Lease| first.then(|| lease.idle(identity.as_ref(), !idempotent)).flatten();
            match Box::pin(self.seat(&lease, socket, others, free)).await {
                Ok(Seated::Free(connection)) => idle = Some(connection),
                Ok(Seated::Seat(place)) => seat = Some(place),
                Err(tried) => return tried,
            }
        }
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let timer = Timer::new(&self.thread.wheel);
                let deadline = self.connect_deadline(others);
                // In a box: most requests find one that is there.
                let connecting = Box::pin(connect_http1(socket, self.identity(), timer, deadline));
                let connected = connecting.await;
                match self.connected(&lease, socket, connected) {
                    Ok(mut connection) => {
                        connection.sit(seat);
                        connection
                    }
                    Err(why) => return unconnected(why),
                }
            }
        };
        let mut exchange = Exchange::new(connection, self.head, self.body.take(), self.bounds(), lease);
        let head = std::future::poll_fn(|cx| exchange.poll_head(cx, self.head.hints)).await;
        match exchange.end(head) {
            Ok(answer) => {
                let body = match answer.body {
                    h1::Body::Empty => Body::Plain(Source::Empty),
                    h1::Body::Whole(data) => Body::Plain(Source::Whole(data)),
                    h1::Body::Streamed(download) => Body::Plain(Source::Http1(download)),
                    h1::Body::Switched(connection, lease) => Body::Switched(connection, lease),
                };
                let h1::Answer { status, headers, .. } = answer;
                Try::Answered(Answer { status, headers, body, endpoint: socket })
            }
            Err(failed) => {
                tracing::debug!(endpoint = %socket, error = %failed.failure, "a try on an endpoint failed");
                let safe = !failed.body_taken && !failed.answered && (!failed.sent || idempotent);
                let fresh_failed_before = self.resent > 0 && !failed.used;
                *self.body = failed.body;
                let why = rejection(&failed.failure);
                match why == Rejection::UpstreamClosed && safe && !fresh_failed_before {
                    true => Try::Again(why),
                    false => Try::Failed(why),
                }
            }
        }
    }

    async fn attempt_http2(&mut self, picked: Picked) -> Try {
        let Picked { lease, socket, others, .. } = picked;
        if self.head.websocket {
            // RFC 8441 needs more than prior knowledge; Gateway API has `kubernetes.io/ws` for WebSockets.
            return Try::Failed(Rejection::UpstreamProtocol);
        }
        let timer = Timer::new(&self.thread.wheel);
        let mut shared = if self.resent == 0 { h2::shared(&lease, self.identity()) } else { None };
        let mut seat = None;
        if shared.is_none() && lease.line.is_some() {
            let (first, identity) = (self.resent == 0, self.way.identity.clone());
            let free = |lease: &Lease| first.then(|| h2::shared(lease, identity.as_ref())).flatten();
            match Box::pin(self.seat(&lease, socket, others, free)).await {
                Ok(Seated::Free(stream)) => shared = Some(stream),
                Ok(Seated::Seat(place)) => seat = Some(place),
                Err(tried) => return tried,
            }
        }
        let stream = match shared {
            Some(stream) => stream,
            None => {
                let deadline = self.connect_deadline(others);
                let opened = async {
                    let identity = self.way.identity.clone();
                    let open = connect(socket, identity.as_deref(), Speaks::Http2, &timer, deadline).await?;
                    match timer.bound(deadline, h2::handshake(&lease, open, identity, seat)).await {
                        Some(stream) => Ok(stream?),
                        None => Err(ConnectError::Timeout),
                    }
                };
                let opened = opened.await;
                match self.connected(&lease, socket, opened) {
                    Ok(stream) => stream,
                    Err(why) => return unconnected(why),
                }
            }
        };
        let scheme = if self.identity().is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let Some(request) = http2_request(self.head, scheme) else {
            return Try::Failed(Rejection::Malformed(Malformed::Target));
        };
        let had_body = self.body.is_some();
        match h2::exchange(stream, request, self.body.take(), self.bounds(), timer, lease).await {
            Ok(h2::Answer { status, headers, body }) => {
                let body = Body::Plain(Source::Http2(Box::new(body)));
                Try::Answered(Answer { status, headers: headers.into(), body, endpoint: socket })
            }
            Err(failed) => {
                tracing::debug!(endpoint = %socket, error = %failed.failure, "a try on an endpoint failed");
                let safe = failed.unsent.is_some() || !had_body && self.head.method.is_idempotent();
                let fresh_failed_before = self.resent > 0 && !failed.used;
                *self.body = failed.unsent.flatten();
                let why = rejection(&failed.failure);
                match why == Rejection::UpstreamClosed && safe && !fresh_failed_before {
                    true => Try::Again(why),
                    false => Try::Failed(why),
                }
            }
        }
    }

    /// A place for a connection where they are bounded, or one that comes free.
    async fn seat<T>(
        &mut self,
        lease: &Lease,
        socket: SocketAddr,
        others: bool,
        free: impl Fn(&Lease) -> Option<T>,
    ) -> Result<Seated<T>, Try> {
        let until = self.connect_deadline(false);
        let Some(guard) = &self.way.guard else { return Err(Try::Failed(Rejection::BackendLimit)) };
        let timer = Timer::new(&self.thread.wheel);
        let wait = Wait { health: &guard.health, lease, socket, others, timer: &timer, until };
        let seated = wait.seat(free).await;
        match seated {
            Err(Try::Failed(_)) if self.is_over() => Err(Try::Failed(Rejection::RequestTimeout)),
            Ok(_) | Err(_) => seated,
        }
    }

    /// Sorts out how opening a connection went.
    fn connected<T>(
        &self,
        lease: &Lease,
        socket: SocketAddr,
        outcome: Result<T, ConnectError>,
    ) -> Result<T, Rejection> {
        match outcome {
            Ok(connection) => {
                lease.note_connect(Connected::Yes);
                self.thread.metrics.backend_connected(&self.backend.metrics);
                Ok(connection)
            }
            Err(error) => {
                lease.note_connect(Connected::No);
                connect::log(self.thread, &self.backend.id, socket, &error);
                Err(match error {
                    ConnectError::Timeout if self.is_over() => Rejection::RequestTimeout,
                    ConnectError::Timeout => Rejection::ConnectTimeout,
                    ConnectError::Failed(_) => Rejection::ConnectFailed,
                    ConnectError::Tls(_) => Rejection::UpstreamTls,
                })
            }
        }
    }

    /// Under which connections are made.
    fn identity(&self) -> Option<&Arc<Identity>> {
        self.way.identity.as_ref()
    }

    /// Whether the rule's `request` timeout has passed.
    fn is_over(&self) -> bool {
        self.times.request <= self.thread.wheel.after(Duration::ZERO)
    }

    fn connect_deadline(&mut self, others: bool) -> Deadline {
        let (wheel, limits) = (&self.thread.wheel, &self.thread.limits);
        let until = *self.connect_until.get_or_insert_with(|| wheel.after(limits.connect));
        let until = until.min(self.times.request);
        if others { until.min(wheel.after(limits.connect_one)) } else { until }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            request: self.times.request,
            attempt: self.times.attempt.map_or(Deadline::NEVER, |bound| self.thread.wheel.after(bound)),
            head: self.thread.limits.answer,
            body: self.times.body,
            stream: self.times.stream,
        }
    }
}

/// What a failure is to the client.
fn rejection(failure: &Failure) -> Rejection {
    match failure {
        Failure::Closed(_) => Rejection::UpstreamClosed,
        Failure::Malformed(_) => Rejection::UpstreamProtocol,
        Failure::Client(broken) => broken.rejection(),
        Failure::ClientStalled => Rejection::BodyTimeout,
        Failure::Timeout => Rejection::UpstreamTimeout,
        Failure::RequestTimeout => Rejection::RequestTimeout,
    }
}

/// The head as HTTP/2 has it: Host becomes `:authority` (RFC 9113 §8.3.1).
fn http2_request(head: &RequestHead<'_>, scheme: Scheme) -> Option<Request<()>> {
    let mut headers = head.headers.clone();
    if let Some(ours) = head.ours {
        ours.write(&mut headers);
    }
    let host = headers.remove(http::header::HOST)?;
    headers.remove(http::header::TRANSFER_ENCODING);
    let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(head.target);
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    Some(request)
}
