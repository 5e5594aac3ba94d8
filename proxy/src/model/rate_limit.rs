//! Rate limits: how many requests pass, counted by whom they are from.

use super::{Authorities, ObjectName, Redacted, Text};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// The limits that hold for a request. It passes when all of them let it; else none of them counts it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateLimits {
    /// At least one, sorted by name.
    pub limits: Vec<RateLimit>,
    /// What is said to clients.
    pub response: LimitResponse,
    /// Where rates are counted; absent: in this process. Concurrency always is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Arc<RateLimitStore>>,
}

/// A Redis or Valkey where all replicas count together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateLimitStore {
    /// `HOST:PORT` of the server, of sentinels, or of nodes of a cluster; none: what it needs is missing, and it can't be
    /// reached. The controller accepts only what [`crate::rate_limit::check_store`] does.
    pub addresses: Vec<Text>,
    /// What is behind the addresses.
    pub topology: StoreTopology,
    /// Absent: clear text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<StoreTls>,
    /// Absent: it wants none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<StoreCredentials>,
    /// How long a request waits for it at most.
    pub timeout: Duration,
    /// What all keys begin with.
    pub key_prefix: Text,
    /// What holds while it can't be reached.
    pub on_unavailable: OnUnavailable,
    /// Whether it may be at loopback and link-local addresses.
    pub local: bool,
}

/// What is behind the addresses of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum StoreTopology {
    /// One server.
    Single,
    /// Sentinels, who know the server.
    Sentinel {
        /// The name that they have for it.
        primary: Text,
    },
    /// A cluster, of which one node has all keys of the store.
    Cluster,
}

/// How a store is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreTls {
    /// Who may have issued its certificate.
    pub authorities: Authorities,
    /// The name that the certificate is for; absent: the host of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<Text>,
}

/// Who we are to a store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreCredentials {
    /// Absent: the default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<Text>,
    /// The password.
    pub password: Redacted<String>,
}

/// What holds while a store can't be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum OnUnavailable {
    /// Each replica counts by itself.
    #[default]
    Local,
    /// All requests pass.
    Allow,
    /// None does.
    Deny,
}

/// What clients are told of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LimitResponse {
    /// Status of requests that don't pass, 400 to 599.
    pub status: u16,
    /// Which fields tell of the tightest limit, whether the request passed or not. `Retry-After` is always there on those
    /// that didn't.
    pub headers: LimitHeaders,
}

impl Default for LimitResponse {
    fn default() -> Self {
        Self { status: 429, headers: LimitHeaders::Both }
    }
}

/// Fields that tell of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum LimitHeaders {
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    Standard,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds).
    Legacy,
    /// All of them.
    Both,
    /// None.
    None,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateLimit {
    /// The user's name for it.
    pub name: Text,
    /// The policy that it is of.
    pub policy: ObjectName,
    /// Whose counters they are: limits of equal scope, name, key and windows share them, whatever rule they are of.
    pub scope: Text,
    /// Count and tell, but let everything pass.
    #[serde(skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// Expressions that must all hold ([`crate::expression`]); a request for which they don't isn't counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Text>,
    /// What is counted apart; none: one counter for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<KeyPart>,
    /// For requests that lack a part of the key.
    pub on_missing_key: OnMissingKey,
    /// At least one, unless `concurrency` is there.
    pub rates: Vec<Rate>,
    /// What may pass at once under the first rate; absent: its limit. For token buckets only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How is counted.
    pub algorithm: Algorithm,
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// An expression: how many requests this one counts for, at most a million. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Text>,
    /// Who isn't counted.
    #[serde(skip_serializing_if = "Exemption::is_none")]
    pub exempt: Exemption,
    /// Other rates for some, sorted by name; the first that holds counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<RateOverride>,
}

/// A quantity in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// At least 1.
    pub limit: u32,
    /// 1 s to 8,784 h.
    pub window: Duration,
}

/// Rates of some instead of the limit's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateOverride {
    /// The user's name for it.
    pub name: Text,
    /// Expressions that must all hold.
    pub when: Vec<Text>,
    /// As [`RateLimit::rates`]; empty: no rate holds.
    pub rates: Vec<Rate>,
    /// As [`RateLimit::burst`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Who isn't counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Exemption {
    /// Networks of clients, `ADDRESS/LENGTH`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<Text>,
    /// Expressions, of which one is enough.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Text>,
}

impl Exemption {
    /// Whether everybody is counted.
    pub fn is_none(&self) -> bool {
        self.cidrs.is_empty() && self.when.is_empty()
    }
}

/// A part of what is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum KeyPart {
    /// The client's network: so many bits of its address.
    ClientIp {
        /// Of an IPv4 address, at most 32.
        ipv4_prefix: u8,
        /// Of an IPv6 address, at most 128.
        ipv6_prefix: u8,
    },
    /// A field; of several with that name, all.
    Header(Text),
    /// A cookie.
    Cookie(Text),
    /// A parameter of the query, still encoded.
    Query(Text),
    /// The path.
    Path,
    /// The method.
    Method,
    /// The host.
    Host,
    /// A claim of the request's token, by its name; members of members by dots.
    Claim(Text),
    /// The consumer that an authenticator knows.
    Consumer,
    /// An expression's value.
    Expression(Text),
}

/// What becomes of a request that lacks a part of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum OnMissingKey {
    /// The limit doesn't hold for it.
    #[default]
    Skip,
    /// It is counted with all others that lack it.
    Shared,
    /// It doesn't pass.
    Reject,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Algorithm {
    /// A bucket of `burst` tokens that fills at the rate (GCRA).
    #[default]
    TokenBucket,
    /// The window before counts by how much of it lies within the last window's length.
    SlidingWindow,
    /// Windows one after the other, that begin with the clock's.
    FixedWindow,
}

fn is_false(flag: &bool) -> bool {
    !flag
}
