//! What answers say of limits: draft-ietf-httpapi-ratelimit-headers-10, the fields from before it, and `Retry-After`
//! (RFC 9110 §10.2.3).

use super::counters::Standing;
use crate::headers::Say;
use crate::model::LimitHeaders;
use http::header::{HeaderName, RETRY_AFTER};
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
pub(super) fn tell(out: &mut impl Say, which: LimitHeaders, name: &str, quota: Quota, standing: Standing) {
    let (standard, legacy) = match which {
        LimitHeaders::Standard => (true, false),
        LimitHeaders::Legacy => (false, true),
        LimitHeaders::Both => (true, true),
        LimitHeaders::None => (false, false),
    };
    let reset = seconds(standing.reset);
    let mut text = Text(Vec::with_capacity(128));
    if standard {
        text.name(name).put(";q=").number(quota.limit().into());
        match quota {
            Quota::Rate { window, .. } => text.put(";w=").number(window.as_secs()),
            Quota::InFlight { .. } => text.put(";qu=\"concurrent-requests\""),
        };
        text.say(out, &RATE_LIMIT_POLICY);
        text.name(name).put(";r=").number(standing.remaining).put(";t=").number(reset);
        text.say(out, &RATE_LIMIT);
    }
    if legacy {
        for (field, number) in
            [(&LIMIT, quota.limit().into()), (&REMAINING, standing.remaining), (&RESET, reset)]
        {
            text.number(number).say(out, field);
        }
    }
}

/// A value that is being written.
struct Text(Vec<u8>);

impl Text {
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

    /// It is whole, and the next one begins.
    fn say(&mut self, out: &mut impl Say, name: &HeaderName) {
        out.say(name, &self.0);
        self.0.clear();
    }
}

/// When to come again: in a second at the earliest.
pub(super) fn retry_after(out: &mut impl Say, wait: u64) {
    Text(Vec::new()).number(seconds(wait).max(1)).say(out, &RETRY_AFTER);
}

/// Rounded up: who waits so long doesn't come too early.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(SECOND)
}
