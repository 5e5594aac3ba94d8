//! Policies in force for the requests of a rule: merged already, so that nobody here knows where each part came from.

use super::{Auth, Guard, ListenerId, RateLimits};
use serde::Serialize;
use std::sync::Arc;

/// What holds for requests of a rule that come by some of its listeners.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScopedPolicies {
    /// By which listeners; each listener of a route is in at most one entry of a rule.
    pub listeners: Vec<ListenerId>,
    /// What holds.
    pub policies: Arc<Policies>,
}

/// Policies of all kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Policies {
    /// How many requests pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<RateLimits>,
    /// Who passes, and what they may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Who would pass if policies in shadow acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried_auth: Option<Arc<Auth>>,
    /// Bytes that a request's body may have; more is answered 413. Absent: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body_bytes: Option<u64>,
    /// Fewer, which policies in shadow say; more is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried_body_bytes: Option<u64>,
}
