//! HTTPRoutes: to a route of the model, and what each parent says of it.
//!
//! A rule that can't be honoured stays in the model and answers 500: the requests that it would take never fall to another
//! rule, as if it weren't there.

use super::attach::{Wanting, attach, gateway_of};
use super::lookup::Lookup;
use super::{backend_ref, filters, matches};
use crate::api::HttpRoute;
use crate::api::http_route::{ParentRef, Rule as ApiRule, StatusParentRef, Timeouts as ApiTimeouts};
use crate::status::{ConditionType, Draft, ParentDraft, Reason, RouteDraft};
use headgate_proxy::model::{
    Action, Backend, Failure, HostPattern, ListenerId, Match, ObjectName, PathMatch, Route, RouteId,
    RouteKind, Rule, Target, Timeouts, WeightedBackend,
};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

const KIND: &str = "HTTPRoute";

/// What a route comes to.
#[derive(Debug)]
pub(super) struct Translated {
    /// For the proxy; `None` when no listener takes it.
    pub(super) route: Option<Arc<Route>>,
    /// Backends that it forwards to.
    pub(super) backends: Vec<Arc<Backend>>,
    /// Listeners that accepted it.
    pub(super) attached: Vec<ListenerId>,
    /// What its parents say.
    pub(super) draft: Arc<RouteDraft>,
}

/// What is wrong with the route itself, whatever its parents say.
#[derive(Default)]
struct Problems {
    /// Rules that can't be honoured.
    dropped: Vec<(Reason, String)>,
    /// Fields that are passed over.
    ignored: Vec<String>,
    /// References that can't be followed.
    unresolved: Vec<(Reason, String)>,
}

/// Translates one route.
pub(super) fn translate(lookup: &mut Lookup<'_>, name: &ObjectName, route: &HttpRoute) -> Translated {
    let hostnames = route.spec.hostnames.as_deref().unwrap_or_default();
    let mut hostnames: Vec<_> = hostnames.iter().map(|hostname| HostPattern::parse(hostname)).collect();
    if hostnames.is_empty() {
        hostnames.push(HostPattern::Any);
    }
    let generation = route.metadata.generation.unwrap_or_default();
    let (mut attached, mut outcomes) = (Vec::new(), Vec::new());
    for parent in route.spec.parent_refs.iter().flatten() {
        let gateway = gateway_of(parent, &name.namespace).and_then(|gateway| lookup.gateway(&gateway));
        let Some(gateway) = gateway else { continue };
        let wanting = Wanting { kind: KIND, namespace: &name.namespace, hostnames: &hostnames };
        let outcome = attach(lookup, gateway, parent, &wanting);
        attached.extend(outcome.iter().flatten().cloned());
        outcomes.push((parent, outcome));
    }
    if outcomes.is_empty() {
        let draft = Arc::new(RouteDraft { generation, parents: Vec::new() });
        return Translated { route: None, backends: Vec::new(), attached, draft };
    }
    attached.sort();
    attached.dedup();
    let (mut problems, mut backends) = (Problems::default(), Vec::new());
    let rules = route.spec.rules.as_deref().unwrap_or_default();
    let translated: Vec<Rule> = rules
        .iter()
        .enumerate()
        .map(|(n, from)| rule(lookup, &name.namespace, n, from, &mut problems, &mut backends))
        .collect();
    // All of it is dropped: then it isn't accepted, and doesn't count, but its requests still get their 500.
    let none_left = !rules.is_empty() && problems.dropped.len() == rules.len();
    let draft = RouteDraft {
        generation,
        parents: outcomes
            .into_iter()
            .map(|(parent, outcome)| ParentDraft {
                parent: status_ref(parent),
                conditions: conditions(outcome.map(drop), none_left, &problems),
            })
            .collect(),
    };
    let model = Route {
        id: RouteId { kind: RouteKind::Http, name: name.clone() },
        created: route.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        listeners: attached.clone(),
        hostnames,
        rules: translated,
    };
    Translated {
        route: (!attached.is_empty()).then(|| Arc::new(model)),
        backends,
        attached: if none_left { Vec::new() } else { attached },
        draft: Arc::new(draft),
    }
}

fn status_ref(parent: &ParentRef) -> StatusParentRef {
    let ParentRef { group, kind, name, namespace, port, section_name } = parent.clone();
    StatusParentRef { group, kind, name, namespace, port, section_name }
}

fn conditions(attached: Result<(), (Reason, String)>, none_left: bool, problems: &Problems) -> Vec<Draft> {
    let accepted = match (attached, problems.dropped.first()) {
        (Err((reason, why)), _) => Draft::new(ConditionType::Accepted, false, reason, why),
        (Ok(()), Some((reason, why))) if none_left => {
            Draft::new(ConditionType::Accepted, false, *reason, why)
        }
        (Ok(()), _) => Draft::new(ConditionType::Accepted, true, Reason::Accepted, "the route is attached"),
    };
    let resolved = match problems.unresolved.first() {
        None => {
            Draft::new(ConditionType::ResolvedRefs, true, Reason::ResolvedRefs, "all references are resolved")
        }
        Some((reason, _)) => {
            let all: Vec<_> = problems.unresolved.iter().map(|(_, why)| why.as_str()).collect();
            Draft::new(ConditionType::ResolvedRefs, false, *reason, all.join("; "))
        }
    };
    let mut conditions = vec![accepted, resolved];
    // The wording is the API's (PartiallyInvalid): which rules are dropped, and what is done instead.
    if !none_left && (!problems.dropped.is_empty() || !problems.ignored.is_empty()) {
        let dropped = problems.dropped.iter().map(|(_, why)| format!("Dropped Rule: {why}"));
        let ignored = problems.ignored.iter().map(|why| format!("Fall Back: {why}"));
        let all: Vec<_> = dropped.chain(ignored).collect();
        let reason = problems.dropped.first().map_or(Reason::UnsupportedValue, |(reason, _)| *reason);
        conditions.push(Draft::new(ConditionType::PartiallyInvalid, true, reason, all.join("; ")));
    }
    conditions
}

fn rule(
    lookup: &mut Lookup<'_>,
    namespace: &str,
    n: usize,
    from: &ApiRule,
    problems: &mut Problems,
    backends: &mut Vec<Arc<Backend>>,
) -> Rule {
    let at = |why: &str| format!("spec.rules[{n}].{why}");
    let name = from.name.as_deref().map(Into::into);
    let matches = match matches::translate(from.matches.as_deref()) {
        Ok(matches) => matches,
        Err(why) => {
            // Nobody knows which requests were meant: none are taken.
            problems.dropped.push((Reason::UnsupportedValue, at(&why)));
            let action = Action::Fail(Failure::InvalidMatch);
            return Rule {
                name,
                matches: Vec::new(),
                filters: Vec::new(),
                action,
                timeouts: Timeouts::default(),
            };
        }
    };
    let prefixes_only = matches.iter().all(|one| matches!(one.path, PathMatch::Prefix(_)));
    let timeouts = timeouts(from.timeouts.as_ref()).unwrap_or_else(|why| {
        problems.ignored.push(at(&why));
        Timeouts::default()
    });
    for (field, set) in
        [("retry", from.retry.is_some()), ("sessionPersistence", from.session_persistence.is_some())]
    {
        if set {
            problems.ignored.push(at(&format!("{field} is not supported and has no effect")));
        }
    }
    let fail = |failure, matches: Vec<Match>| Rule {
        name: name.clone(),
        matches,
        filters: Vec::new(),
        action: Action::Fail(failure),
        timeouts,
    };
    let filters = match filters::translate(from.filters.as_deref().unwrap_or_default(), prefixes_only) {
        Ok(filters) => filters,
        Err((reason, why)) => {
            problems.dropped.push((reason, at(&why)));
            return fail(Failure::InvalidFilter, matches);
        }
    };
    let action = match filters.redirect {
        Some(redirect) => Action::Redirect(redirect),
        None => match forward(lookup, namespace, from, prefixes_only, problems, backends, &at) {
            Ok(action) => action,
            Err((reason, why)) => {
                problems.dropped.push((reason, at(&why)));
                return fail(Failure::InvalidFilter, matches);
            }
        },
    };
    Rule { name, matches, filters: filters.steps, action, timeouts }
}

fn forward(
    lookup: &mut Lookup<'_>,
    namespace: &str,
    from: &ApiRule,
    prefixes_only: bool,
    problems: &mut Problems,
    backends: &mut Vec<Arc<Backend>>,
    at: &dyn Fn(&str) -> String,
) -> Result<Action, filters::Refused> {
    let references = from.backend_refs.as_deref().unwrap_or_default();
    if references.is_empty() {
        return Ok(Action::Fail(Failure::NoBackends));
    }
    let mut split = Vec::with_capacity(references.len());
    for (m, reference) in references.iter().enumerate() {
        let here = |(reason, why): filters::Refused| (reason, format!("backendRefs[{m}].{why}"));
        let own = filters::of_backend(reference.filters.as_deref().unwrap_or_default()).map_err(here)?;
        let own = filters::translate(&own, prefixes_only).map_err(here)?;
        if own.redirect.is_some() {
            let why = "filters: a backend can't redirect; use the rule's filters".to_owned();
            return Err(here((Reason::IncompatibleFilters, why)));
        }
        let target = match backend_ref::resolve(lookup, KIND, namespace, reference) {
            Ok(backend) => {
                let id = backend.id.clone();
                if !backends.iter().any(|known| known.id == id) {
                    backends.push(Arc::new(backend));
                }
                Target::Backend(id)
            }
            Err(refused) => {
                problems.unresolved.push((refused.reason, at(&format!("backendRefs[{m}]: {}", refused.why))));
                Target::Fail(refused.failure)
            }
        };
        let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or_default();
        split.push(WeightedBackend { target, weight, filters: own.steps });
    }
    Ok(Action::Forward(split))
}

fn timeouts(from: Option<&ApiTimeouts>) -> Result<Timeouts, String> {
    let Some(from) = from else { return Ok(Timeouts::default()) };
    let read = |field: &str, value: Option<&String>| match value {
        None => Ok(None),
        // GEP-2257 says how durations are written, GEP-1742 that zero is none.
        Some(value) => match gateway_api::Duration::from_str(value) {
            Ok(duration) => Ok(Some(Duration::new(duration.as_secs(), duration.subsec_nanos()))
                .filter(|duration| !duration.is_zero())),
            Err(error) => Err(format!("timeouts.{field}: {error}; there is no timeout")),
        },
    };
    Ok(Timeouts {
        request: read("request", from.request.as_ref())?,
        backend_request: read("backendRequest", from.backend_request.as_ref())?,
    })
}
