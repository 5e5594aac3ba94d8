//! XBackendTrafficPolicies: retry budgets (GEP-3388) and sessions (GEP-1619) of backends, whatever route leads there.
//!
//! Of two policies for one target the older counts (GEP-713); the other keeps the rest of its targets.

use super::{Judged, Target, Users, alike};
use crate::api::X_GROUP;
use crate::api::x_backend_traffic_policy::{RetryConstraint, XBackendTrafficPolicy};
use crate::cluster::{Cluster, Kind};
use crate::status::{ConditionType, Draft, PolicyDraft, Reason};
use crate::translate::session;
use headgate_proxy::model::{ObjectName, RetryBudget, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The defaults of the CRD, for files and for what is left out within a part.
const PERCENT: u8 = 20;
const INTERVAL: Duration = Duration::from_secs(10);
const MIN_COUNT: u32 = 10;
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What holds for a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::translate) struct Traffic {
    /// How many of its requests may be retries.
    pub(in crate::translate) retry_budget: Option<RetryBudget>,
    /// What sends a client to the same endpoint again, where neither rule nor XBackend says.
    pub(in crate::translate) session: Option<Session>,
}

#[derive(Debug, Default)]
pub(super) struct Policies {
    pub(super) by_target: BTreeMap<Target, Arc<Traffic>>,
    judged: BTreeMap<ObjectName, (Judged, BTreeSet<Target>)>,
}

impl Policies {
    pub(super) fn of(cluster: &Cluster, before: &Self) -> Self {
        // The older first, then by name.
        let mut in_order: Vec<_> = cluster.x_backend_traffic_policies.iter().collect();
        in_order.sort_by_key(|(_, policy)| policy.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let (mut by_target, mut judged) = (BTreeMap::new(), BTreeMap::new());
        for (name, policy) in in_order {
            judged.insert(name.clone(), judge(name, policy, &mut by_target));
        }
        let by_target = by_target
            .into_iter()
            .map(|(target, traffic)| {
                let same = before.by_target.get(&target).filter(|before| ***before == traffic).cloned();
                (target, same.unwrap_or_else(|| Arc::new(traffic)))
            })
            .collect();
        Self { by_target, judged }
    }

    pub(super) fn drafts(
        &self,
        users: &Users,
    ) -> impl Iterator<Item = ((Kind, ObjectName), Arc<PolicyDraft>)> {
        self.judged.iter().map(move |(name, (judged, targets))| {
            let gateways: BTreeSet<_> =
                targets.iter().filter_map(|target| users.get(target)).flatten().collect();
            ((Kind::XBackendTrafficPolicy, name.clone()), judged.draft(gateways.into_iter()))
        })
    }
}

fn judge(
    name: &ObjectName,
    policy: &XBackendTrafficPolicy,
    by_target: &mut BTreeMap<Target, Traffic>,
) -> (Judged, BTreeSet<Target>) {
    let (spec, mut problem) = (&policy.spec, None);
    let budget = spec.retry_constraint.as_ref().map(retry_budget).transpose().unwrap_or_else(|why| {
        let why = format!("spec.retryConstraint.{why}; there is no budget");
        problem.get_or_insert((Reason::Invalid, why));
        None
    });
    let mut targets = BTreeSet::new();
    for (n, target) in spec.target_refs.iter().enumerate() {
        let kind = match (target.group.as_str(), target.kind.as_str()) {
            ("", "Service") => Kind::Service,
            (X_GROUP, "XBackend") => Kind::XBackend,
            // Other kinds are other controllers'.
            _ => continue,
        };
        let target = (kind, ObjectName::new(name.namespace.clone(), target.name.as_str()));
        let session = spec.session_persistence.as_ref().and_then(|from| {
            let of = format!("{}/{}", kind.name(), target.1);
            alike(from).and_then(|from| session::translate(&from, &of)).map_or_else(
                |why| {
                    let why = format!("spec.sessionPersistence.{why}; there are no sessions");
                    problem.get_or_insert((Reason::Invalid, why));
                    None
                },
                Some,
            )
        });
        if by_target.contains_key(&target) {
            let why = format!(
                "spec.targetRefs[{n}]: an older XBackendTrafficPolicy, or one that is first by name, has {kind} {}",
                target.1
            );
            problem.get_or_insert((Reason::Conflicted, why));
        } else {
            by_target.insert(target.clone(), Traffic { retry_budget: budget, session });
        }
        targets.insert(target);
    }
    let accepted = match problem {
        Some((reason, why)) => Draft::new(ConditionType::Accepted, false, reason, why),
        None => Draft::new(ConditionType::Accepted, true, Reason::Accepted, "the policy is attached"),
    };
    let generation = policy.metadata.generation.unwrap_or_default();
    (Judged { generation, conditions: vec![accepted] }, targets)
}

/// The error has the field relative to `retryConstraint`.
fn retry_budget(from: &RetryConstraint) -> Result<RetryBudget, String> {
    let (share, rate) = (from.budget.as_ref(), from.min_retry_rate.as_ref());
    let percent = share.and_then(|share| share.percent);
    let count = rate.and_then(|rate| rate.count);
    let time = |field: &str, text: Option<&String>, otherwise| match text
        .map(|text| gateway_api::Duration::from_str(text))
    {
        None => Ok(otherwise),
        Some(Ok(time)) if time.is_zero() => Err(format!("{field} is zero")),
        Some(Ok(time)) => Ok(Duration::new(time.as_secs(), time.subsec_nanos())),
        Some(Err(error)) => Err(format!("{field}: {error}")),
    };
    Ok(RetryBudget {
        percent: match percent.map(u8::try_from) {
            None => PERCENT,
            Some(Ok(percent @ 0..=100)) => percent,
            Some(_) => return Err("budget.percent is not a number from 0 to 100".to_owned()),
        },
        interval: time("budget.interval", share.and_then(|share| share.interval.as_ref()), INTERVAL)?,
        min_count: match count.map(u32::try_from) {
            None => MIN_COUNT,
            Some(Ok(count)) => count,
            Some(Err(_)) => return Err("minRetryRate.count is not a number of retries".to_owned()),
        },
        min_interval: time(
            "minRetryRate.interval",
            rate.and_then(|rate| rate.interval.as_ref()),
            MIN_INTERVAL,
        )?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn budget(from: serde_json::Value) -> Result<RetryBudget, String> {
        retry_budget(&serde_json::from_value(from).unwrap())
    }

    #[test]
    fn budgets_have_the_defaults_of_the_api() {
        let plain = RetryBudget {
            percent: 20,
            interval: Duration::from_secs(10),
            min_count: 10,
            min_interval: Duration::from_secs(1),
        };
        assert_eq!(budget(json!({})), Ok(plain));
        let all = json!({
            "budget": {"percent": 0, "interval": "1m"}, "minRetryRate": {"count": 3, "interval": "500ms"},
        });
        let wanted = RetryBudget {
            percent: 0,
            interval: Duration::from_secs(60),
            min_count: 3,
            min_interval: Duration::from_millis(500),
        };
        assert_eq!(budget(all), Ok(wanted));
    }

    #[test]
    fn what_makes_no_budget_is_told() {
        for (from, field) in [
            (json!({"budget": {"percent": 101}}), "budget.percent"),
            (json!({"budget": {"interval": "soon"}}), "budget.interval"),
            (json!({"minRetryRate": {"interval": "0s"}}), "minRetryRate.interval"),
            (json!({"minRetryRate": {"count": -1}}), "minRetryRate.count"),
        ] {
            let why = budget(from).unwrap_err();
            assert!(why.starts_with(field), "{why}");
        }
    }
}
