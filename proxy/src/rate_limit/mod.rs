//! Rate limits: whether a request passes, and what its answer says of that.
//!
//! Compiled from [`crate::model::RateLimits`]. All limits that hold for a request are asked together, and count it only if
//! all let it pass; limits in shadow are asked one by one, and only tell. The counters are the process's ([`counters`]):
//! they outlive edits; those of policies that name one are in a [`store`], which all replicas share. What a request has in
//! flight is counted here in any case, and given back when its [`Admission`] is dropped, with its answer.

pub(crate) mod counters;
mod fields;
mod shared;
mod store;

pub(crate) use store::Links;
pub use store::check as check_store;

use crate::expression::{Expression, Kind, View};
use crate::headers::{Fields, Say, Sort, Touched};
use crate::key::{Key, KeyBytes};
use crate::metrics::{LimitMetrics, LimitOutcome, Metrics, ThreadMetrics};
use crate::model::{self, Algorithm, OnMissingKey, Rate, Text};
use counters::{Ask, CellId, Counters, Meter, Standing, Standings};
use fields::Quota;
use http::StatusCode;
use ipnet::IpNet;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use store::{Naming, Store};

/// In the place of a window, for what is in flight.
const IN_FLIGHT: u64 = u64::MAX;
/// What a request may count for at most.
const MOST_COST: u64 = 1_000_000;

/// Compiled limits.
#[derive(Debug)]
pub(crate) struct RateLimits {
    limits: Box<[Limit]>,
    status: StatusCode,
    headers: model::LimitHeaders,
    counters: Arc<Counters>,
    store: Option<Arc<Store>>,
}

#[derive(Debug)]
struct Limit {
    shadow: bool,
    when: Box<[Expression]>,
    key: Key,
    on_missing_key: OnMissingKey,
    meters: Box<[(Arc<Quota>, Meter)]>,
    in_flight: Option<(Arc<Quota>, Meter)>,
    cost: Option<Expression>,
    exempt_networks: Box<[IpNet]>,
    exempt_when: Box<[Expression]>,
    overrides: Box<[Override]>,
    /// Of the limit's cells, before the key.
    identity: CellId,
    /// Whether other replicas have to name its cells alike.
    shared: bool,
    metrics: Arc<LimitMetrics>,
}

#[derive(Debug)]
struct Override {
    name: Text,
    when: Box<[Expression]>,
    meters: Box<[(Arc<Quota>, Meter)]>,
}

/// What was decided about a request. What it has in flight counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: InFlight,
    fields: model::LimitHeaders,
    /// The tightest limit.
    told: Option<Told>,
    /// Status, and nanoseconds until it would pass; absent: it passes.
    refused: Option<(StatusCode, u64)>,
}

#[derive(Debug)]
struct Told {
    quota: Arc<Quota>,
    standing: Standing,
}

/// What is in flight as long as this lives.
#[derive(Debug, Default)]
struct InFlight(Vec<Held>);

/// What is in flight by one cell.
#[derive(Debug)]
struct Held {
    counters: Arc<Counters>,
    cell: CellId,
    cost: u64,
}

impl InFlight {
    fn add<'a>(&mut self, asks: impl Iterator<Item = &'a Ask>, counters: &Arc<Counters>) {
        let held = asks.filter(|ask| ask.is_in_flight() && ask.cost > 0);
        self.0.extend(held.map(|ask| Held { counters: counters.clone(), cell: ask.cell, cost: ask.cost }));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.give_back(self.cell, self.cost);
    }
}

impl Admission {
    /// The status of a request that doesn't pass.
    pub(crate) fn refused(&self) -> Option<StatusCode> {
        self.refused.map(|(status, _)| status)
    }

    /// What was decided first, and later: the client is told of the tighter limit.
    pub(crate) fn and(mut self, mut later: Self) -> Self {
        later.in_flight.0.append(&mut self.in_flight.0);
        let first = self.told.take();
        let tighter = match (&first, &later.told) {
            (Some(first), Some(told)) => first.standing.tightness() < told.standing.tightness(),
            (first, _) => first.is_some(),
        };
        if tighter {
            later.told = first;
        }
        later
    }

    /// Takes away what an answer has of the fields that [`Admission::tell`] says.
    pub(crate) fn make_room(&self, answer: &mut Fields) {
        if self.told.is_some() {
            answer.remove(Sort::RateLimit);
        }
    }

    /// Tells the client of its limits.
    pub(crate) fn tell(&self, out: &mut impl Say) {
        if let Some(told) = &self.told {
            fields::tell(out, self.fields, &told.quota, told.standing);
        }
        if let Some((_, wait)) = self.refused {
            fields::retry_after(out, wait);
        }
    }
}

/// What a limit asks of one cell.
struct Asked<'a> {
    limit: &'a Limit,
    quota: &'a Arc<Quota>,
    ask: Ask,
}

impl Borrow<Ask> for Asked<'_> {
    fn borrow(&self) -> &Ask {
        &self.ask
    }
}

/// What limits ask. What one limit asks is side by side.
type Asks<'a> = SmallVec<[Asked<'a>; 1]>;

/// What limits ask of one request.
struct Question<'a> {
    enforced: Asks<'a>,
    /// Of limits in shadow.
    tried: Asks<'a>,
    /// Nanoseconds to wait, when a limit holds and the request can't be counted.
    refused: Option<u64>,
}

impl RateLimits {
    /// The fields of a request that they look at.
    pub(crate) fn touch(&self) -> Touched {
        let touches = |limit: &Limit| {
            let others = limit.expressions().map(Expression::touches);
            others.chain([limit.key.touches()]).collect::<Touched>()
        };
        self.limits.iter().map(touches).collect()
    }

    /// Compiles limits; one that can't be compiled is left out, and logged: its author was told.
    pub(crate) fn compile(from: &model::RateLimits, metrics: &Metrics) -> Self {
        let counters = metrics.rate_limit_counters().clone();
        let store = from.store.as_ref().map(|store| counters.store(store));
        let shared = store.is_some();
        let compile = |from: &model::RateLimit| match Limit::compile(from, shared, &counters, metrics) {
            Ok(limit) => Some(limit),
            Err(error) => {
                let (policy, limit) = (&from.policy, &from.name);
                tracing::error!(%policy, %limit, %error, "a rate limit can't be compiled: it doesn't hold");
                None
            }
        };
        let limits = from.limits.iter().filter_map(compile).collect();
        let status = StatusCode::from_u16(from.response.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        Self { limits, status, headers: from.response.headers, counters, store }
    }

    /// Those that can be asked before anybody is known, and those that ask who it is.
    pub(crate) fn split(self) -> (Option<Self>, Option<Self>) {
        let Self { limits, status, headers, counters, store } = self;
        let (later, before): (Vec<_>, Vec<_>) = limits.into_iter().partition(Limit::asks_who);
        let all = |limits: Vec<Limit>| {
            let limits = limits.into_boxed_slice();
            let (counters, store) = (counters.clone(), store.clone());
            (!limits.is_empty()).then(|| Self { limits, status, headers, counters, store })
        };
        (all(before), all(later))
    }

    /// Whether they are counted elsewhere: [`Self::admit_shared`] asks them.
    pub(crate) fn are_shared(&self) -> bool {
        self.store.is_some()
    }

    /// Whether a request passes. None: no limit holds for it.
    pub(crate) fn admit(&self, view: &View<'_>, now: Instant, metrics: &ThreadMetrics) -> Option<Admission> {
        let now = self.counters.time(now);
        let Question { enforced, tried, refused } = self.ask(view, metrics);
        let mut in_flight = InFlight::default();
        for asked in by_limit(&tried) {
            let (passes, _) = self.take(asked, now, &mut in_flight);
            metrics.limited(&asked[0].limit.metrics, LimitOutcome::of(passes, true));
        }
        if let Some(wait) = refused {
            return Some(self.refusal(in_flight, wait));
        }
        if enforced.is_empty() {
            return (!in_flight.0.is_empty()).then(|| self.admission(in_flight));
        }
        let (passes, standings) = self.take(&enforced, now, &mut in_flight);
        Some(self.judge(in_flight, &enforced, enforced.iter().zip(standings), passes, metrics))
    }

    /// What limits ask of a request.
    fn ask(&self, view: &View<'_>, metrics: &ThreadMetrics) -> Question<'_> {
        let mut question = Question { enforced: Asks::new(), tried: Asks::new(), refused: None };
        for limit in &self.limits {
            let asked = match limit.shadow {
                true => limit.ask(view, &self.counters, &mut question.tried),
                false => limit.ask(view, &self.counters, &mut question.enforced),
            };
            if let Err(Uncountable) = asked {
                metrics.limited(&limit.metrics, LimitOutcome::of(false, limit.shadow));
                if !limit.shadow {
                    question.refused = Some(limit.meters.first().map_or(0, |(quota, _)| quota.nanoseconds()));
                    break;
                }
            }
        }
        question
    }

    /// Takes from the cells of some limits, or from none, and keeps what is in flight then.
    fn take(&self, asked: &[impl Borrow<Ask>], now: u64, in_flight: &mut InFlight) -> (bool, Standings) {
        let (passes, standings) = self.counters.take(asked, now);
        if passes {
            in_flight.add(asked.iter().map(Borrow::borrow), &self.counters);
        }
        (passes, standings)
    }

    /// What limits come to, by what each of their cells says.
    fn judge<'a>(
        &self,
        in_flight: InFlight,
        enforced: &'a [Asked<'a>],
        told: impl Iterator<Item = (&'a Asked<'a>, Standing)>,
        passes: bool,
        metrics: &ThreadMetrics,
    ) -> Admission {
        let worst = told.min_by_key(|(_, standing)| standing.tightness());
        for asked in by_limit(enforced) {
            let limit = asked[0].limit;
            let at_fault = !passes && worst.is_some_and(|(worst, _)| std::ptr::eq(worst.limit, limit));
            if passes || at_fault {
                metrics.limited(&limit.metrics, LimitOutcome::of(passes, false));
            }
        }
        let told = worst.map(|(asked, standing)| Told { quota: asked.quota.clone(), standing });
        let mut admission = match passes {
            true => self.admission(in_flight),
            false => self.refusal(in_flight, told.as_ref().map_or(0, |told| told.standing.wait)),
        };
        admission.told = told;
        admission
    }

    fn admission(&self, in_flight: InFlight) -> Admission {
        Admission { in_flight, fields: self.headers, told: None, refused: None }
    }

    fn refusal(&self, in_flight: InFlight, wait: u64) -> Admission {
        Admission { refused: Some((self.status, wait)), ..self.admission(in_flight) }
    }
}

/// What is asked, limit by limit.
fn by_limit<'a, 'b>(asked: &'b [Asked<'a>]) -> impl Iterator<Item = &'b [Asked<'a>]> {
    asked.chunk_by(|one, other| std::ptr::eq(one.limit, other.limit))
}

/// A limit holds for a request that can't be counted.
struct Uncountable;

impl Limit {
    fn compile(
        from: &model::RateLimit,
        shared: bool,
        counters: &Counters,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let meters = |rates: &[Rate], burst| meters(&from.name, rates, burst, from.algorithm);
        let overrides = from.overrides.iter().map(|one| {
            let field = |why| format!("overrides.{}.{why}", one.name);
            let when = all(&one.when, "when", Kind::Predicate).map_err(field)?;
            Ok(Override { name: one.name.clone(), when, meters: meters(&one.rates, one.burst) })
        });
        let overrides = overrides.collect::<Result<_, String>>()?;
        let networks = from.exempt.cidrs.iter().enumerate().map(|(n, text)| {
            let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            parsed.map_err(|_| format!("exempt.cidrs[{n}]: {text:?} isn't a network like 10.0.0.0/8"))
        });
        let cost = from.cost.as_ref().map(|text| Expression::compile(text, Kind::Number));
        Ok(Self {
            shadow: from.shadow,
            when: all(&from.when, "when", Kind::Predicate)?,
            key: Key::compile(&from.key)?,
            on_missing_key: from.on_missing_key,
            meters: meters(&from.rates, from.burst),
            in_flight: from.concurrency.map(|limit| {
                (Arc::new(Quota::in_flight(&from.name, limit)), Meter::InFlight { limit: limit.into() })
            }),
            cost: cost.transpose().map_err(|why| format!("cost: {why}"))?,
            exempt_networks: networks.collect::<Result<_, String>>()?,
            exempt_when: all(&from.exempt.when, "exempt.when", Kind::Predicate)?,
            overrides,
            identity: cell(identity(from).as_bytes(), shared, counters),
            shared,
            metrics: metrics.rate_limit(&from.policy, &from.name),
        })
    }

    /// Whether it matters to it who the client is.
    fn asks_who(&self) -> bool {
        self.key.asks_who() || self.expressions().any(Expression::asks_who)
    }

    /// All but those of its key.
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let others = self.overrides.iter().flat_map(|other| &other.when);
        self.when.iter().chain(&self.exempt_when).chain(&self.cost).chain(others)
    }

    /// Puts what it asks behind what others do: nothing, where it doesn't hold.
    fn ask<'a>(
        &'a self,
        view: &View<'_>,
        counters: &Counters,
        asks: &mut Asks<'a>,
    ) -> Result<(), Uncountable> {
        let exempt = |network: &IpNet| network.contains(&view.peer.ip().to_canonical());
        if !self.when.iter().all(|when| when.holds(view))
            || self.exempt_networks.iter().any(exempt)
            || self.exempt_when.iter().any(|when| when.holds(view))
        {
            return Ok(());
        }
        let other = self.overrides.iter().find(|other| other.when.iter().all(|when| when.holds(view)));
        let (tier, meters) = other.map_or((None, &self.meters), |other| (Some(&other.name), &other.meters));
        let cost = match &self.cost {
            None => 1,
            // What can't be said counts as one: a limit isn't got around by a field that makes no sense.
            Some(cost) => cost.number(view).unwrap_or(1).min(MOST_COST),
        };
        // No tier is named by nothing.
        let tier = tier.map_or("", |tier| tier);
        let mut name = KeyBytes::new();
        name.extend_from_slice(&self.identity.number().to_be_bytes());
        name.extend_from_slice(&u32::try_from(tier.len()).unwrap_or(u32::MAX).to_be_bytes());
        name.extend_from_slice(tier.as_bytes());
        let missing = self.key.put(view, &mut name);
        match self.on_missing_key {
            OnMissingKey::Skip if missing > 0 => return Ok(()),
            OnMissingKey::Reject if missing > 0 => return Err(Uncountable),
            OnMissingKey::Skip | OnMissingKey::Reject | OnMissingKey::Shared => {}
        }
        let end = name.len();
        let mut cell = |window: u64, shared: bool| {
            name.truncate(end);
            name.extend_from_slice(&window.to_be_bytes());
            cell(&name, shared, counters)
        };
        for (quota, meter) in meters {
            let cell = cell(quota.nanoseconds(), self.shared);
            asks.push(Asked { limit: self, quota, ask: Ask { cell, meter: *meter, cost } });
        }
        if let Some((quota, meter)) = &self.in_flight {
            let cell = cell(IN_FLIGHT, false);
            asks.push(Asked { limit: self, quota, ask: Ask { cell, meter: *meter, cost: 1 } });
        }
        Ok(())
    }
}

fn all(from: &[Text], field: &str, kind: Kind) -> Result<Box<[Expression]>, String> {
    let compile = |(n, text): (usize, &Text)| {
        Expression::compile(text, kind).map_err(|why| format!("{field}[{n}]: {why}"))
    };
    from.iter().enumerate().map(compile).collect()
}

/// The cell of that name; one that is shared is the same in all replicas.
fn cell(name: &[u8], shared: bool, counters: &Counters) -> CellId {
    if shared { Naming::new().and(name).cell() } else { counters.cell(name) }
}

/// What a limit's cells are told by in all replicas.
fn identity(from: &model::RateLimit) -> String {
    serde_json::json!([from.scope, from.name, from.key, from.algorithm]).to_string()
}

/// One meter for each window: of two rates for the same, the smaller.
fn meters(
    name: &str,
    rates: &[Rate],
    burst: Option<u32>,
    algorithm: Algorithm,
) -> Box<[(Arc<Quota>, Meter)]> {
    let mut meters = Vec::<(Arc<Quota>, Meter)>::with_capacity(rates.len());
    for (n, rate) in rates.iter().enumerate() {
        let smaller = |(other, one): &(usize, &Rate)| {
            one.window == rate.window && (one.limit < rate.limit || one.limit == rate.limit && *other < n)
        };
        if rates.iter().enumerate().any(|other| smaller(&other)) {
            continue;
        }
        let Rate { limit, window } = *rate;
        let meter = match algorithm {
            Algorithm::TokenBucket => Meter::bucket(limit, window, burst.filter(|_| n == 0).unwrap_or(limit)),
            Algorithm::SlidingWindow => Meter::sliding(limit, window),
            Algorithm::FixedWindow => Meter::fixed(limit, window),
        };
        meters.push((Arc::new(Quota::rate(name, limit, window)), meter));
    }
    meters.into()
}

/// Whether a limit can be compiled. The error names what is wrong, for the author of the policy.
pub fn check(limit: &model::RateLimit) -> Result<(), String> {
    Limit::compile(limit, false, &Counters::default(), &Metrics::new(1)).map(drop)
}
