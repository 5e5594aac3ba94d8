//! The routing model: the whole configuration of the proxy as plain immutable data.
//!
//! The controller (or anything else) builds a [`Model`]; [`crate::snapshot`] compiles it. Nothing in this
//! folder does I/O, knows Kubernetes, or holds anything compiled: names are text, patterns are text,
//! certificates are PEM. What is broken is data too: a reference that was refused is a
//! [`Target::Fail`] or an [`Action::Fail`], never a missing route.
//!
//! Parts are behind [`Arc`] and keyed by typed ids, so that a model made from the one before it shares what
//! did not change, and a compile can tell by pointer what is equal.

mod auth;
mod backend;
mod backend_policy;
mod clients;
mod filter;
mod id;
mod listener;
mod matches;
mod policy;
mod rate_limit;
mod route;
mod sorted;
mod stream;

pub use auth::{
    AnswerCache, ApiKeyAuth, Auth, AuthAction, AuthMethod, Authenticator, Authorization, AuthorizationRule,
    BasicAuth, ClaimToHeader, ClientCertificateAuth, CredentialSource, ExternalAuthenticator, Guard, JwtAuth,
    JwtKeys, OidcAuth, OidcCookie, RemoteKeys, Requirement, SameSite,
};
pub use backend::{
    Authorities, Backend, BackendProtocol, BackendTls, Endpoint, EndpointSet, RetryBudget, SubjectAltName,
};
pub use backend_policy::{
    BackendLimits, BackendPolicy, Breaker, BreakerScope, Ejection, FailurePercent, FailureWhen, OnOpen,
    Ratio, SlowRatio, Trip,
};
pub use clients::{
    ClientAddress, ClientHeaders, ClientHttp2, ClientLimits, ClientPath, ClientTimeouts, ClientTls,
    ClientTrial, Clients, EscapedSlashes, ProxyProtocol, TlsVersion, Underscores,
};
pub use filter::{
    AuthProtocol, Cors, ExternalAuth, Filter, HeaderEdits, Mirror, PathRewrite, Redirect, Rewrite, Scheme,
};
pub use id::{BackendId, BackendKind, ListenerId, ObjectName, PortId, RouteId, RouteKind, Text, Transport};
pub use listener::{
    Certificate, ClientValidation, ClientValidationMode, Content, HostPattern, Listener, ListenerFilter,
    Port, PortProtocol, Redacted, Staple, Tls,
};
pub use matches::{Match, PathMatch, StringMatch, ValueMatch};
pub use policy::{Policies, ScopedPolicies};
pub use rate_limit::{
    Algorithm, Exemption, KeyPart, LimitHeaders, LimitResponse, OnMissingKey, OnUnavailable, Rate, RateLimit,
    RateLimitStore, RateLimits, RateOverride, StoreCredentials, StoreTls, StoreTopology,
};
pub use route::{Action, Carrier, Failure, Retry, Route, Rule, Session, Target, Timeouts, WeightedBackend};
pub use sorted::Sorted;
pub use stream::StreamRoute;
/// A list that takes one word where it is empty.
pub use thin_vec::{ThinVec, thin_vec};

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything the proxy serves, from one point in time.
///
/// Serializes as three lists (`ports`, `routes`, `backends`) and one map of endpoints, sorted by id: the form that
/// `headgate translate` and `/config` print. Private keys serialize as `"[redacted]"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Model {
    /// Ports to listen on, each with its listeners.
    #[serde(serialize_with = "ports")]
    pub ports: BTreeMap<PortId, Arc<Port>>,
    /// Routes, each naming the listeners it is attached to.
    #[serde(serialize_with = "values")]
    pub routes: Sorted<RouteId, Route>,
    /// Routes of what isn't HTTP.
    #[serde(serialize_with = "values", skip_serializing_if = "Sorted::is_empty")]
    pub stream_routes: Sorted<RouteId, StreamRoute>,
    /// Targets of routes, without their endpoints. A [`Target::Backend`] always names one of these.
    #[serde(serialize_with = "values")]
    pub backends: Sorted<BackendId, Backend>,
    /// Live endpoints of each backend. Swapped on their own ([`crate::snapshot::Publisher::publish_endpoints`]).
    /// A backend that has no entry here has no endpoints.
    #[serde(serialize_with = "endpoint_sets")]
    pub endpoints: Sorted<BackendId, EndpointSet>,
}

fn ports<S: Serializer>(map: &BTreeMap<PortId, Arc<Port>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(map.values())
}

fn values<K, V: Serialize, S: Serializer>(map: &Sorted<K, V>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(map.values())
}

fn endpoint_sets<S: Serializer>(map: &Sorted<BackendId, EndpointSet>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(map.iter().map(|(id, set)| (id.to_string(), set)))
}
