//! Policies in force, compiled.

use crate::auth::{Auth, Guard};
use crate::headers::Touched;
use crate::model;
use crate::rate_limit::RateLimits;
use crate::router::Context;

/// What holds for requests of a rule that come by some listeners.
#[derive(Debug)]
pub(crate) struct Policies {
    /// Limits that can be asked before anybody is known.
    pub(crate) rate_limits: Option<RateLimits>,
    pub(crate) guard: Option<Guard>,
    /// What would guard if policies in shadow acted.
    pub(crate) tried_auth: Option<Auth>,
    /// Limits that count by who the client is.
    pub(crate) limits_of_known: Option<RateLimits>,
    /// The fields of a request that they look at or change.
    pub(crate) touch: Touched,
    /// Bytes that a request's body may have.
    pub(crate) request_body_bytes: Option<u64>,
    /// Bytes that it might have if policies in shadow acted.
    pub(crate) tried_body_bytes: Option<u64>,
}

impl Policies {
    /// Whether it matters who a client is.
    pub(crate) fn has_guard(&self) -> bool {
        self.guard.is_some() || self.tried_auth.is_some()
    }

    pub(crate) fn compile(from: &model::Policies, context: &mut Context<'_>) -> Self {
        let limits = from.rate_limits.as_ref().map(|limits| RateLimits::compile(limits, context.metrics));
        let guard = from.guard.as_ref().map(|guard| Guard::compile(guard, context));
        let (rate_limits, limits_of_known) = match guard {
            // Nobody is known: all are asked together.
            None => (limits, None),
            Some(_) => limits.map_or((None, None), RateLimits::split),
        };
        let tried_auth = from.tried_auth.as_ref().and_then(|tried| Auth::compile(tried, context));
        let (request_body_bytes, tried_body_bytes) = (from.request_body_bytes, from.tried_body_bytes);
        let limits = [&rate_limits, &limits_of_known].into_iter().flatten().map(RateLimits::touch);
        let auth = guard.iter().map(Guard::touches).chain(tried_auth.iter().map(Auth::touches));
        let touch = limits.chain(auth).collect();
        Self { rate_limits, guard, tried_auth, limits_of_known, touch, request_body_bytes, tried_body_bytes }
    }
}
