//! What all kinds of policy have in common: what they attach to, what wins over what, and the form of their status.
//!
//! Fields of policies have no defaults in the schema: a value that the API server filled in would win over one that a
//! policy further up does say. Defaults are in the documentation, and are put in force when all policies are merged.

pub mod auth;
pub mod circuit_breaker;
pub mod client;
pub mod oidc;
pub mod rate_limit;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a policy is for.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// `gateway.networking.k8s.io`; of a Service the empty string.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the target.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the target, in the policy's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A part of the target: a listener of a Gateway or ListenerSet, a rule (by its name) of a route, a port of a Service. Absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// How this policy meets policies of its kind on more specific targets.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Strategy {
    /// `Default` or `Override`.
    pub inheritance: Inheritance,
}

/// Who wins, field by field. `Default`: what a policy on a more specific target says (Gateway, then listener, then route,
/// then rule). `Override`: what this one says; a policy on a more specific target may add to it, but change nothing of it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Inheritance {
    /// More specific policies win.
    #[default]
    Default,
    /// This policy wins.
    Override,
}

/// Whether the policy acts. `Enforce` (the default), or `Shadow`: it is evaluated, counted and logged, but changes nothing
/// for anybody, to try it out.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Mode {
    /// It acts.
    #[default]
    Enforce,
    /// It is only watched.
    Shadow,
}

/// A port of a Service.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRef {
    /// The Service.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its namespace. Absent: the policy's. Another one has to allow it, by a ReferenceGrant from policies of this kind (group `headgate.dev`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Its port.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
}

/// Status of a policy.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// What each Gateway that the policy has an effect on says of it.
    #[schemars(length(max = 16))]
    pub ancestors: Vec<AncestorStatus>,
}

/// What one Gateway says of a policy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The Gateway; where a target isn't there, the target.
    pub ancestor_ref: AncestorRef,
    /// `Accepted`, `ResolvedRefs` and `Programmed`.
    #[schemars(length(max = 8))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Who says so.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
}

/// An object that a policy has an effect on.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AncestorRef {
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub kind: Option<String>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub section_name: Option<String>,
    /// A port of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// Group and kinds of the targets that policies of requests have.
pub(crate) const REQUEST_TARGETS: &str = "self.all(target, target.group == 'gateway.networking.k8s.io' \
    && target.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute'])";
/// What is said of others.
pub(crate) const REQUEST_TARGETS_MESSAGE: &str = "targetRefs take a Gateway, ListenerSet, HTTPRoute or GRPCRoute of \
    group gateway.networking.k8s.io";
/// Group and kinds of the targets that policies of listeners have.
pub(crate) const LISTENER_TARGETS: &str = "self.all(target, target.group == 'gateway.networking.k8s.io' \
    && target.kind in ['Gateway', 'ListenerSet'])";
/// What is said of others.
pub(crate) const LISTENER_TARGETS_MESSAGE: &str =
    "targetRefs take a Gateway or ListenerSet of group gateway.networking.k8s.io";
/// All targets are of one kind.
pub(crate) const ONE_KIND: &str = "self.all(target, target.kind == self[0].kind)";
/// What is said otherwise.
pub(crate) const ONE_KIND_MESSAGE: &str = "all targetRefs are of one kind; write a policy for each kind";
/// GEP-2257, without a length of nothing.
pub(crate) const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// Names that users give to entries. Which letters they have is for the controller to judge: a pattern over names of
/// unknown length is beyond the API server's cost limit.
pub(crate) const ENTRY_NAMES: &str = "self.all(name, name.size() <= 63)";
/// What is said of others.
pub(crate) const ENTRY_NAMES_MESSAGE: &str =
    "names of entries are up to 63 lower-case letters, digits and '-', such as per-client";
