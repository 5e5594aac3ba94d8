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
use std::ops::Deref;
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
    /// Reads of the head of an answer what a breaker may ask.
    pub(crate) fn answered(status: StatusCode, headers: &Fields) -> Self {
        let grpc = grpc_status(headers.get(&GRPC_STATUS));
        Self::Answered { status, grpc, retry_after: retry_after(status, headers) }
    }

    /// Reads of the head of an answer what says something about its endpoint.
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
                when.status_codes.contains(&status.as_u16())
                    || grpc.is_some_and(|code| when.grpc_codes.contains(&code)),
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

/// A request that a breaker let in.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    health: Held<'a, Health>,
    breaker: Held<'a, Breaker>,
    /// Absent once the fate was told.
    permit: Option<Permit>,
    /// Where it matters how long an answer takes.
    began: Option<Instant>,
    /// How long the head took, once it is there.
    took: Option<(Duration, StatusCode)>,
    random: u32,
    /// Whether the answer fails by what an expression says.
    failed: bool,
}

/// What is counted by whoever holds it, or by somebody who holds it longer: most watches end where they began.
#[derive(Debug)]
pub(super) enum Held<'a, T> {
    Borrowed(&'a Arc<T>),
    Own(Arc<T>),
}

impl<T> Deref for Held<'_, T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        match self {
            Self::Borrowed(held) => held,
            Self::Own(held) => held,
        }
    }
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        health: Held<'a, Health>,
        breaker: Held<'a, Breaker>,
        permit: Permit,
        random: u32,
    ) -> Self {
        if permit.is_first() {
            health.breaker_changed(&breaker, Change::HalfOpened);
        }
        let is_timed = health.policy.breaker.as_ref().is_some_and(|policy| policy.trip.slow_ratio.is_some());
        Self {
            health,
            breaker,
            permit: Some(permit),
            began: is_timed.then(Instant::now),
            took: None,
            random,
            failed: false,
        }
    }

    /// For as long as its answer lasts.
    pub(crate) fn keep(mut self) -> Watch<'static> {
        Watch {
            health: Held::Own(self.health.clone()),
            breaker: Held::Own(self.breaker.clone()),
            permit: self.permit.take(),
            began: self.began,
            took: self.took,
            random: self.random,
            failed: self.failed,
        }
    }

    /// Asks the policy's expressions of the head of an answer.
    pub(crate) fn look(&mut self, status: StatusCode, headers: &mut Fields) {
        self.failed = self.health.failures.iter().any(|failure| failure.holds(status, headers.map()));
    }

    /// The head of an answer is there, but its trailers tell the rest.
    pub(crate) fn wait(&mut self, status: StatusCode) {
        self.took = Some((self.elapsed(), status));
    }

    /// The trailers that it waited for; none: they won't come.
    pub(crate) fn trailers(self, fields: Option<&HeaderMap>) {
        let status = self.took.map_or(StatusCode::OK, |(_, status)| status);
        match grpc_status(fields.and_then(|fields| fields.get(GRPC_STATUS)).map(HeaderValue::as_bytes)) {
            Some(code) => self.tell(&Sent::Answered { status, grpc: Some(code), retry_after: None }),
            None => self.tell(&Sent::Failed(Rejection::UpstreamClosed)),
        }
    }

    /// What came of it.
    pub(crate) fn tell(mut self, sent: &Sent) {
        self.settle(sent);
    }

    fn elapsed(&self) -> Duration {
        self.began.map(|began| began.elapsed()).unwrap_or_default()
    }

    fn settle(&mut self, sent: &Sent) {
        let (Some(permit), Some(policy)) = (self.permit.take(), &self.health.policy.breaker) else { return };
        let took = || self.took.map_or_else(|| self.elapsed(), |(took, _)| took);
        let fate = match sent.fate(&policy.failure_when) {
            Fate::Success if self.failed => Fate::Failure,
            fate @ (Fate::Success | Fate::Failure | Fate::Unknown) => fate,
        };
        if let Some(change) = self.breaker.note(permit, fate, took, (now, self.random), policy) {
            self.health.breaker_changed(&self.breaker, change);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.settle(&Sent::Unknown);
    }
}
