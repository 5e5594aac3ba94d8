//! Routes: which requests on which listeners go where. One form for all HTTP kinds of route.

use super::{BackendId, Filter, HostPattern, ListenerId, Match, Redirect, RouteId, ScopedPolicies, Text};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use thin_vec::ThinVec;

/// One route object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Route {
    /// Who it is.
    pub id: RouteId,
    /// Seconds since the Unix epoch when the object was created: the older of two equal matches wins.
    pub created: i64,
    /// Listeners that accepted it, sorted. Empty: it serves nothing.
    pub listeners: Arc<[ListenerId]>,
    /// Hostnames **as written**, never empty (`Any` when the object names none). A request must match its listener's
    /// hostname and one of these.
    pub hostnames: ThinVec<HostPattern>,
    /// Rules in the order of the object.
    pub rules: ThinVec<Rule>,
}

/// One rule of a route. Small: there are thousands, and most have little of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Its name, if it has one (`sectionName` of policies).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Alternatives. Empty: the rule takes no request, because nobody knows which ones were meant.
    pub matches: ThinVec<Match>,
    /// Steps for every request that the rule takes.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub filters: ThinVec<Filter>,
    /// What happens then.
    pub action: Action,
    /// Bounds on the time it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Box<Timeouts>>,
    /// When a request is sent once more. Absent: only when nothing of it can have reached a backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<Retry>>,
    /// Policies in force, by listener.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub policies: ThinVec<ScopedPolicies>,
    /// What sends a client to the same endpoint again, whichever backend it is of. Absent: what each backend has for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Box<Session>>,
}

/// `sessionPersistence`, GEP-1619.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// What carries the token.
    pub carrier: Carrier,
    /// How long a session lasts at most. Absent: as long as the client keeps its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Duration>,
}

/// What carries the token of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Carrier {
    /// A cookie.
    Cookie {
        /// Its name.
        name: Text,
        /// Its `Path`.
        path: Text,
        /// Whether clients keep it as long as the session lasts, which then must have a lifetime; else they forget it
        /// with their own session.
        permanent: bool,
    },
    /// A field of the answer, which the client sends back.
    Header {
        /// Its name, in lower case.
        name: Text,
    },
}

/// `retry`, GEP-1731.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// Status codes of answers after which it is tried again, if its method is idempotent. Failures to get an answer
    /// needn't be named.
    pub codes: Vec<u16>,
    /// Tries after the first; 0 is none.
    pub attempts: u32,
    /// The first pause; each one is longer.
    pub backoff: Duration,
}

/// What a rule does with a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Action {
    /// Forward to one of these, chosen by weight. When all weights are 0 (or the list is empty) the answer is 500.
    Forward(ThinVec<WeightedBackend>),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer with an error: the rule could not be honoured.
    Fail(Failure),
}

/// One `backendRef`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightedBackend {
    /// Where its share goes.
    pub target: Target,
    /// Its share is `weight` of the sum of all.
    pub weight: u32,
    /// Steps for requests that go there, after the rule's.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub filters: ThinVec<Filter>,
    /// What sends a client to the same endpoint of this backend again, where the rule doesn't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Box<Session>>,
}

impl WeightedBackend {
    /// A share of which nothing else is said.
    pub fn new(target: Target, weight: u32) -> Self {
        Self { target, weight, filters: ThinVec::new(), session: None }
    }
}

/// The end of a `backendRef`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Target {
    /// A backend of the model.
    Backend(BackendId),
    /// A reference that was refused: its share gets an error.
    Fail(Failure),
}

/// Why a part of a route answers 500 instead of doing what it says. Told in full in the object's status; the client
/// sees only the status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Failure {
    /// The rule names no backend.
    NoBackends,
    /// The Service or its port doesn't exist.
    BackendNotFound,
    /// The reference is of a kind that can't be forwarded to.
    BackendKind,
    /// The reference crosses namespaces without a ReferenceGrant.
    RefNotPermitted,
    /// The Service speaks a protocol that isn't supported, or may not be used (ExternalName).
    UnsupportedBackend,
    /// TLS to the backend is asked for in a way that can't be honoured: no authority to verify it by.
    BackendTls,
    /// A filter that doesn't exist, isn't supported, or is incomplete.
    InvalidFilter,
    /// A match that can't be compiled (a malformed regular expression).
    InvalidMatch,
}

/// Bounds on time, GEP-1742. Absent: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// From the whole request head read to the whole response sent, over all tries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One try, from first byte sent to the backend to the response's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

impl Timeouts {
    /// Whether there is no bound at all.
    pub fn is_none(&self) -> bool {
        self.request.is_none() && self.backend_request.is_none()
    }

    /// As a rule has them.
    pub fn boxed(self) -> Option<Box<Self>> {
        (!self.is_none()).then(|| Box::new(self))
    }
}
