//! Rules of HTTPRoutes, and of what can be brought to their form: matches are translated before, all else here.
//!
//! A rule that can't be honoured stays in the model and answers 500: the requests that it would take never fall to another
//! rule, as if it weren't there.

use super::lookup::Lookup;
use super::route::Problems;
use super::{backend_ref, filters};
use crate::api::http_route::{BackendRef, RequestMirror, Rule as ApiRule, Timeouts as ApiTimeouts};
use crate::cluster::Kind;
use crate::status::Reason;
use filters::{Filters, Refused};
use headgate_proxy::model::{
    Action, Backend, Failure, Filter, Match, Mirror, PathMatch, Rule, Target, Timeouts, WeightedBackend,
};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Translates the rules of one route, one after the other.
pub(super) struct Rules<'a, 'c> {
    lookup: &'a mut Lookup<'c>,
    kind: Kind,
    namespace: &'a str,
    /// Position of the rule that is translated.
    n: usize,
    /// What is wrong with all of them.
    pub(super) problems: Problems,
    /// Backends that they forward to, each once.
    pub(super) backends: Vec<Arc<Backend>>,
}

impl<'a, 'c> Rules<'a, 'c> {
    /// Of a route of that kind, in that namespace.
    pub(super) fn new(lookup: &'a mut Lookup<'c>, kind: Kind, namespace: &'a str) -> Self {
        Self { lookup, kind, namespace, n: 0, problems: Problems::default(), backends: Vec::new() }
    }

    /// The field of the rule, for people.
    fn at(&self, why: &str) -> String {
        format!("spec.rules[{}].{why}", self.n)
    }

    /// Translates the `n`th rule.
    pub(super) fn translate(
        &mut self,
        n: usize,
        from: &ApiRule,
        matches: Result<Vec<Match>, String>,
    ) -> Rule {
        self.n = n;
        let mut rule = Rule {
            name: from.name.as_deref().map(Into::into),
            matches: Vec::new(),
            filters: Vec::new(),
            action: Action::Fail(Failure::InvalidMatch),
            timeouts: Timeouts::default(),
        };
        match matches {
            Ok(matches) => rule.matches = matches,
            Err(why) => {
                // Nobody knows which requests were meant: none are taken.
                self.problems.dropped.push((Reason::UnsupportedValue, self.at(&why)));
                return rule;
            }
        }
        rule.timeouts = timeouts(from.timeouts.as_ref()).unwrap_or_else(|why| {
            self.problems.ignored.push(self.at(&why));
            Timeouts::default()
        });
        for (field, set) in
            [("retry", from.retry.is_some()), ("sessionPersistence", from.session_persistence.is_some())]
        {
            if set {
                self.problems.ignored.push(self.at(&format!("{field} is not supported and has no effect")));
            }
        }
        let prefixes_only = rule.matches.iter().all(|one| matches!(one.path, PathMatch::Prefix(_)));
        match self.steps(from, prefixes_only) {
            Ok((steps, action)) => (rule.filters, rule.action) = (steps, action),
            Err((reason, why)) => {
                self.problems.dropped.push((reason, self.at(&why)));
                rule.action = Action::Fail(Failure::InvalidFilter);
            }
        }
        rule
    }

    fn steps(&mut self, from: &ApiRule, prefixes_only: bool) -> Result<(Vec<Filter>, Action), Refused> {
        let filters = filters::translate(from.filters.as_deref().unwrap_or_default(), prefixes_only)?;
        let Filters { mut steps, redirect, mirrors } = filters;
        self.mirrors(&mut steps, &mirrors, "")?;
        let action = match redirect {
            Some(redirect) => Action::Redirect(redirect),
            None => self.forward(from, prefixes_only)?,
        };
        Ok((steps, action))
    }

    fn forward(&mut self, from: &ApiRule, prefixes_only: bool) -> Result<Action, Refused> {
        let references = from.backend_refs.as_deref().unwrap_or_default();
        if references.is_empty() {
            return Ok(Action::Fail(Failure::NoBackends));
        }
        let mut split = Vec::with_capacity(references.len());
        for (m, reference) in references.iter().enumerate() {
            let field = format!("backendRefs[{m}]");
            let here = |(reason, why): Refused| (reason, format!("{field}.{why}"));
            let own = filters::of_backend(reference.filters.as_deref().unwrap_or_default()).map_err(here)?;
            let Filters { mut steps, redirect, mirrors } =
                filters::translate(&own, prefixes_only).map_err(here)?;
            if redirect.is_some() {
                let why = "filters: a backend can't redirect; use the rule's filters".to_owned();
                return Err(here((Reason::IncompatibleFilters, why)));
            }
            if steps.iter().any(|step| matches!(step, Filter::Cors(_))) {
                let why = "filters: CORS is not supported on a backend; use the rule's filters".to_owned();
                return Err(here((Reason::UnsupportedValue, why)));
            }
            self.mirrors(&mut steps, &mirrors, &format!("{field}."))?;
            let target = self.target(reference, &field);
            let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or_default();
            split.push(WeightedBackend { target, weight, filters: steps });
        }
        Ok(Action::Forward(split))
    }

    /// Adds mirrors to the steps. One whose backend isn't there is left out, and said so in `ResolvedRefs` (API
    /// documentation of `HTTPRequestMirrorFilter`).
    fn mirrors(
        &mut self,
        steps: &mut Vec<Filter>,
        mirrors: &[(usize, RequestMirror)],
        field: &str,
    ) -> Result<(), Refused> {
        for (m, mirror) in mirrors {
            let field = format!("{field}filters[{m}]");
            let (numerator, denominator) =
                filters::share(mirror).map_err(|why| (Reason::UnsupportedValue, format!("{field}.{why}")))?;
            let to = &mirror.backend_ref;
            let reference = BackendRef {
                group: to.group.clone(),
                kind: to.kind.clone(),
                name: to.name.clone(),
                namespace: to.namespace.clone(),
                port: to.port,
                ..BackendRef::default()
            };
            match self.target(&reference, &format!("{field}.requestMirror.backendRef")) {
                Target::Backend(backend) => {
                    steps.push(Filter::Mirror(Mirror { backend, numerator, denominator }));
                }
                Target::Fail(_) => {}
            }
        }
        Ok(())
    }

    fn target(&mut self, reference: &BackendRef, field: &str) -> Target {
        match backend_ref::resolve(self.lookup, self.kind.name(), self.namespace, reference) {
            Ok(backend) => {
                let id = backend.id.clone();
                if !self.backends.iter().any(|known| known.id == id) {
                    self.backends.push(Arc::new(backend));
                }
                Target::Backend(id)
            }
            Err(refused) => {
                let why = self.at(&format!("{field}: {}", refused.why));
                self.problems.unresolved.push((refused.reason, why));
                Target::Fail(refused.failure)
            }
        }
    }
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
