//! Rules of HTTPRoutes, and of what can be brought to their form: matches are translated before, all else here.
//!
//! A rule that can't be honoured stays in the model and answers 500: the requests that it would take never fall to another
//! rule, as if it weren't there.

use super::lookup::Lookup;
use super::route::Problems;
use super::{backend_ref, filters, session};
use crate::api::http_route::{
    BackendRef, RequestMirror, Retry as ApiRetry, Rule as ApiRule, Timeouts as ApiTimeouts,
};
use crate::cluster::Kind;
use crate::status::Reason;
use filters::{Filters, Refused};
use headgate_proxy::model::{
    Action, Backend, Failure, Filter, Match, Mirror, ObjectName, PathMatch, Retry, Rule, Target, ThinVec,
    Timeouts, WeightedBackend,
};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// `retry.attempts` where files leave it out (the CRD's default).
const DEFAULT_ATTEMPTS: i64 = 1;
/// The first pause between tries, where none is set: longer than a hiccup, shorter than anybody notices.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// A filter's reference as a backend's: types of their own in the API, alike in every field.
macro_rules! reference {
    ($from:expr) => {
        BackendRef {
            group: $from.group.clone(),
            kind: $from.kind.clone(),
            name: $from.name.clone(),
            namespace: $from.namespace.clone(),
            port: $from.port,
            ..BackendRef::default()
        }
    };
}

/// Translates the rules of one route, one after the other.
pub(super) struct Rules<'a, 'c> {
    lookup: &'a mut Lookup<'c>,
    kind: Kind,
    route: &'a ObjectName,
    /// Position of the rule that is translated.
    n: usize,
    /// What is wrong with all of them.
    pub(super) problems: Problems,
    /// Backends that they forward to, each once.
    pub(super) backends: Vec<Arc<Backend>>,
}

impl<'a, 'c> Rules<'a, 'c> {
    /// Of a route of that kind.
    pub(super) fn new(lookup: &'a mut Lookup<'c>, kind: Kind, route: &'a ObjectName) -> Self {
        Self { lookup, kind, route, n: 0, problems: Problems::default(), backends: Vec::new() }
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
        matches: Result<ThinVec<Match>, String>,
    ) -> Rule {
        self.n = n;
        let mut rule = Rule {
            name: from.name.as_deref().map(Into::into),
            matches: ThinVec::new(),
            filters: ThinVec::new(),
            action: Action::Fail(Failure::InvalidMatch),
            timeouts: None,
            retry: None,
            policies: ThinVec::new(),
            session: None,
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
            None
        });
        rule.retry = from.retry.as_ref().and_then(|from| match retry(from) {
            Ok(retry) => Some(Box::new(retry)),
            Err(why) => {
                self.problems.ignored.push(self.at(&why));
                None
            }
        });
        rule.session = from.session_persistence.as_ref().and_then(|from| {
            match session::translate(from, &format!("{}/{n}", self.route)) {
                Ok(session) => Some(Box::new(session)),
                Err(why) => {
                    self.problems
                        .ignored
                        .push(self.at(&format!("sessionPersistence.{why}; there are no sessions")));
                    None
                }
            }
        });
        let prefixes_only = rule.matches.iter().all(|one| matches!(one.path, PathMatch::Prefix(_)));
        match self.steps(from, prefixes_only) {
            Ok((steps, action)) => {
                (rule.filters, rule.action) = (steps.into(), action);
            }
            Err((reason, why)) => {
                self.problems.dropped.push((reason, self.at(&why)));
                rule.action = Action::Fail(Failure::InvalidFilter);
            }
        }
        rule
    }

    fn steps(&mut self, from: &ApiRule, prefixes_only: bool) -> Result<(Vec<Filter>, Action), Refused> {
        let filters = filters::translate(from.filters.as_deref().unwrap_or_default(), prefixes_only)?;
        let Filters { mut steps, redirect, mirrors, authorizer } = filters;
        self.mirrors(&mut steps, &mirrors, "")?;
        if let Some((n, authorizer)) = authorizer {
            let field = format!("filters[{n}].externalAuth");
            match self.target(&reference!(authorizer.backend_ref), &format!("{field}.backendRef")) {
                Target::Backend(backend) => {
                    let refused = |why| (Reason::UnsupportedValue, format!("{field}.{why}"));
                    let authorizer = filters::authorizer(&authorizer, backend).map_err(refused)?;
                    steps.push(Filter::ExternalAuth(authorizer));
                }
                // Nobody to ask is no reason to let anybody pass.
                Target::Fail(failure) => return Ok((steps, Action::Fail(failure))),
            }
        }
        let action = match redirect {
            Some(redirect) => Action::Redirect(Box::new(redirect)),
            None => self.forward(from, prefixes_only)?,
        };
        Ok((steps, action))
    }

    fn forward(&mut self, from: &ApiRule, prefixes_only: bool) -> Result<Action, Refused> {
        let references = from.backend_refs.as_deref().unwrap_or_default();
        if references.is_empty() {
            return Ok(Action::Fail(Failure::NoBackends));
        }
        let mut split = ThinVec::with_capacity(references.len());
        for (m, reference) in references.iter().enumerate() {
            let field = format!("backendRefs[{m}]");
            let here = |(reason, why): Refused| (reason, format!("{field}.{why}"));
            let own = filters::of_backend(reference.filters.as_deref().unwrap_or_default()).map_err(here)?;
            let Filters { mut steps, redirect, mirrors, authorizer } =
                filters::translate(&own, prefixes_only).map_err(here)?;
            if redirect.is_some() {
                let why = "filters: a backend can't redirect; use the rule's filters".to_owned();
                return Err(here((Reason::IncompatibleFilters, why)));
            }
            if steps.iter().any(|step| matches!(step, Filter::Cors(_))) {
                let why = "filters: CORS is not supported on a backend; use the rule's filters".to_owned();
                return Err(here((Reason::UnsupportedValue, why)));
            }
            if authorizer.is_some() {
                let why =
                    "filters: ExternalAuth is not supported on a backend; use the rule's filters".to_owned();
                return Err(here((Reason::UnsupportedValue, why)));
            }
            self.mirrors(&mut steps, &mirrors, &format!("{field}."))?;
            let target = self.target(reference, &field);
            let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or_default();
            let session = match &target {
                Target::Backend(backend) if from.session_persistence.is_none() => {
                    backend_ref::session(self.lookup, backend).map(Box::new)
                }
                Target::Backend(_) | Target::Fail(_) => None,
            };
            split.push(WeightedBackend { target, weight, filters: steps.into(), session });
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
            match self.target(&reference!(mirror.backend_ref), &format!("{field}.requestMirror.backendRef")) {
                Target::Backend(backend) => {
                    steps.push(Filter::Mirror(Mirror { backend, numerator, denominator }));
                }
                Target::Fail(_) => {}
            }
        }
        Ok(())
    }

    fn target(&mut self, reference: &BackendRef, field: &str) -> Target {
        match backend_ref::resolve(self.lookup, self.kind.name(), &self.route.namespace, reference) {
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

fn retry(from: &ApiRetry) -> Result<Retry, String> {
    let code = |code: &i64| match u16::try_from(*code) {
        Ok(code @ 400..600) => Ok(code),
        Ok(_) | Err(_) => Err(format!("retry.codes: {code} is not a status of an error; nothing is retried")),
    };
    let backoff = match from.backoff.as_deref().map(gateway_api::Duration::from_str) {
        None => DEFAULT_BACKOFF,
        Some(Ok(duration)) => Duration::new(duration.as_secs(), duration.subsec_nanos()),
        Some(Err(error)) => return Err(format!("retry.backoff: {error}; nothing is retried")),
    };
    let attempts = from.attempts.unwrap_or(DEFAULT_ATTEMPTS);
    let attempts = u32::try_from(attempts)
        .map_err(|_| format!("retry.attempts: {attempts} is not a number of tries; nothing is retried"))?;
    Ok(Retry { codes: from.codes.iter().flatten().map(code).collect::<Result<_, _>>()?, attempts, backoff })
}

fn timeouts(from: Option<&ApiTimeouts>) -> Result<Option<Box<Timeouts>>, String> {
    let Some(from) = from else { return Ok(None) };
    let read = |field: &str, value: Option<&String>| match value {
        None => Ok(None),
        // GEP-2257 says how durations are written, GEP-1742 that zero is none.
        Some(value) => match gateway_api::Duration::from_str(value) {
            Ok(duration) => Ok(Some(Duration::new(duration.as_secs(), duration.subsec_nanos()))
                .filter(|duration| !duration.is_zero())),
            Err(error) => Err(format!("timeouts.{field}: {error}; there is no timeout")),
        },
    };
    let request = read("request", from.request.as_ref())?;
    let backend_request = read("backendRequest", from.backend_request.as_ref())?;
    Ok(Timeouts { request, backend_request }.boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_have_defaults() {
        let retry = |from| retry(&from);
        let plain = Retry { codes: vec![], attempts: 1, backoff: DEFAULT_BACKOFF };
        assert_eq!(retry(ApiRetry::default()), Ok(plain));
        let all =
            ApiRetry { attempts: Some(0), backoff: Some("1s500ms".into()), codes: Some(vec![503, 429]) };
        let backoff = Duration::from_millis(1500);
        assert_eq!(retry(all), Ok(Retry { codes: vec![503, 429], attempts: 0, backoff }));
    }

    #[test]
    fn retries_that_make_no_sense_are_told() {
        for (from, field) in [
            (ApiRetry { codes: Some(vec![200]), ..ApiRetry::default() }, "retry.codes: 200"),
            (ApiRetry { attempts: Some(-1), ..ApiRetry::default() }, "retry.attempts: -1"),
            (ApiRetry { backoff: Some("soon".into()), ..ApiRetry::default() }, "retry.backoff: "),
        ] {
            let why = retry(&from).unwrap_err();
            assert!(why.starts_with(field), "{why}");
        }
    }
}
