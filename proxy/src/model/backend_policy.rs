//! When a backend, or one of its endpoints, is left alone: circuit breaking, ejection and limits. Merged already: what is
//! here holds for the backend whatever route a request comes by.

use super::{BackendId, Text};
use serde::Serialize;
use std::time::Duration;

/// What holds for requests to one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackendPolicy {
    /// Count and tell, but act on nothing of it.
    #[serde(skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// Bounds on what goes there at a time, counted by this process.
    #[serde(skip_serializing_if = "BackendLimits::is_none")]
    pub limits: BackendLimits,
    /// The same for each endpoint.
    #[serde(skip_serializing_if = "BackendLimits::is_none")]
    pub per_endpoint: BackendLimits,
    /// When an endpoint gets no requests for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// When nothing is sent for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

/// Bounds on what is under way at a time. Absent: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackendLimits {
    /// Connections that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Requests that wait for one of these; of a backend only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Requests whose answers aren't complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_requests: Option<u32>,
    /// Of these, requests that are tried again by a rule's `retry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_retries: Option<u32>,
}

impl BackendLimits {
    /// Whether there is no bound at all.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Outlier detection: an endpoint that fails while others don't gets no requests for a while. Never so many endpoints that
/// fewer than half are left: then all get requests again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ejection {
    /// Failures in a row that eject: answers of 500 to 599, and none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_5xx: Option<u32>,
    /// Failures in a row that eject: answers of 502, 503 and 504, and none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_errors: Option<u32>,
    /// Connections in a row that couldn't be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_connect_failures: Option<u32>,
    /// The share of failures (as for `consecutive_5xx`) within ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_percent: Option<FailurePercent>,
    /// How long, the first time; doubled each time that follows soon.
    pub base_time: Duration,
    /// How long at most.
    pub max_time: Duration,
    /// How many of the endpoints, 0 to 100.
    pub max_percent: u8,
    /// Whether a 503 with `Retry-After` ejects its endpoint for so long.
    pub honor_retry_after: bool,
}

/// A share of failures that is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FailurePercent {
    /// From which share on, 1 to 100.
    pub threshold: u8,
    /// With fewer requests than that nothing is judged.
    pub min_requests: u32,
}

/// A circuit breaker: closed it lets everything pass and counts failures; open it lets nothing pass; half open it lets a few
/// probes pass, whose fate decides which of the two is next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breaker {
    /// What has one breaker.
    pub scope: BreakerScope,
    /// What opens it: any of these.
    pub trip: Trip,
    /// What is a failure.
    pub failure_when: FailureWhen,
    /// How long it stays open the first time; twice as long each time that a probe fails. Up to a tenth is added, so that
    /// replicas don't probe at the same time.
    pub open_duration: Duration,
    /// What it doubles up to.
    pub max_open_duration: Duration,
    /// Probes at a time, at least 1.
    pub max_probes: u32,
    /// Probes that must succeed, none failing, at least 1.
    pub successes_to_close: u32,
    /// What requests get that may not pass.
    pub on_open: OnOpen,
}

/// What has one breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum BreakerScope {
    /// The backend.
    #[default]
    Backend,
    /// The backend as each route sees it.
    RouteBackend,
    /// Each endpoint: one that is open gets no requests while another is closed.
    Endpoint,
}

/// What opens a breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trip {
    /// So many failures in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// Such a share of failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<Ratio>,
    /// Such a share of slow answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_ratio: Option<SlowRatio>,
}

/// A share of the requests in a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ratio {
    /// From which share on, 1 to 100.
    pub percent: u8,
    /// How far back requests count.
    pub window: Duration,
    /// With fewer requests than that nothing is judged.
    pub min_requests: u32,
}

/// A share of slow answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlowRatio {
    /// A head of an answer that takes longer is slow.
    pub over: Duration,
    /// How many are too many.
    pub ratio: Ratio,
}

/// What is a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureWhen {
    /// Status codes, sorted.
    pub status_codes: Vec<u16>,
    /// Codes of gRPC, sorted.
    pub grpc_codes: Vec<u8>,
    /// No connection, or one that broke before the answer's head.
    pub connect_errors: bool,
    /// No answer in time.
    pub timeouts: bool,
    /// Expressions about answers, of which one is enough. The controller accepts only what
    /// [`crate::expression::check_answer`] does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expressions: Vec<Text>,
}

/// What requests get that an open breaker doesn't let pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum OnOpen {
    /// An answer of that status, with `Retry-After`.
    Reject {
        /// 400 to 599.
        status: u16,
    },
    /// Another backend's answer. A breaker of that one rejects.
    Fallback(BackendId),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}
