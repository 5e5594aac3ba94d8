//! HTTPRoutes, and what GRPCRoutes have in common with them: to a route of the model, and what each parent says of it.
//!
//! A rule that can't be honoured stays in the model and answers 500: the requests that it would take never fall to another
//! rule, as if it weren't there.

use super::lookup::Lookup;
use super::route::{Parents, Problems, Translated, created};
use super::{backend_ref, filters, matches};
use crate::api::HttpRoute;
use crate::api::http_route::{Rule as ApiRule, Timeouts as ApiTimeouts};
use crate::api::route::Route as ApiRoute;
use crate::cluster::Kind;
use crate::status::Reason;
use headgate_proxy::model::{
    Action, Backend, Failure, Filter, Match, ObjectName, PathMatch, Route, RouteId, RouteKind, Rule, Target,
    Timeouts, WeightedBackend,
};
use std::borrow::Borrow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Where a rule is written.
struct Origin<'a> {
    kind: Kind,
    namespace: &'a str,
}

/// Translates one route.
pub(super) fn translate(lookup: &mut Lookup<'_>, name: &ObjectName, route: &HttpRoute) -> Translated {
    let rules = route.spec.rules.as_deref().unwrap_or_default();
    let rules = rules.iter().map(|rule| (rule, matches::translate(rule.matches.as_deref())));
    translate_rules(lookup, name, route, RouteKind::Http, rules)
}

/// Translates a route whose rules are, or were brought to, the form of an HTTPRoute's. Their matches come beside them.
pub(super) fn translate_rules<K: ApiRoute, R: Borrow<ApiRule>>(
    lookup: &mut Lookup<'_>,
    name: &ObjectName,
    route: &K,
    kind: RouteKind,
    rules: impl Iterator<Item = (R, Result<Vec<Match>, String>)>,
) -> Translated {
    let parents = Parents::of(lookup, name, route);
    if parents.is_empty() {
        return Translated::nothing(parents);
    }
    let (mut problems, mut backends) = (Problems::default(), Vec::new());
    let origin = Origin { kind: K::KIND, namespace: &name.namespace };
    let rules: Vec<Rule> = rules
        .enumerate()
        .map(|(n, (from, matches))| {
            rule(lookup, &origin, n, from.borrow(), matches, &mut problems, &mut backends)
        })
        .collect();
    // All of it is dropped: then it isn't accepted, and doesn't count, but its requests still get their 500.
    let none_left = !rules.is_empty() && problems.dropped.len() == rules.len();
    let attached = parents.attached.clone();
    let model = Route {
        id: RouteId { kind, name: name.clone() },
        created: created(route),
        listeners: attached.clone(),
        hostnames: parents.hostnames.clone(),
        rules,
    };
    Translated {
        route: (!attached.is_empty()).then(|| Arc::new(model)),
        backends,
        attached: if none_left { Vec::new() } else { attached },
        draft: Arc::new(parents.draft(none_left, &problems)),
    }
}

fn rule(
    lookup: &mut Lookup<'_>,
    origin: &Origin<'_>,
    n: usize,
    from: &ApiRule,
    matches: Result<Vec<Match>, String>,
    problems: &mut Problems,
    backends: &mut Vec<Arc<Backend>>,
) -> Rule {
    let at = |why: &str| format!("spec.rules[{n}].{why}");
    let name = from.name.as_deref().map(Into::into);
    let matches = match matches {
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
        None => match forward(lookup, origin, from, prefixes_only, problems, backends, &at) {
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
    origin: &Origin<'_>,
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
        if own.steps.iter().any(|step| matches!(step, Filter::Cors(_))) {
            let why = "filters: CORS is not supported on a backend; use the rule's filters".to_owned();
            return Err(here((Reason::UnsupportedValue, why)));
        }
        let target = match backend_ref::resolve(lookup, origin.kind.name(), origin.namespace, reference) {
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
