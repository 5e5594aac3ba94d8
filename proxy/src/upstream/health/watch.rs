//! What became of a request, and the breaker that wants to know.
//!
//! A [`Watch`] goes with a request that a breaker let in until its fate is clear: with the head of its answer, or, for a call of
//! gRPC, with the trailers. One that is dropped before says nothing about the backend: the client left.

use super::breaker::{Breaker, Change, Fate, Permit};
use super::{Health, now};
use crate::headers::Fields;
use crate::model::FailureWhen;
use crate::rejection::Rejection;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Made once: a name that is text is read again each time.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What came of sending a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// An answer.
    Answered {
        status: StatusCode,
        /// What a call of gRPC ended with.
        grpc: Option<u8>,
        /// How long the endpoint asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// None yet, but a connection, which is all that there is to be seen of what isn't HTTP.
    Connected,
    /// None.
    Failed(Rejection),
    /// Nothing that says anything about the endpoint.
    Unknown,
}

impl Sent {
    /// Reads of the head of an answer that may be a call's of gRPC what a breaker may ask.
    pub(crate) fn answered(status: StatusCode, headers: &Fields) -> Self {
        let grpc = grpc_status(headers.get(&GRPC_STATUS));
        Self::Answered { status, grpc, retry_after: retry_after(status, headers) }
    }

    /// Reads of the head of an answer what says something about its endpoint, and all that there is to an answer over HTTP/1.1:
    /// gRPC needs HTTP/2.
    pub(crate) fn of_endpoint(status: StatusCode, headers: &Fields) -> Self {
        Self::Answered { status, grpc: None, retry_after: retry_after(status, headers) }
    }

    /// Whether it speaks well of the endpoint.
    pub(super) fn is_success(&self) -> bool {
        match self {
            Self::Answered { status, .. } => !status.is_server_error(),
            Self::Failed(_) => false,
            Self::Connected | Self::Unknown => true,
        }
    }

    fn fate(&self, when: &FailureWhen) -> Fate {
        let judged = |failed| if failed { Fate::Failure } else { Fate::Success };
        match self {
            Self::Connected | Self::Unknown => Fate::Unknown,
            Self::Answered { status, grpc, .. } => judged(
                lists(&when.status_codes, status.as_u16())
                    || grpc.is_some_and(|code| lists(&when.grpc_codes, code)),
            ),
            Self::Failed(why) => match why {
                Rejection::ConnectFailed
                | Rejection::ConnectTimeout
                | Rejection::UpstreamTls
                | Rejection::UpstreamProtocol
                | Rejection::UpstreamClosed => judged(when.connect_errors),
                Rejection::UpstreamTimeout | Rejection::RequestTimeout => judged(when.timeouts),
                Rejection::Malformed(_)
                | Rejection::HeadTooLarge
                | Rejection::TargetTooLong
                | Rejection::BodyTooLarge
                | Rejection::HeadTimeout
                | Rejection::BodyTimeout
                | Rejection::MethodUnsupported
                | Rejection::MethodNotAllowed
                | Rejection::TransferCoding
                | Rejection::Version
                | Rejection::Expectation
                | Rejection::Misdirected
                | Rejection::NoListener
                | Rejection::NoRoute
                | Rejection::Unauthenticated
                | Rejection::Forbidden
                | Rejection::KeysUnavailable
                | Rejection::LoginFailed
                | Rejection::PolicyInvalid
                | Rejection::Denied
                | Rejection::Authorizer
                | Rejection::RateLimited
                | Rejection::Config(_)
                | Rejection::Overloaded
                | Rejection::Internal
                | Rejection::NoEndpoints
                | Rejection::BreakerOpen
                | Rejection::BackendLimit
                | Rejection::RetryBudget => Fate::Unknown,
            },
        }
    }
}

/// Whether these codes, which are sorted, have that one. Most answers are below all of them.
fn lists<T: Copy + Ord>(codes: &[T], code: T) -> bool {
    codes.iter().take_while(|listed| **listed <= code).any(|listed| *listed == code)
}

/// Whether an answer tells what became of a call only in its trailers.
pub(crate) fn ends_in_trailers(headers: &Fields) -> bool {
    let grpc = headers.get(&CONTENT_TYPE).is_some_and(|kind| kind.starts_with(b"application/grpc"));
    grpc && grpc_status(headers.get(&GRPC_STATUS)).is_none()
}

fn retry_after(status: StatusCode, headers: &Fields) -> Option<Duration> {
    if status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    // A date would need a clock that is right.
    text(headers.get(&RETRY_AFTER)?)?.trim().parse().ok().map(Duration::from_secs)
}

fn grpc_status(value: Option<&[u8]>) -> Option<u8> {
    text(value?)?.parse().ok()
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// A request that a breaker let in, for as long as its way is there.
pub(crate) type Watch<'a> = Watching<&'a Arc<Health>, &'a Arc<Breaker>>;
/// One that may outlive that.
pub(crate) type Kept = Watching<Arc<Health>, Arc<Breaker>>;

/// A request that a breaker let in. Small: it is made and moved with each of them.
#[derive(Debug)]
pub(crate) struct Watching<H: Borrow<Arc<Health>>, B: Borrow<Arc<Breaker>>> {
    health: H,
    breaker: B,
    /// Where it matters how long an answer takes.
    began: Option<Instant>,
    random: u32,
    /// Absent once the fate was told.
    permit: Option<Permit>,
    /// Whether the answer fails by what an expression says.
    failed: bool,
}

impl<H: Borrow<Arc<Health>>, B: Borrow<Arc<Breaker>>> Watching<H, B> {
    pub(super) fn new(health: H, breaker: B, permit: Permit, random: u32) -> Self {
        let known: &Arc<Health> = health.borrow();
        if permit.is_first() {
            known.breaker_changed(breaker.borrow(), Change::HalfOpened);
        }
        let is_timed = known.policy.breaker.as_ref().is_some_and(|policy| policy.trip.slow_ratio.is_some());
        let began = is_timed.then(Instant::now);
        Self { health, breaker, began, random, permit: Some(permit), failed: false }
    }

    /// Asks the policy's expressions of the head of an answer.
    pub(crate) fn look(&mut self, status: StatusCode, headers: &mut Fields) {
        let failures = &self.health.borrow().failures;
        self.failed = failures.iter().any(|failure| failure.holds(status, headers.map()));
    }

    /// The head of an answer is there, but its trailers tell the rest.
    pub(crate) fn wait(mut self, status: StatusCode) -> Trailing {
        let watch = Watching {
            health: self.health.borrow().clone(),
            breaker: self.breaker.borrow().clone(),
            began: self.began,
            random: self.random,
            permit: self.permit.take(),
            failed: self.failed,
        };
        Trailing { took: self.elapsed(), status, watch }
    }

    /// What came of it.
    pub(crate) fn tell(mut self, sent: &Sent) {
        let took = self.elapsed();
        self.settle(sent, took);
    }

    fn elapsed(&self) -> Duration {
        self.began.map(|began| began.elapsed()).unwrap_or_default()
    }

    fn settle(&mut self, sent: &Sent, took: Duration) {
        let (health, breaker) = (self.health.borrow(), self.breaker.borrow());
        let (Some(permit), Some(policy)) = (self.permit.take(), &health.policy.breaker) else { return };
        let fate = match sent.fate(&policy.failure_when) {
            Fate::Success if self.failed => Fate::Failure,
            fate @ (Fate::Success | Fate::Failure | Fate::Unknown) => fate,
        };
        if let Some(change) = breaker.note(permit, fate, took, (now, self.random), policy) {
            health.breaker_changed(breaker, change);
        }
    }
}

impl<H: Borrow<Arc<Health>>, B: Borrow<Arc<Breaker>>> Drop for Watching<H, B> {
    fn drop(&mut self) {
        self.settle(&Sent::Unknown, Duration::ZERO);
    }
}

/// A call of gRPC whose answer has begun.
#[derive(Debug)]
pub(crate) struct Trailing {
    watch: Kept,
    /// How long the head took.
    took: Duration,
    status: StatusCode,
}

impl Trailing {
    /// The trailers that it waited for; none: they won't come.
    pub(crate) fn trailers(mut self, fields: Option<&HeaderMap>) {
        let code = grpc_status(fields.and_then(|fields| fields.get(GRPC_STATUS)).map(HeaderValue::as_bytes));
        let sent = match code {
            Some(code) => Sent::Answered { status: self.status, grpc: Some(code), retry_after: None },
            None => Sent::Failed(Rejection::UpstreamClosed),
        };
        self.watch.settle(&sent, self.took);
    }
}
