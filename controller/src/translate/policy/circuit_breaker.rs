//! CircuitBreakerPolicies: to what the model says of a backend.

use super::duration::{self, Bounds};
use super::merge::{Field, Merged, Path, Shape};
use super::resolve::Resolver;
use super::{Common, Policy};
use crate::status::ConditionType;
use headgate_crds::CircuitBreakerPolicy;
use headgate_crds::policy::ServiceRef;
use headgate_crds::policy::circuit_breaker::{
    Breaker, Ejection, EndpointLimits, FailureWhen, HalfOpen, Limits, OnOpen, Scope, Trip,
};
use headgate_proxy::expression;
use headgate_proxy::model::{
    self, BackendId, BackendLimits, BackendPolicy, ObjectName, Ratio, SlowRatio, Text,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// What lengths of time may be, as the CRD has it.
const LENGTHS: Bounds = ("100ms", "24h");
/// The entry of an ejection or a breaker by which one without fields is there.
const PRESENT: &str = "present";

impl Policy for CircuitBreakerPolicy {
    const SHAPE: Shape = Shape {
        open: &[
            "limits",
            "limits.perEndpoint",
            "ejection",
            "breaker",
            "breaker.trip",
            "breaker.failureWhen",
            "breaker.halfOpen",
        ],
        named: &[],
        fixed: &[],
    };
    const AFFECTED: ConditionType = ConditionType::CircuitBreakerPolicyAffected;
    const OF_SERVICES: bool = true;

    fn common(&self) -> Common<'_> {
        let spec = &self.spec;
        Common { target_refs: &spec.target_refs, strategy: spec.strategy, mode: spec.mode }
    }

    fn fields(&self) -> Value {
        let spec = &self.spec;
        let mut fields = json!({"limits": spec.limits, "ejection": spec.ejection, "breaker": spec.breaker});
        for part in ["ejection", "breaker"] {
            if let Some(members) = fields[part].as_object_mut() {
                members.insert(PRESENT.to_owned(), true.into());
            }
        }
        fields
    }

    fn check(&self, _: &ObjectName, _: &mut Resolver<'_>) -> Vec<(Path, String)> {
        let spec = &self.spec;
        let parts = [
            ("limits", spec.limits.as_ref().map(limits).and_then(Result::err)),
            ("ejection", spec.ejection.as_ref().map(ejection).and_then(Result::err)),
            ("breaker", spec.breaker.as_ref().map(|from| breaker(from, None)).and_then(Result::err)),
        ];
        let broken = |(part, why): (&str, Option<String>)| Some((Path::of(&[part]), why?));
        parts.into_iter().filter_map(broken).collect()
    }
}

/// What policies came to.
#[derive(Debug, Default)]
pub(super) struct Put {
    pub(super) policy: Option<BackendPolicy>,
    /// What leads nowhere: whose it is, and why.
    pub(super) unresolved: Vec<(ObjectName, String)>,
}

/// Makes of merged policies what holds for a backend. `fallback` finds the backend that a policy in a namespace names.
pub(super) fn put(
    merged: &Merged,
    shadow: bool,
    mut fallback: impl FnMut(&str, &ServiceRef) -> Result<BackendId, String>,
) -> Put {
    let mut put = Put::default();
    let limits_of: Option<Limits> = member(merged, "limits");
    let ejection_of: Option<Ejection> = member(merged, "ejection");
    let breaker_of: Option<Breaker> = member(merged, "breaker");
    let named = breaker_of.as_ref().and_then(|breaker| breaker.on_open.as_ref()?.backend_ref.clone());
    let author = merged.fields.iter().find(|(path, _)| **path == Path::of(&["breaker", "onOpen"]));
    let stands_in = match (named, author) {
        (Some(named), Some((_, Field { policy, .. }))) => match fallback(&policy.namespace, &named) {
            Ok(backend) => Some(backend),
            Err(why) => {
                let why = format!(
                    "spec.breaker.onOpen.backendRef: {why}; requests get 503 while the breaker is open"
                );
                put.unresolved.push((policy.clone(), why));
                None
            }
        },
        (Some(_) | None, Some(_) | None) => None,
    };
    // Each part was checked with its policy; those of several fit together.
    let (limits, per_endpoint) = limits_of.and_then(|from| limits(&from).ok()).unwrap_or_default();
    let policy = BackendPolicy {
        shadow,
        limits,
        per_endpoint,
        ejection: ejection_of.and_then(|from| ejection(&from).ok()),
        breaker: breaker_of.and_then(|from| breaker(&from, stands_in).ok()),
    };
    let nothing = BackendPolicy { shadow: policy.shadow, ..BackendPolicy::default() };
    put.policy = (policy != nothing).then_some(policy);
    put
}

/// A part of the policies as it is in force.
fn member<T: DeserializeOwned>(merged: &Merged, name: &str) -> Option<T> {
    let mut value = merged.member(name);
    if let Some(members) = value.as_object_mut() {
        members.remove(PRESENT);
    }
    serde_json::from_value(value).ok()
}

fn limits(from: &Limits) -> Result<(BackendLimits, BackendLimits), String> {
    let whole = BackendLimits {
        max_connections: count("maxConnections", from.max_connections)?,
        max_pending_requests: count("maxPendingRequests", from.max_pending_requests)?,
        max_parallel_requests: count("maxParallelRequests", from.max_parallel_requests)?,
        max_parallel_retries: count("maxParallelRetries", from.max_parallel_retries)?,
    };
    let EndpointLimits { max_connections, max_parallel_requests } =
        from.per_endpoint.clone().unwrap_or_default();
    let each = BackendLimits {
        max_connections: count("perEndpoint.maxConnections", max_connections)?,
        max_parallel_requests: count("perEndpoint.maxParallelRequests", max_parallel_requests)?,
        ..BackendLimits::default()
    };
    Ok((whole, each))
}

fn ejection(from: &Ejection) -> Result<model::Ejection, String> {
    let row = |field, value, plain| Ok::<_, String>(off_at_zero(count(field, value)?.unwrap_or(plain)));
    let percent = from.failure_percent.as_ref().map(|from| {
        Ok::<_, String>(model::FailurePercent {
            threshold: percent("failurePercent.threshold", from.threshold)?,
            min_requests: count("failurePercent.minRequests", from.min_requests)?.unwrap_or(20),
        })
    });
    let most = from.max_ejection_percent.map(|value| percent_or_none("maxEjectionPercent", value));
    Ok(model::Ejection {
        consecutive_5xx: row("consecutive5xx", from.consecutive_5xx, 5)?,
        consecutive_gateway_errors: row("consecutiveGatewayErrors", from.consecutive_gateway_errors, 5)?,
        consecutive_connect_failures: row(
            "consecutiveConnectFailures",
            from.consecutive_connect_failures,
            3,
        )?,
        failure_percent: percent.transpose()?,
        base_time: length("baseEjectionTime", from.base_ejection_time.as_deref(), 30)?,
        max_time: length("maxEjectionTime", from.max_ejection_time.as_deref(), 300)?,
        max_percent: most.transpose()?.unwrap_or(50),
        honor_retry_after: from.honor_retry_after.unwrap_or(true),
    })
}

fn breaker(from: &Breaker, fallback: Option<BackendId>) -> Result<model::Breaker, String> {
    let FailureWhen { status_codes, grpc_codes, connect_errors, timeouts, expressions } =
        from.failure_when.clone().unwrap_or_default();
    let HalfOpen { max_probes, successes_to_close } = from.half_open.clone().unwrap_or_default();
    let rejected = from.on_open.as_ref().and_then(|OnOpen { reject, .. }| reject.as_ref()?.status_code);
    Ok(model::Breaker {
        scope: match from.scope.unwrap_or_default() {
            Scope::Backend => model::BreakerScope::Backend,
            Scope::RouteBackend => model::BreakerScope::RouteBackend,
            Scope::Endpoint => model::BreakerScope::Endpoint,
        },
        trip: trip(&from.trip.clone().unwrap_or_default())?,
        failure_when: model::FailureWhen {
            status_codes: codes("statusCodes", status_codes, &[500, 502, 503, 504])?,
            grpc_codes: codes("grpcCodes", grpc_codes, &[2, 4, 13, 14, 15])?,
            connect_errors: connect_errors.unwrap_or(true),
            timeouts: timeouts.unwrap_or(true),
            expressions: answers(&expressions.unwrap_or_default())?,
        },
        open_duration: length("openDuration", from.open_duration.as_deref(), 30)?,
        max_open_duration: length("maxOpenDuration", from.max_open_duration.as_deref(), 300)?,
        max_probes: count("halfOpen.maxProbes", max_probes)?.unwrap_or(1).max(1),
        successes_to_close: count("halfOpen.successesToClose", successes_to_close)?.unwrap_or(3).max(1),
        on_open: match fallback {
            Some(backend) => model::OnOpen::Fallback(backend),
            None => {
                let status = count("onOpen.reject.statusCode", rejected)?;
                model::OnOpen::Reject { status: status.and_then(|s| u16::try_from(s).ok()).unwrap_or(503) }
            }
        },
    })
}

/// Expressions about answers.
fn answers(from: &[String]) -> Result<Vec<Text>, String> {
    let checked = |(n, text): (usize, &String)| match expression::check_answer(text) {
        Ok(()) => Ok(text.as_str().into()),
        Err(why) => Err(format!("failureWhen.expressions[{n}]: {why}")),
    };
    from.iter().enumerate().map(checked).collect()
}

fn trip(from: &Trip) -> Result<model::Trip, String> {
    let alone = from.failure_ratio.is_none() && from.slow_ratio.is_none();
    let row = count("trip.consecutiveFailures", from.consecutive_failures)?;
    let failures = from
        .failure_ratio
        .as_ref()
        .map(|from| ratio("trip.failureRatio", from.percent, from.window.as_deref(), from.min_requests));
    let slow = from.slow_ratio.as_ref().map(|from| {
        Ok::<_, String>(SlowRatio {
            over: length("trip.slowRatio.over", Some(&from.over), 0)?,
            ratio: ratio("trip.slowRatio", from.percent, from.window.as_deref(), from.min_requests)?,
        })
    });
    Ok(model::Trip {
        consecutive_failures: row.or(alone.then_some(5)).and_then(off_at_zero),
        failure_ratio: failures.transpose()?,
        slow_ratio: slow.transpose()?,
    })
}

fn ratio(field: &str, share: i64, window: Option<&str>, least: Option<i64>) -> Result<Ratio, String> {
    Ok(Ratio {
        percent: percent(&format!("{field}.percent"), share)?,
        window: length(&format!("{field}.window"), window, 10)?,
        min_requests: count(&format!("{field}.minRequests"), least)?.unwrap_or(20),
    })
}

fn off_at_zero(count: u32) -> Option<u32> {
    Some(count).filter(|count| *count > 0)
}

fn count(field: &str, value: Option<i64>) -> Result<Option<u32>, String> {
    let number =
        |value: i64| u32::try_from(value).map_err(|_| format!("{field}: {value} is not a number from 0"));
    value.map(number).transpose()
}

fn percent(field: &str, value: i64) -> Result<u8, String> {
    let found = u8::try_from(value).ok().filter(|percent| (1..=100).contains(percent));
    found.ok_or_else(|| format!("{field}: {value} is not from 1 to 100"))
}

fn percent_or_none(field: &str, value: i64) -> Result<u8, String> {
    if value == 0 { Ok(0) } else { percent(field, value) }
}

fn codes<T: TryFrom<i64> + Copy + Ord>(
    field: &str,
    from: Option<Vec<i64>>,
    plain: &[T],
) -> Result<Vec<T>, String> {
    let Some(from) = from else { return Ok(plain.to_vec()) };
    let code =
        |code: i64| T::try_from(code).map_err(|_| format!("failureWhen.{field}: {code} is no such code"));
    let mut codes: Vec<T> = from.into_iter().map(code).collect::<Result<_, _>>()?;
    codes.sort_unstable();
    codes.dedup();
    Ok(codes)
}

fn length(field: &str, value: Option<&str>, plain: u64) -> Result<Duration, String> {
    let Some(value) = value else { return Ok(Duration::from_secs(plain)) };
    duration::within(value, LENGTHS).map_err(|why| format!("{field}: {why}"))
}
