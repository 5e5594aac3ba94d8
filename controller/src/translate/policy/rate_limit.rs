//! RateLimitPolicies: to limits of the model.

use super::duration::{self, Bounds};
use super::merge::{Field, Merged, Path, SHADOW, Shape, assemble};
use super::resolve::Resolver;
use super::{At, Came, Common, OfRequests, Policy};
use crate::status::ConditionType;
use headgate_crds::RateLimitPolicy;
use headgate_crds::policy::rate_limit::{
    Algorithm, ClientIp, Exempt, KeyPart, Limit, LimitHeaders, LimitResponse, OnMissingKey, OnUnavailable,
    Rate, RateOverride, Redis, RedisMode, Scope, Store, StoreType,
};
use headgate_proxy::model::{self, ObjectName, RateLimits, Text};
use headgate_proxy::rate_limit;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Bits of addresses that a client is told by: all of IPv4, and what one client has of IPv6.
const PREFIXES: (u8, u8) = (32, 64);
/// How long a request waits for a store.
const TIMEOUT: Duration = Duration::from_millis(50);
/// What keys in a store begin with.
const KEY_PREFIX: &str = "headgate:";
/// What sentinels call the primary.
const PRIMARY: &str = "mymaster";
/// Bounds of windows.
const WINDOWS: Bounds = ("1s", "8784h");

impl Policy for RateLimitPolicy {
    const SHAPE: Shape =
        Shape { open: &["limits", "limits.*.overrides", "response"], named: &["limits"], fixed: &[] };
    const AFFECTED: ConditionType = ConditionType::RateLimitPolicyAffected;

    fn common(&self) -> Common<'_> {
        let spec = &self.spec;
        Common { target_refs: &spec.target_refs, strategy: spec.strategy, mode: spec.mode }
    }

    fn fields(&self) -> Value {
        let spec = &self.spec;
        json!({"limits": spec.limits, "store": spec.store, "response": spec.response})
    }

    fn check(&self, name: &ObjectName, resolver: &mut Resolver<'_>) -> Vec<(Path, String)> {
        let of_limit = |(key, limit): (&String, &Limit)| {
            let mut whole = limit.clone();
            if whole.rates.is_none() && whole.concurrency.is_none() {
                // They may be another policy's: any will do to see whether the rest is right.
                whole.concurrency = Some(1);
            }
            let checked = entry_name(key)
                .and_then(|()| translate(key, name, "".into(), false, &whole))
                .and_then(|limit| rate_limit::check(&limit));
            checked.err().map(|why| (Path::of(&["limits", key]), why))
        };
        let mut invalid: Vec<_> = self.spec.limits.iter().filter_map(of_limit).collect();
        match self.spec.store.as_ref().map(|from| store(name, from, resolver)) {
            None => {}
            Some(Ok(store)) => resolver.resolved.store = store.map(Arc::new),
            Some(Err(why)) => {
                invalid.push((Path::of(&["store"]), format!("{why}; each replica counts by itself")));
            }
        }
        invalid
    }
}

impl OfRequests for RateLimitPolicy {
    fn put(came: &Came, at: &At<'_>, policies: &mut model::Policies) -> Vec<(ObjectName, String)> {
        let (mut limits, mut incomplete) = (Vec::new(), Vec::new());
        let mut add = |merged: &Merged, shadow: bool| {
            for (name, fields) in
                merged.entries("limits").into_iter().filter(|(_, of)| is_tried(of) == shadow)
            {
                match limit(name, &fields, at, shadow) {
                    Ok(limit) => limits.push(limit),
                    Err((policy, why)) => incomplete.push((policy, format!("spec.limits.{name}: {why}"))),
                }
            }
        };
        add(&came.enforced, false);
        add(&came.tried, true);
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        // Limits that are only watched are counted where those are that act.
        let acting = limits.iter().any(|limit| !limit.shadow);
        let store = match store_of(came, if acting { &came.enforced } else { &came.tried }) {
            Ok(store) => store,
            Err(refused) => {
                incomplete.push(refused);
                None
            }
        };
        let response = serde_json::from_value::<Option<LimitResponse>>(came.enforced.member("response"));
        if !limits.is_empty() {
            let response = response.ok().flatten().unwrap_or_default();
            policies.rate_limits = Some(RateLimits { limits, response: answer(&response), store });
        }
        incomplete
    }
}

fn is_tried(fields: &[(&Path, &Field)]) -> bool {
    fields.iter().any(|(path, field)| path.is_mode() && field.value == SHADOW)
}

/// A limit of the fields that policies say of it. Counters are those of the most specific target that says anything.
fn limit(
    name: &str,
    fields: &[(&Path, &Field)],
    at: &At<'_>,
    shadow: bool,
) -> Result<model::RateLimit, (ObjectName, String)> {
    // Of several the first: `max_by_key` takes the last.
    let (_, said) =
        fields.iter().rev().max_by_key(|(_, field)| field.depth).expect("an entry has a field at least");
    let whole = assemble(fields.iter().filter(|(path, _)| !path.is_mode()).copied(), 2);
    let refused = |why| (said.policy.clone(), why);
    let from = serde_json::from_value::<Option<Limit>>(whole).map_err(|error| refused(error.to_string()))?;
    let from = from.unwrap_or_default();
    let mut scope = match from.scope.unwrap_or_default() {
        Scope::Target => said.target.to_string(),
        Scope::Route => format!("{} {}", at.kind, at.route),
        Scope::Rule => format!("{} {}/{}", at.kind, at.route, at.rule),
    };
    if shadow {
        // What is enforced under the same name counts for itself.
        scope.push_str(" (shadow)");
    }
    translate(name, &said.policy, scope.into(), shadow, &from).map_err(refused)
}

/// Where merged limits are counted. Limits that may not be changed aren't led elsewhere, either: a store that nobody reaches
/// would be a way around them.
fn store_of(
    came: &Came,
    merged: &Merged,
) -> Result<Option<Arc<model::RateLimitStore>>, (ObjectName, String)> {
    let field = merged.fields.get(&Path::of(&["store"]));
    let at = field.and_then(|field| came.sources.iter().position(|source| source.name == field.policy));
    let Some(at) = at else { return Ok(None) };
    let (above, source) = (&came.sources[..at], &came.sources[at]);
    match above.iter().find(|other| other.overrides && !other.shadow) {
        Some(other) if !source.overrides => {
            let why = format!(
                "spec.store: {} overrides limits, and names no store; each replica counts by itself",
                other.name
            );
            Err((source.name.clone(), why))
        }
        Some(_) | None => Ok(source.resolved.store.clone()),
    }
}

/// Where a policy counts; none: in each replica. Without what it names there is nothing that could be reached.
fn store(
    policy: &ObjectName,
    from: &Store,
    resolver: &mut Resolver<'_>,
) -> Result<Option<model::RateLimitStore>, String> {
    let redis = match (from.kind, &from.redis) {
        (StoreType::Local, _) => return Ok(None),
        (StoreType::Redis, None) => return Err("redis is missing".to_owned()),
        (StoreType::Redis, Some(redis)) => redis,
    };
    let timeout = redis.timeout.as_deref().map(|text| duration::within(text, ("1ms", "5s"))).transpose();
    let timeout = timeout.map_err(|why| format!("redis.timeout: {why}"))?.unwrap_or(TIMEOUT);
    let primary = redis.sentinel_primary.as_deref().unwrap_or(PRIMARY).into();
    let mut store = model::RateLimitStore {
        addresses: texts(&redis.address),
        topology: match redis.mode.unwrap_or_default() {
            RedisMode::Single => model::StoreTopology::Single,
            RedisMode::Sentinel => model::StoreTopology::Sentinel { primary },
            RedisMode::Cluster => model::StoreTopology::Cluster,
        },
        tls: None,
        credentials: None,
        timeout,
        key_prefix: redis.key_prefix.as_deref().unwrap_or(KEY_PREFIX).into(),
        on_unavailable: match from.on_unavailable.unwrap_or_default() {
            OnUnavailable::Local => model::OnUnavailable::Local,
            OnUnavailable::Allow => model::OnUnavailable::Allow,
            OnUnavailable::Deny => model::OnUnavailable::Deny,
        },
        local: resolver.local,
    };
    match security(policy, redis, resolver) {
        Ok((tls, credentials)) => (store.tls, store.credentials) = (tls, credentials),
        Err(why) => {
            resolver.resolved.unresolved.push(format!("spec.store.redis.{why}"));
            store.addresses.clear();
        }
    }
    rate_limit::check_store(&store).map_err(|why| format!("redis.{why}"))?;
    Ok(Some(store))
}

type Security = (Option<model::StoreTls>, Option<model::StoreCredentials>);

/// How a store is verified, and who we are to it. The error names the field.
fn security(policy: &ObjectName, from: &Redis, resolver: &mut Resolver<'_>) -> Result<Security, String> {
    let local = |name: &str| ObjectName::new(&*policy.namespace, name);
    let tls = from.tls.as_ref().map(|tls| {
        let authorities = resolver
            .authorities(policy, tls.ca_config_map_ref.as_ref())
            .map_err(|why| format!("tls.caConfigMapRef: {why}"))?;
        Ok::<_, String>(model::StoreTls {
            authorities,
            server_name: tls.server_name.as_deref().map(Into::into),
        })
    });
    let credentials = from.secret_ref.as_ref();
    let credentials = credentials
        .map(|secret| resolver.redis(&local(&secret.name)).map_err(|why| format!("secretRef: {why}")));
    Ok((tls.transpose()?, credentials.transpose()?))
}

fn answer(from: &LimitResponse) -> model::LimitResponse {
    let plain = model::LimitResponse::default();
    model::LimitResponse {
        status: from.status_code.and_then(|code| u16::try_from(code).ok()).unwrap_or(plain.status),
        headers: match from.headers.unwrap_or_default() {
            LimitHeaders::Standard => model::LimitHeaders::Standard,
            LimitHeaders::Legacy => model::LimitHeaders::Legacy,
            LimitHeaders::Both => model::LimitHeaders::Both,
            LimitHeaders::None => model::LimitHeaders::None,
        },
    }
}

/// Names of entries are shown to clients, and are labels of metrics.
pub(super) fn entry_name(name: &str) -> Result<(), String> {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    let good = name.len() <= 63
        && name.bytes().all(|byte| edge(byte) || byte == b'-')
        && ends.into_iter().all(|end| end.is_some_and(edge));
    let why = "its name has to be up to 63 lower-case letters, digits and '-', such as per-client";
    if good { Ok(()) } else { Err(why.to_owned()) }
}

/// A limit, as the policies that have a say in it came to. The error names the field.
fn translate(
    name: &str,
    policy: &ObjectName,
    scope: Text,
    shadow: bool,
    from: &Limit,
) -> Result<model::RateLimit, String> {
    let rates = rates(from.rates.as_deref().unwrap_or_default())?;
    if rates.is_empty() && from.concurrency.is_none() {
        return Err("has neither rates nor concurrency, and no policy above gives it any".to_owned());
    }
    let key = from.key.iter().flatten().enumerate();
    let key = key.map(|(n, part)| key_part(part).map_err(|why| format!("key[{n}]: {why}")));
    let overrides = from.overrides.iter().flatten();
    let overrides =
        overrides.map(|(name, from)| tier(name, from).map_err(|why| format!("overrides.{name}: {why}")));
    Ok(model::RateLimit {
        name: name.into(),
        policy: policy.clone(),
        scope,
        shadow,
        when: texts(from.when.as_deref().unwrap_or_default()),
        key: key.collect::<Result<_, _>>()?,
        on_missing_key: match from.on_missing_key.unwrap_or_default() {
            OnMissingKey::Skip => model::OnMissingKey::Skip,
            OnMissingKey::Shared => model::OnMissingKey::Shared,
            OnMissingKey::Reject => model::OnMissingKey::Reject,
        },
        rates,
        burst: count("burst", from.burst)?,
        algorithm: match from.algorithm.unwrap_or_default() {
            Algorithm::TokenBucket => model::Algorithm::TokenBucket,
            Algorithm::SlidingWindow => model::Algorithm::SlidingWindow,
            Algorithm::FixedWindow => model::Algorithm::FixedWindow,
        },
        concurrency: count("concurrency", from.concurrency)?,
        cost: from.cost.as_deref().map(Into::into),
        exempt: from.exempt.as_ref().map_or_else(model::Exemption::default, |Exempt { cidrs, when }| {
            model::Exemption { cidrs: texts(cidrs), when: texts(when) }
        }),
        overrides: overrides.collect::<Result<_, _>>()?,
    })
}

pub(super) fn texts(from: &[String]) -> Vec<Text> {
    from.iter().map(|text| text.as_str().into()).collect()
}

fn count(field: &str, value: Option<i64>) -> Result<Option<u32>, String> {
    let number = |value: i64| u32::try_from(value).ok().filter(|number| *number > 0);
    match value {
        None => Ok(None),
        Some(value) => {
            number(value).map(Some).ok_or_else(|| format!("{field}: {value} is not a number from 1"))
        }
    }
}

fn rates(from: &[Rate]) -> Result<Vec<model::Rate>, String> {
    let rate = |(n, rate): (usize, &Rate)| {
        let here = |why: String| format!("rates[{n}].{why}");
        let window = duration::within(&rate.window, WINDOWS).map_err(|why| here(format!("window: {why}")))?;
        let limit = count("limit", Some(rate.limit)).map_err(here)?.unwrap_or(1);
        Ok(model::Rate { limit, window })
    };
    from.iter().enumerate().map(rate).collect()
}

fn tier(name: &str, from: &RateOverride) -> Result<model::RateOverride, String> {
    entry_name(name)?;
    if from.rates.is_some() == from.unlimited.unwrap_or_default() {
        return Err("has to have either rates or unlimited: true".to_owned());
    }
    Ok(model::RateOverride {
        name: name.into(),
        when: texts(&from.when),
        rates: rates(from.rates.as_deref().unwrap_or_default())?,
        burst: count("burst", from.burst)?,
    })
}

pub(super) fn key_part(from: &KeyPart) -> Result<model::KeyPart, String> {
    use model::KeyPart as To;
    let KeyPart { client_ip, header, cookie, query, path, method, host, claim, consumer, expression } = from;
    let text = |from: &Option<String>| from.as_deref().map(Text::from);
    let parts = [
        client_ip.map(network),
        text(header).map(To::Header),
        text(cookie).map(To::Cookie),
        text(query).map(To::Query),
        path.map(|_| To::Path),
        method.map(|_| To::Method),
        host.map(|_| To::Host),
        text(claim).map(To::Claim),
        consumer.map(|_| To::Consumer),
        text(expression).map(To::Expression),
    ];
    let mut parts = parts.into_iter().flatten();
    match (parts.next(), parts.next()) {
        (Some(part), None) => Ok(part),
        (None, _) | (Some(_), Some(_)) => Err("has to have exactly one of clientIP, header, cookie, query, \
             path, method, host, claim, consumer, expression; write a part for each"
            .to_owned()),
    }
}

/// The CRD bounds the bits.
fn network(from: ClientIp) -> model::KeyPart {
    let bits = |bits: Option<i32>, plain: u8| bits.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(plain);
    model::KeyPart::ClientIp {
        ipv4_prefix: bits(from.ipv4_prefix, PREFIXES.0),
        ipv6_prefix: bits(from.ipv6_prefix, PREFIXES.1),
    }
}
