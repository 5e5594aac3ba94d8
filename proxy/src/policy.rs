//! Policies in force, compiled.

use crate::metrics::Metrics;
use crate::model;
use crate::rate_limit::RateLimits;

/// What holds for requests of a rule that come by some listeners.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) rate_limits: Option<RateLimits>,
}

impl Policies {
    pub(crate) fn compile(from: &model::Policies, metrics: &Metrics) -> Self {
        let rate_limits = from.rate_limits.as_ref().map(|limits| RateLimits::compile(limits, metrics));
        Self { rate_limits }
    }
}
