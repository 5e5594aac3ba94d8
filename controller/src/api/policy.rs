//! What all kinds of policy have in common: the form of their status.
//!
//! Each kind has types of its own for it, alike in every field. Everything behind this module sees one.

use super::BackendTlsPolicy;
pub use super::backend_tls_policy::{AncestorRef, AncestorStatus, BackendTlsPolicyStatus as PolicyStatus};
use crate::cluster::Watched;
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, RateLimitPolicy, policy};

/// A kind of policy.
pub trait Policy: Watched {
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

impl Policy for RateLimitPolicy {
    fn policy_status(&self) -> Option<PolicyStatus> {
        self.status.as_ref().map(same)
    }
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
