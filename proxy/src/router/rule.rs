//! What a request finds: a compiled rule with everything decided that can be decided before a request comes.
//!
//! A route is compiled once per change of its object, not per listener. What can't be compiled answers 500 where it
//! would have matched, and is logged: the controller refuses such things before they get here.

use super::compile_regex;
use super::conditions::Conditions;
use super::path::{Candidate, PathTest};
use super::precedence::{Rank, Seniority};
use crate::filter::{Filters, Redirect, Terms};
use crate::metrics::{Metrics, RuleMetrics};
use crate::model::{
    self, Backend, BackendId, BackendProtocol, Failure, HostPattern, ListenerId, PathMatch, Retry, RouteId,
    Sorted, Text, Timeouts,
};
use crate::path::normalise;
use crate::policy::Policies;
use crate::rejection::Rejection;
use crate::session::Session;
use crate::upstream::{BackendState, Registry};
use std::fmt;
use std::sync::Arc;

/// Which rule: for logs and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleId {
    /// Its route.
    pub route: RouteId,
    /// Its position in the route, from 0.
    pub index: u32,
    /// Its name, if it has one.
    pub name: Option<Text>,
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}", self.route),
            None => write!(f, "{}/{}", self.route, self.index),
        }
    }
}

/// Policies, and the listeners that they hold for.
type Scoped = (Box<[ListenerId]>, Arc<Policies>);

/// A compiled rule. Requests share it and may outlive the snapshot it came from.
#[derive(Debug)]
pub struct Rule {
    /// Who it is.
    pub id: RuleId,
    /// Steps for each request and response.
    pub filters: Filters,
    /// What happens to the request.
    pub action: Action,
    /// In a box: of thousands of rules most have nothing of it.
    extras: Option<Box<Extras>>,
    /// Its counters.
    pub metrics: Arc<RuleMetrics>,
}

/// What few rules have.
#[derive(Debug)]
struct Extras {
    mirrors: Box<[Mirror]>,
    authorizer: Option<Authorizer>,
    timeouts: Timeouts,
    retry: Option<Retry>,
    policies: Box<[Scoped]>,
    session: Option<Session>,
}

impl Extras {
    fn boxed(self) -> Option<Box<Self>> {
        let Self { mirrors, authorizer, timeouts, retry, policies, session } = &self;
        let none = mirrors.is_empty()
            && authorizer.is_none()
            && timeouts.is_none()
            && retry.is_none()
            && policies.is_empty()
            && session.is_none();
        (!none).then(|| Box::new(self))
    }
}

impl Rule {
    /// Who gets copies of requests.
    pub fn mirrors(&self) -> &[Mirror] {
        self.extras.as_ref().map_or(&[], |extras| &extras.mirrors)
    }

    /// Who is asked whether a request may pass.
    pub fn authorizer(&self) -> Option<&Authorizer> {
        self.extras.as_ref()?.authorizer.as_ref()
    }

    /// Bounds on the time it may take.
    pub fn timeouts(&self) -> Timeouts {
        self.extras.as_ref().map(|extras| extras.timeouts).unwrap_or_default()
    }

    /// When a request is tried again.
    pub fn retry(&self) -> Option<&Retry> {
        self.extras.as_ref()?.retry.as_ref()
    }

    /// What sends a client to the same endpoint again.
    pub fn session(&self) -> Option<&Session> {
        self.extras.as_ref()?.session.as_ref()
    }

    /// The policies in force for requests that come by a listener.
    pub(crate) fn policies(&self, listener: &ListenerId) -> Option<&Arc<Policies>> {
        let scoped = &self.extras.as_ref()?.policies;
        scoped.iter().find(|(listeners, _)| listeners.contains(listener)).map(|(_, policies)| policies)
    }
}

/// What a rule does with a request.
#[derive(Debug)]
pub enum Action {
    /// Forward to a backend.
    Forward(Split),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer with an error.
    Fail(Rejection),
}

/// Backends by weight.
#[derive(Debug)]
pub struct Split {
    /// With the sum of weights up to and with each; those of weight 0 aren't here. Never empty.
    backends: Box<[(u64, SplitBackend)]>,
}

/// One share of a [`Split`].
#[derive(Debug)]
pub struct SplitBackend {
    /// The backend, or what its share is answered with.
    pub target: Result<Arc<BackendState>, Rejection>,
    /// Steps for requests that go there, after the rule's.
    pub filters: Filters,
    /// Who gets copies of them, besides the rule's.
    pub mirrors: Box<[Mirror]>,
    /// What sends a client to the same endpoint again, where the rule doesn't say.
    pub session: Option<Box<Session>>,
}

/// Who gets copies of requests.
#[derive(Debug)]
pub struct Mirror {
    /// Where they go.
    pub backend: Arc<BackendState>,
    numerator: u32,
    denominator: u32,
}

impl Mirror {
    /// Whether a request gets copied, given a uniformly random number.
    pub fn wants(&self, random: u32) -> bool {
        (u64::from(random) * u64::from(self.denominator)) >> 32 < u64::from(self.numerator)
    }

    fn compile(from: &[model::Filter], context: &mut Context<'_>) -> Box<[Self]> {
        let mirror = |filter: &model::Filter| match filter {
            model::Filter::Mirror(from) => Some(Self {
                backend: context.backend(&from.backend),
                numerator: from.numerator,
                denominator: from.denominator,
            }),
            model::Filter::RequestHeaders(_)
            | model::Filter::ResponseHeaders(_)
            | model::Filter::Rewrite(_)
            | model::Filter::Cors(_)
            | model::Filter::ExternalAuth(_) => None,
        };
        from.iter().filter_map(mirror).collect()
    }
}

/// Who is asked whether a request may pass.
#[derive(Debug)]
pub struct Authorizer {
    /// Where it is.
    pub backend: Arc<BackendState>,
    /// What it is told and may do.
    pub terms: Terms,
}

impl Authorizer {
    /// Of a listener: asked before there is a rule.
    pub(super) fn of_listener(
        from: &model::ListenerFilter,
        context: &mut Context<'_>,
    ) -> Result<Self, Rejection> {
        match from {
            model::ListenerFilter::Fail(failure) => Err(Rejection::Config(*failure)),
            model::ListenerFilter::ExternalAuth(from) => match Terms::compile(from) {
                Ok(terms) => Ok(Self { backend: context.backend(&from.backend), terms }),
                Err(error) => {
                    tracing::error!(%error, "a listener's filter can't be compiled: the listener answers 500");
                    Err(Rejection::Config(Failure::InvalidFilter))
                }
            },
        }
    }

    /// `None` is no authorizer: what can't be compiled is the rule's failure, which [`Filters`] found.
    fn compile(from: &[model::Filter], context: &mut Context<'_>) -> Option<Self> {
        from.iter().find_map(|filter| match filter {
            model::Filter::ExternalAuth(from) => {
                let terms = Terms::compile(from).ok()?;
                Some(Self { backend: context.backend(&from.backend), terms })
            }
            model::Filter::RequestHeaders(_)
            | model::Filter::ResponseHeaders(_)
            | model::Filter::Rewrite(_)
            | model::Filter::Cors(_)
            | model::Filter::Mirror(_) => None,
        })
    }
}

impl Split {
    /// The share that a uniformly random number falls into.
    pub fn pick(&self, random: u32) -> &SplitBackend {
        let [(total, only)] = &*self.backends else {
            let total = self.backends.last().map_or(0, |(total, _)| *total);
            // Below the total, for the random number is below 2^32.
            let point = (u128::from(random) * u128::from(total)) >> 32;
            let index = self.backends.partition_point(|(end, _)| u128::from(*end) <= point);
            return &self.backends[index].1;
        };
        debug_assert!(*total > 0);
        only
    }

    /// Whether a backend has a share.
    pub(crate) fn has(&self, backend: &Arc<BackendState>) -> bool {
        self.backends().any(|share| share.target.as_ref().is_ok_and(|had| Arc::ptr_eq(had, backend)))
    }

    /// The share at a position among [`Split::backends`].
    pub(crate) fn share(&self, position: usize) -> &SplitBackend {
        &self.backends[position].1
    }

    /// All shares that get requests.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &SplitBackend> {
        self.backends.iter().map(|(_, backend)| backend)
    }

    pub(crate) fn compile(from: &[model::WeightedBackend], context: &mut Context<'_>) -> Self {
        let mut total = 0;
        let mut backends = Vec::with_capacity(from.len());
        for backend in from.iter().filter(|backend| backend.weight > 0) {
            total += u64::from(backend.weight);
            backends.push((total, SplitBackend::compile(backend, context)));
        }
        if backends.is_empty() {
            // Gateway API, HTTPBackendRef.weight: nothing to forward to is a 500.
            let target = Err(Rejection::Config(Failure::NoBackends));
            backends.push((1, SplitBackend::bare(target)));
        }
        Self { backends: backends.into() }
    }
}

impl SplitBackend {
    fn compile(from: &model::WeightedBackend, context: &mut Context<'_>) -> Self {
        let target = match &from.target {
            model::Target::Backend(id) => Ok(context.backend(id)),
            model::Target::Fail(failure) => Err(Rejection::Config(*failure)),
        };
        match Filters::compile(&from.filters) {
            Ok(filters) => {
                let (mirrors, session) = (Mirror::compile(&from.filters, context), from.session.as_deref());
                Self {
                    target,
                    filters,
                    mirrors,
                    session: compile_session(session, &"a backend").map(Box::new),
                }
            }
            Err(error) => {
                tracing::error!(%error, "a backend's filter can't be compiled: its share answers 500");
                Self::bare(Err(Rejection::Config(Failure::InvalidFilter)))
            }
        }
    }

    fn bare(target: Result<Arc<BackendState>, Rejection>) -> Self {
        Self { target, filters: Filters::default(), mirrors: Box::default(), session: None }
    }
}

/// What a compile needs beside the route.
pub(crate) struct Context<'a> {
    pub(crate) registry: &'a mut Registry,
    pub(crate) metrics: &'a Metrics,
    pub(crate) auth: &'a mut crate::auth::Registry,
    pub(crate) backends: &'a Sorted<BackendId, Backend>,
}

impl Context<'_> {
    /// The backend of that id.
    pub(crate) fn backend(&mut self, id: &BackendId) -> Arc<BackendState> {
        match self.backends.get(id) {
            Some(backend) => self.registry.backend(backend),
            // Against the model's contract: without endpoints it answers 503, and works once the backend appears.
            None => self.registry.backend(&Backend::new(id.clone(), BackendProtocol::Http1)),
        }
    }
}

/// A route ready to be put into tables.
#[derive(Debug)]
pub(crate) struct CompiledRoute {
    /// What it was compiled from.
    pub(crate) source: Arc<model::Route>,
    /// Each once.
    pub(crate) hostnames: Box<[HostPattern]>,
    pub(crate) candidates: Box<[Arc<Candidate>]>,
}

impl CompiledRoute {
    pub(crate) fn compile(source: &Arc<model::Route>, context: &mut Context<'_>) -> Self {
        let mut hostnames = source.hostnames.clone();
        hostnames.sort();
        hostnames.dedup();
        let seniority = Arc::new(Seniority::new(source.created, &source.id));
        let mut candidates = Vec::new();
        for (index, rule) in (0..).zip(&source.rules) {
            compile_rule(source, index, rule, &seniority, context, &mut candidates);
        }
        Self { source: source.clone(), hostnames: hostnames.into(), candidates: candidates.into() }
    }
}

fn compile_rule(
    route: &model::Route,
    index: u32,
    from: &model::Rule,
    seniority: &Arc<Seniority>,
    context: &mut Context<'_>,
    candidates: &mut Vec<Arc<Candidate>>,
) {
    let id = RuleId { route: route.id.clone(), index, name: from.name.clone() };
    let mut matches = Vec::with_capacity(from.matches.len());
    let mut broken = None;
    for (alternative, one) in (0..).zip(&from.matches) {
        let conditions = Conditions::compile(one).unwrap_or_else(|error| {
            tracing::error!(rule = %id, %error, "a match can't be compiled: the rule answers 500");
            broken = Some(Failure::InvalidMatch);
            // Fails closed: what the condition would have let through or held back is all refused.
            Conditions::of_method(one)
        });
        match compile_path(&one.path) {
            Ok(path) => {
                matches.push((Rank::new(one, seniority.clone(), index, alternative), path, conditions))
            }
            Err(error) => {
                tracing::error!(rule = %id, %error, "a path can't be compiled: the rule's other matches answer 500");
                broken = Some(Failure::InvalidMatch);
            }
        }
    }
    let (filters, action) = compile_steps(from, broken, &id, context);
    let mirrors = Mirror::compile(&from.filters, context);
    let authorizer = Authorizer::compile(&from.filters, context);
    let metrics = context.metrics.rule(&id.route, index, id.name.as_ref());
    let retry = from.retry.as_deref().filter(|retry| retry.attempts > 0).cloned();
    let timeouts = from.timeouts.as_deref().copied().unwrap_or_default();
    let compile = |from: &model::ScopedPolicies| {
        let policies = Policies::compile(&from.policies, context);
        (from.listeners.clone().into(), Arc::new(policies))
    };
    let policies = from.policies.iter().map(compile).collect();
    let session = compile_session(from.session.as_deref(), &id);
    let extras = Extras { mirrors, authorizer, timeouts, retry, policies, session }.boxed();
    let rule = Arc::new(Rule { id, filters, action, extras, metrics });
    candidates.extend(
        matches.into_iter().map(|(rank, path, conditions)| {
            Arc::new(Candidate { rank, path, conditions, rule: rule.clone() })
        }),
    );
}

fn compile_session(from: Option<&model::Session>, of: &dyn fmt::Display) -> Option<Session> {
    let refuse = |error| tracing::error!(%of, %error, "sessions can't be compiled: there are none");
    Session::compile(from?).map_err(refuse).ok()
}

fn compile_steps(
    from: &model::Rule,
    broken: Option<Failure>,
    id: &RuleId,
    context: &mut Context<'_>,
) -> (Filters, Action) {
    let fail = |failure| (Filters::default(), Action::Fail(Rejection::Config(failure)));
    if let Some(failure) = broken {
        return fail(failure);
    }
    let filters = match Filters::compile(&from.filters) {
        Ok(filters) => filters,
        Err(error) => {
            tracing::error!(rule = %id, %error, "a filter can't be compiled: the rule answers 500");
            return fail(Failure::InvalidFilter);
        }
    };
    let action = match &from.action {
        model::Action::Forward(backends) => Action::Forward(Split::compile(backends, context)),
        model::Action::Redirect(redirect) => match Redirect::compile(redirect) {
            Ok(redirect) => Action::Redirect(Box::new(redirect)),
            Err(error) => {
                tracing::error!(rule = %id, %error, "a redirect can't be compiled: the rule answers 500");
                Action::Fail(Rejection::Config(Failure::InvalidFilter))
            }
        },
        model::Action::Fail(failure) => Action::Fail(Rejection::Config(*failure)),
    };
    (filters, action)
}

/// Brings a path condition to the form that request paths have when they are matched.
fn compile_path(from: &PathMatch) -> Result<PathTest, String> {
    let normal = |path: &Text| match normalise(path) {
        Ok(normal) if *normal == **path => Ok(path.clone()),
        Ok(normal) => Ok(normal.into()),
        Err(_) => Err(format!("{path:?} is no path that a request can have")),
    };
    Ok(match from {
        PathMatch::Exact(path) => PathTest::Exact(normal(path)?),
        PathMatch::Regex(pattern) => PathTest::Regex(Box::new(compile_regex(pattern)?)),
        PathMatch::Prefix(path) => {
            let path = normal(path)?;
            PathTest::Prefix(match path.trim_end_matches('/') {
                "" => "/".into(),
                trimmed if trimmed.len() == path.len() => path,
                trimmed => trimmed.into(),
            })
        }
    })
}
