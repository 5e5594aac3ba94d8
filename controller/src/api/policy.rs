//! What all kinds of policy, and XBackend, have in common: the form of their status.
//!
//! Each kind has types of its own for it, alike in every field. Everything behind this module sees one.

pub use super::backend_tls_policy::{AncestorRef, AncestorStatus, BackendTlsPolicyStatus as PolicyStatus};
use super::{BackendTlsPolicy, XBackend, XBackendTrafficPolicy};
use crate::cluster::Watched;
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, ClientPolicy, RateLimitPolicy, policy};
use serde::Serialize;
use serde_json::json;

/// A kind of policy.
pub trait Policy: Watched<Kept = Self> {
    /// Its status, if it has one.
    fn policy_status(&self) -> Option<PolicyStatus>;
}

impl Policy for BackendTlsPolicy {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.clone()
    }
}

impl Policy for AuthPolicy {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.as_ref().map(same)
    }
}

impl Policy for CircuitBreakerPolicy {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.as_ref().map(same)
    }
}

impl Policy for ClientPolicy {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.as_ref().map(same)
    }
}

impl Policy for RateLimitPolicy {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.as_ref().map(same)
    }
}

impl Policy for XBackend {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.as_ref().and_then(alike)
    }
}

impl Policy for XBackendTrafficPolicy {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.as_ref().and_then(alike)
    }
}

/// A status of the same fields, of which some may be missing: what isn't there says as little as what can't be read.
fn alike(status: &impl Serialize) -> Option<PolicyStatus> {
    let mut status = serde_json::to_value(status).ok()?;
    let ancestors = status.as_object_mut()?.entry("ancestors").or_insert_with(|| json!([]));
    for ancestor in ancestors.as_array_mut()? {
        ancestor.as_object_mut()?.entry("conditions").or_insert_with(|| json!([]));
    }
    serde_json::from_value(status).ok()
}

/// The status of a kind of Headgate's own.
fn same(status: &policy::PolicyStatus) -> PolicyStatus {
    let ancestor = |from: &policy::AncestorStatus| {
        let policy::AncestorRef { group, kind, namespace, name, section_name, port } =
            from.ancestor_ref.clone();
        AncestorStatus {
            ancestor_ref: AncestorRef { group, kind, namespace, name, section_name, port },
            conditions: from.conditions.clone(),
            controller_name: from.controller_name.clone(),
        }
    };
    PolicyStatus { ancestors: status.ancestors.iter().map(ancestor).collect() }
}
