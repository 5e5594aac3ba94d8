//! What answers say of limits: draft-ietf-httpapi-ratelimit-headers-10, the fields from before it, and `Retry-After`
//! (RFC 9110 §10.2.3).

use super::counters::Standing;
use crate::model::LimitHeaders;
use bytes::BytesMut;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
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
    name: &str,
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
    // Grown once, and one allocation for all values.
    headers.reserve(5);
    let mut text = Text::with_room_for(name);
    if standard {
        text.name(name).put(";q=").number(quota.limit().into());
        match quota {
            Quota::Rate { window, .. } => text.put(";w=").number(window.as_secs()),
            Quota::InFlight { .. } => text.put(";qu=\"concurrent-requests\""),
        };
        text.insert(headers, RATE_LIMIT_POLICY);
        text.name(name).put(";r=").number(standing.remaining).put(";t=").number(reset);
        text.insert(headers, RATE_LIMIT);
    }
    if legacy {
        for (field, number) in
            [(LIMIT, quota.limit().into()), (REMAINING, standing.remaining), (RESET, reset)]
        {
            text.number(number);
            text.insert(headers, field);
        }
    }
}

/// Values that are written one after the other.
struct Text(BytesMut);

impl Text {
    fn with_room_for(name: &str) -> Self {
        Self(BytesMut::with_capacity(2 * name.len() + 128))
    }

    fn put(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn name(&mut self, name: &str) -> &mut Self {
        self.put("\"").put(name).put("\"")
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.put(itoa::Buffer::new().format(number))
    }

    /// The value is whole.
    fn insert(&mut self, headers: &mut HeaderMap, name: HeaderName) {
        // Names of limits are DNS labels.
        if let Ok(value) = HeaderValue::from_maybe_shared(self.0.split().freeze()) {
            headers.insert(name, value);
        }
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
