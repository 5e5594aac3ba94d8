//! Tries again what a rule's `retry` names (GEP-1731): status codes, and failures that it needn't name.
//!
//! Each try is a [`forward`] with a `backendRequest` timeout of its own, on an endpoint that wasn't tried before if there is
//! one; the `request` timeout goes over all. Between two tries is a pause that doubles, with jitter. When the tries are used
//! up, the client gets the last answer; when the backend's retry budget is (GEP-3388), 503. What a backend may have acted on is tried again only where that is safe: for
//! idempotent methods (RFC 9110 §9.2.2), with a body that could be kept ([`crate::body::replay`]).

use super::forward::{Answer, Times, forward};
use super::h1::RequestHead;
use super::health::Place;
use super::pick::Choice;
use super::{BackendState, Way};
use crate::body::Inbound;
use crate::body::replay::Replay;
use crate::model::Retry;
use crate::rejection::{Rejection, Repeat};
use crate::runtime::Thread;
use crate::timer::Timer;
use std::rc::Rc;
use std::time::Duration;

/// A pause is at most so many times as long as the first.
const LONGEST_PAUSE: u32 = 16;

/// What comes after a try.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it is the last one.
    Stop,
    Again,
}

/// [`forward`], again as `retry` says. Of a failed request, a body of which nothing was used is where it was.
#[expect(clippy::too_many_arguments, reason = "those of one try, and how often")]
pub(crate) async fn retry(
    thread: &Rc<Thread>,
    backend: &BackendState,
    way: Way,
    head: &RequestHead<'_>,
    body: &mut Option<Inbound>,
    times: Times,
    mut choice: Choice,
    retry: &Retry,
) -> Result<Answer, Rejection> {
    let replay = body.take().map(Replay::new);
    let mut place: Option<Place> = None;
    for tried in 0.. {
        *body = replay.as_ref().and_then(Replay::again);
        let outcome = forward(thread, backend, way.clone(), head, body, times, &choice).await;
        let left = tried < retry.attempts && replay.as_ref().is_none_or(Replay::is_whole);
        if !left || next(retry, head, &outcome) == Next::Stop {
            return outcome;
        }
        // One place is enough, however often it is tried again.
        if let (None, Some(guard)) = (&place, &way.guard) {
            match guard.health.retry() {
                Ok(got) => place = got,
                // The client gets what there is.
                Err(_) => return outcome,
            }
        }
        if way.budget.as_ref().is_some_and(|budget| !budget.takes_retry()) {
            return Err(Rejection::RetryBudget);
        }
        let pause = pause(retry.backoff, tried, thread.random());
        let timer = Timer::new(&thread.wheel);
        if timer.bound(times.request, tokio::time::sleep(pause)).await.is_none() {
            return Err(Rejection::RequestTimeout);
        }
        thread.metrics.backend_retried(backend.metrics());
        choice.exclude(outcome.ok().map(|answer| answer.endpoint));
    }
    // The number of tries is bounded by `attempts`, which ends the loop.
    Err(Rejection::Internal)
}

fn next(retry: &Retry, head: &RequestHead<'_>, outcome: &Result<Answer, Rejection>) -> Next {
    let safe = head.method.is_idempotent();
    let again = match outcome {
        Ok(answer) => safe && retry.codes.contains(&answer.status.as_u16()),
        Err(why) => match why.repeat() {
            Repeat::Never => false,
            Repeat::Unsent => true,
            Repeat::Sent => safe,
        },
    };
    if again { Next::Again } else { Next::Stop }
}

/// Between half and all of the first pause doubled for each one before.
fn pause(first: Duration, before: u32, random: u32) -> Duration {
    let factor = 2u32.saturating_pow(before).min(LONGEST_PAUSE);
    first.saturating_mul(factor).mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_vary() {
        let first = Duration::from_millis(100);
        for (before, most) in [(0, 100), (1, 200), (3, 800), (4, 1600), (5, 1600), (1000, 1600)] {
            assert_eq!(pause(first, before, u32::MAX), Duration::from_millis(most));
            assert_eq!(pause(first, before, 0), Duration::from_millis(most / 2));
        }
    }
}
