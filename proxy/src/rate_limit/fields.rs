//! What answers say of limits: draft-ietf-httpapi-ratelimit-headers-10, the fields from before it, and `Retry-After`
//! (RFC 9110 §10.2.3).

use super::counters::Standing;
use crate::model::{LimitHeaders, Text};
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use std::fmt::Write;
use std::time::Duration;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const SECOND: u64 = 1_000_000_000;

/// What a limit allows, as its author wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quota {
    Rate { limit: u32, window: Duration },
    InFlight { limit: u32 },
}

impl Quota {
    fn limit(self) -> u32 {
        match self {
            Self::Rate { limit, .. } | Self::InFlight { limit } => limit,
        }
    }

    /// The window; 0 for what has none.
    pub(super) fn nanoseconds(self) -> u64 {
        match self {
            Self::Rate { window, .. } => u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            Self::InFlight { .. } => 0,
        }
    }
}

/// Tells of a limit.
pub(super) fn tell(
    headers: &mut HeaderMap,
    which: LimitHeaders,
    name: &Text,
    quota: Quota,
    standing: Standing,
) {
    let (standard, legacy) = match which {
        LimitHeaders::Standard => (true, false),
        LimitHeaders::Legacy => (false, true),
        LimitHeaders::Both => (true, true),
        LimitHeaders::None => (false, false),
    };
    let reset = seconds(standing.reset);
    if standard {
        let mut policy = format!("\"{name}\";q={}", quota.limit());
        // Writing to a String can't fail.
        let _ = match quota {
            Quota::Rate { window, .. } => write!(policy, ";w={}", window.as_secs()),
            Quota::InFlight { .. } => write!(policy, ";qu=\"concurrent-requests\""),
        };
        put(headers, RATE_LIMIT_POLICY, &policy);
        put(headers, RATE_LIMIT, &format!("\"{name}\";r={};t={reset}", standing.remaining));
    }
    if legacy {
        headers.insert(LIMIT, quota.limit().into());
        headers.insert(REMAINING, standing.remaining.into());
        headers.insert(RESET, reset.into());
    }
}

/// When to come again: in a second at the earliest.
pub(super) fn retry_after(headers: &mut HeaderMap, wait: u64) {
    headers.insert(RETRY_AFTER, seconds(wait).max(1).into());
}

/// Rounded up: who waits so long doesn't come too early.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(SECOND)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Names of limits are DNS labels.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
