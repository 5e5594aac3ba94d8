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
#[derive(Debug)]
pub(super) struct Quota {
    limit: u32,
    /// Nanoseconds; 0 for what has no window.
    window: u64,
    /// What `RateLimit-Policy` says: the name in quotes, and the rest.
    policy: Box<str>,
    /// How long the name is, with its quotes.
    name: usize,
    /// Of the standard fields, as HTTP/1.1 has them, what is the same for all requests.
    lines: Box<str>,
}

impl Quota {
    /// So many in each window. Names are DNS labels.
    pub(super) fn rate(name: &str, limit: u32, window: Duration) -> Self {
        let policy = format!("\"{name}\";q={limit};w={}", window.as_secs());
        Self::new(name, limit, u64::try_from(window.as_nanos()).unwrap_or(u64::MAX), policy)
    }

    /// So many at once.
    pub(super) fn in_flight(name: &str, limit: u32) -> Self {
        Self::new(name, limit, 0, format!("\"{name}\";q={limit};qu=\"concurrent-requests\""))
    }

    fn new(name: &str, limit: u32, window: u64, policy: String) -> Self {
        let lines = format!("{RATE_LIMIT_POLICY}: {policy}\r\n{RATE_LIMIT}: \"{name}\"");
        Self { limit, window, policy: policy.into(), name: name.len() + 2, lines: lines.into() }
    }

    /// The window; 0 for what has none.
    pub(super) fn nanoseconds(&self) -> u64 {
        self.window
    }
}

/// Tells of a limit.
pub(super) fn tell(out: &mut impl Say, which: LimitHeaders, quota: &Quota, standing: Standing) {
    let (standard, legacy) = match which {
        LimitHeaders::Standard => (true, false),
        LimitHeaders::Legacy => (false, true),
        LimitHeaders::Both => (true, true),
        LimitHeaders::None => (false, false),
    };
    let (remaining, reset) = (standing.remaining, seconds(standing.reset));
    let left = |text: &mut Vec<u8>| {
        text.extend_from_slice(b";r=");
        number(text, remaining);
        text.extend_from_slice(b";t=");
        number(text, reset);
    };
    match out.wire() {
        Some(wire) if standard => {
            wire.extend_from_slice(quota.lines.as_bytes());
            left(wire);
            wire.extend_from_slice(b"\r\n");
        }
        None if standard => {
            out.say(&RATE_LIMIT_POLICY, |text| text.extend_from_slice(quota.policy.as_bytes()));
            out.say(&RATE_LIMIT, |text| {
                text.extend_from_slice(&quota.policy.as_bytes()[..quota.name]);
                left(text);
            });
        }
        Some(_) | None => {}
    }
    if legacy {
        for (field, value) in [(&LIMIT, quota.limit.into()), (&REMAINING, remaining), (&RESET, reset)] {
            out.say(field, |text| number(text, value));
        }
    }
}

/// When to come again: in a second at the earliest.
pub(super) fn retry_after(out: &mut impl Say, wait: u64) {
    out.say(&RETRY_AFTER, |text| number(text, seconds(wait).max(1)));
}

fn number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Rounded up: who waits so long doesn't come too early.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(SECOND)
}
