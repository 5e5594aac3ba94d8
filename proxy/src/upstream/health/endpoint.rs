//! How one endpoint fares: what came of its last requests, and whether it is ejected.
//!
//! Pure but for its atomics: the clock is passed in.

use super::breaker::{Breaker, Millis};
use super::limits::Room;
use super::watch::Sent;
use super::window::Window;
use crate::model::{Ejection, Ratio};
use crate::rejection::Rejection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How far back requests count for `failurePercent`.
const WINDOW: Duration = Duration::from_secs(10);

/// What is known of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    pub(super) breaker: Arc<Breaker>,
    pub(super) room: Arc<Room>,
    ejected_until: AtomicU64,
    /// Whether it hasn't answered well since it was ejected.
    doubtful: AtomicBool,
    /// Times it was ejected, each soon after the other.
    times: AtomicU32,
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    connect_failures: AtomicU32,
    failures: Window,
}

/// Counts what comes in a row.
fn in_a_row(count: &AtomicU32, failed: bool) -> u32 {
    if failed {
        return count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    }
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
    0
}

/// What a try says about its endpoint.
struct Signs {
    server_error: bool,
    gateway_error: bool,
    connect_failure: bool,
}

impl Signs {
    /// `None`: nothing.
    fn of(sent: &Sent) -> Option<Self> {
        Some(match sent {
            Sent::Answered { status, .. } => Self {
                server_error: status.is_server_error(),
                gateway_error: matches!(status.as_u16(), 502..=504),
                connect_failure: false,
            },
            Sent::Failed(why) => match why {
                Rejection::ConnectFailed | Rejection::ConnectTimeout | Rejection::UpstreamTls => {
                    Self { server_error: true, gateway_error: true, connect_failure: true }
                }
                Rejection::UpstreamProtocol | Rejection::UpstreamClosed | Rejection::UpstreamTimeout => {
                    Self { server_error: true, gateway_error: true, connect_failure: false }
                }
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
                | Rejection::RetryBudget
                | Rejection::RequestTimeout => return None,
            },
            Sent::Connected | Sent::Unknown => return None,
        })
    }
}

impl Endpoint {
    /// Whether it is to get no requests.
    pub(super) fn is_ejected(&self, now: Millis) -> bool {
        now < self.ejected_until()
    }

    pub(super) fn ejected_until(&self) -> Millis {
        self.ejected_until.load(Ordering::Relaxed)
    }

    /// Takes in what came of a try, and says if it is to be ejected: for how long, where the endpoint said so.
    pub(super) fn note(&self, sent: &Sent, now: Millis, policy: &Ejection) -> Option<Option<Duration>> {
        if *sent == Sent::Connected {
            in_a_row(&self.connect_failures, false);
        }
        let Signs { server_error, gateway_error, connect_failure } = Signs::of(sent)?;
        let reached = |count: u32, most: Option<u32>| most.is_some_and(|most| count >= most);
        let counts = (
            in_a_row(&self.server_errors, server_error),
            in_a_row(&self.gateway_errors, gateway_error),
            in_a_row(&self.connect_failures, connect_failure),
        );
        let mut wanted = reached(counts.0, policy.consecutive_5xx)
            || reached(counts.1, policy.consecutive_gateway_errors)
            || reached(counts.2, policy.consecutive_connect_failures);
        if let Some(percent) = policy.failure_percent {
            let ratio =
                Ratio { percent: percent.threshold, window: WINDOW, min_requests: percent.min_requests };
            wanted |= self.failures.note(now, server_error, &ratio);
        }
        match sent {
            Sent::Answered { retry_after: Some(after), .. } if policy.honor_retry_after => Some(Some(*after)),
            Sent::Answered { .. } | Sent::Connected | Sent::Failed(_) | Sent::Unknown => {
                wanted.then_some(None)
            }
        }
    }

    /// Whether this is its first good answer, or connection, since an ejection that is over.
    pub(super) fn is_restored_by(&self, sent: &Sent, now: Millis) -> bool {
        let answered = match sent {
            Sent::Answered { .. } | Sent::Connected => sent.is_success(),
            Sent::Failed(_) | Sent::Unknown => false,
        };
        answered
            && self.doubtful.load(Ordering::Relaxed)
            && !self.is_ejected(now)
            // One of the threads tells.
            && self.doubtful.swap(false, Ordering::Relaxed)
    }

    /// Ejects it, unless it is; says for how long.
    pub(super) fn eject(&self, now: Millis, asked: Option<Duration>, policy: &Ejection) -> Option<Duration> {
        let before = self.ejected_until();
        if now < before {
            return None;
        }
        let longest = policy.max_time.max(policy.base_time);
        let good_for = Duration::from_millis(now - before);
        let times = if good_for > longest { 0 } else { self.times.load(Ordering::Relaxed) };
        let doubled = policy.base_time.saturating_mul(2u32.saturating_pow(times));
        let time = asked.unwrap_or(doubled).min(longest);
        let until = now + u64::try_from(time.as_millis()).unwrap_or(0);
        // One of the threads that saw it fail does this.
        self.ejected_until.compare_exchange(before, until, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.times.store(times.saturating_add(1), Ordering::Relaxed);
        self.doubtful.store(true, Ordering::Relaxed);
        for count in [&self.server_errors, &self.gateway_errors, &self.connect_failures] {
            count.store(0, Ordering::Relaxed);
        }
        self.failures.clear();
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailurePercent;
    use http::StatusCode;

    const MINUTE: Millis = 60_000;

    fn policy() -> Ejection {
        Ejection {
            consecutive_5xx: Some(5),
            consecutive_gateway_errors: Some(4),
            consecutive_connect_failures: Some(3),
            failure_percent: None,
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(100),
            max_percent: 50,
            honor_retry_after: true,
        }
    }

    fn answered(status: u16) -> Sent {
        let status = StatusCode::from_u16(status).unwrap();
        Sent::Answered { status, grpc: None, retry_after: None }
    }

    /// After how many of these in a row it is ejected.
    fn needed(sent: &Sent) -> Option<usize> {
        let endpoint = Endpoint::default();
        (1..=10).find(|_| endpoint.note(sent, MINUTE, &policy()).is_some())
    }

    #[test]
    fn each_sort_of_failure_has_its_number() {
        assert_eq!(needed(&answered(500)), Some(5));
        assert_eq!(needed(&answered(503)), Some(4));
        assert_eq!(needed(&Sent::Failed(Rejection::UpstreamTimeout)), Some(4));
        assert_eq!(needed(&Sent::Failed(Rejection::ConnectFailed)), Some(3));
        assert_eq!(needed(&Sent::Failed(Rejection::BodyTimeout)), None);
        assert_eq!(needed(&answered(429)), None);
        assert_eq!(needed(&Sent::Unknown), None);
    }

    #[test]
    fn a_success_ends_the_row() {
        let endpoint = Endpoint::default();
        for _ in 0..10 {
            for _ in 0..4 {
                assert_eq!(endpoint.note(&answered(500), MINUTE, &policy()), None);
            }
            assert_eq!(endpoint.note(&answered(404), MINUTE, &policy()), None);
        }
    }

    #[test]
    fn a_share_of_failures_ejects() {
        let percent = FailurePercent { threshold: 50, min_requests: 4 };
        let policy = Ejection { consecutive_5xx: None, failure_percent: Some(percent), ..policy() };
        let endpoint = Endpoint::default();
        let fates: Vec<_> =
            [200, 500, 200].map(|status| endpoint.note(&answered(status), MINUTE, &policy)).into();
        assert_eq!(fates, [None; 3]);
        assert_eq!(endpoint.note(&answered(500), MINUTE, &policy), Some(None));
        assert_eq!(endpoint.note(&answered(500), 3 * MINUTE, &policy), None);
    }

    #[test]
    fn times_double_up_to_a_bound_and_begin_anew_after_a_good_while() {
        let (endpoint, mut now) = (Endpoint::default(), 10 * MINUTE);
        for seconds in [30, 60, 100, 100] {
            assert_eq!(endpoint.eject(now, None, &policy()), Some(Duration::from_secs(seconds)));
            assert!(endpoint.is_ejected(now));
            assert_eq!(endpoint.eject(now, None, &policy()), None);
            now = endpoint.ejected_until();
            assert!(!endpoint.is_ejected(now));
        }
        assert_eq!(endpoint.eject(now + 101_000, None, &policy()), Some(Duration::from_secs(30)));
    }

    #[test]
    fn the_first_good_answer_after_an_ejection_restores_it() {
        let endpoint = Endpoint::default();
        assert!(!endpoint.is_restored_by(&answered(200), MINUTE));
        endpoint.eject(MINUTE, None, &policy()).unwrap();
        // What was under way.
        assert!(!endpoint.is_restored_by(&answered(200), MINUTE));
        let after = endpoint.ejected_until();
        assert!(!endpoint.is_restored_by(&answered(500), after));
        assert!(!endpoint.is_restored_by(&Sent::Unknown, after));
        assert!(endpoint.is_restored_by(&answered(404), after));
        assert!(!endpoint.is_restored_by(&answered(200), after));
    }

    #[test]
    fn an_endpoint_may_say_for_how_long() {
        let endpoint = Endpoint::default();
        let after = |seconds| Sent::Answered {
            status: StatusCode::SERVICE_UNAVAILABLE,
            grpc: None,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let wanted = endpoint.note(&after(7), MINUTE, &policy()).unwrap();
        assert_eq!(endpoint.eject(MINUTE, wanted, &policy()), Some(Duration::from_secs(7)));
        assert_eq!(
            endpoint.eject(2 * MINUTE, Some(Duration::from_secs(10_000)), &policy()),
            Some(policy().max_time)
        );
        let deaf = Ejection { honor_retry_after: false, ..policy() };
        assert_eq!(endpoint.note(&after(7), 9 * MINUTE, &deaf), None);
    }
}
