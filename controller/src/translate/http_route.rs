//! HTTPRoutes, and what GRPCRoutes have in common with them: to a route of the model, and what each parent says of it.

use super::lookup::Lookup;
use super::matches;
use super::policy::Above;
use super::route::{Parents, Routed, Translated, created};
use super::rule::Rules;
use crate::api::HttpRoute;
use crate::api::http_route::Rule as ApiRule;
use crate::api::route::Route as ApiRoute;
use headgate_proxy::model::{Match, ObjectName, Route, RouteId, RouteKind, ThinVec};
use std::borrow::Borrow;
use std::sync::Arc;

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
    from: impl Iterator<Item = (R, Result<ThinVec<Match>, String>)>,
) -> Translated {
    let parents = Parents::of(lookup, name, route);
    if parents.is_empty() {
        return Translated::nothing(parents);
    }
    let mut rules = Rules::new(lookup, K::KIND, name);
    let mut translated: ThinVec<_> =
        from.enumerate().map(|(n, (rule, matches))| rules.translate(n, rule.borrow(), matches)).collect();
    let Rules { problems, mut backends, .. } = rules;
    // All of it is dropped: then it isn't accepted, and doesn't count, but its requests still get their 500.
    let none_left = !translated.is_empty() && problems.dropped.len() == translated.len();
    let attached = parents.attached.clone();
    let mut above = Above::of(lookup, K::KIND, name, &attached);
    for (n, rule) in translated.iter_mut().enumerate() {
        rule.policies = above.scoped(lookup, &mut backends, n, rule.name.as_deref());
    }
    let model = Route {
        id: RouteId { kind, name: name.clone() },
        created: created(route),
        listeners: attached.clone(),
        hostnames: parents.hostnames.clone(),
        rules: translated,
    };
    Translated {
        route: (!attached.is_empty()).then(|| Routed::Http(Arc::new(model))),
        backends,
        attached: if none_left { Arc::default() } else { attached },
        draft: Arc::new(parents.draft(none_left, &problems)),
        notes: above.notes,
    }
}
