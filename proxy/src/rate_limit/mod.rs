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
use crate::key::Key;
use crate::metrics::{LimitMetrics, LimitOutcome, Metrics, ThreadMetrics};
use crate::model::{self, Algorithm, OnMissingKey, Rate, Text};
use counters::{Ask, CellId, Counters, Meter, Standing};
use fields::Quota;
use http::{HeaderMap, StatusCode};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use store::{Naming, Store};

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
    name: Text,
    shadow: bool,
    when: Box<[Expression]>,
    key: Key,
    on_missing_key: OnMissingKey,
    meters: Box<[(Quota, Meter)]>,
    in_flight: Option<u32>,
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
    meters: Box<[(Quota, Meter)]>,
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
    name: Text,
    quota: Quota,
    standing: Standing,
}

/// What is in flight as long as this lives.
#[derive(Debug)]
struct InFlight {
    counters: Arc<Counters>,
    cells: Vec<(CellId, u64)>,
}

impl InFlight {
    fn add<'a>(&mut self, asks: impl Iterator<Item = &'a Ask>) {
        let held = asks.filter(|ask| matches!(ask.meter, Meter::InFlight { .. }) && ask.cost > 0);
        self.cells.extend(held.map(|ask| (ask.cell, ask.cost)));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        for (cell, cost) in self.cells.drain(..) {
            self.counters.give_back(cell, cost);
        }
    }
}

impl Admission {
    /// The status of a request that doesn't pass.
    pub(crate) fn refused(&self) -> Option<StatusCode> {
        self.refused.map(|(status, _)| status)
    }

    /// What was decided first, and later: the client is told of the tighter limit.
    pub(crate) fn and(mut self, mut later: Self) -> Self {
        later.in_flight.cells.append(&mut self.in_flight.cells);
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

    /// Tells the client of its limits.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if let Some(told) = &self.told {
            fields::tell(headers, self.fields, &told.name, told.quota, told.standing);
        }
        if let Some((_, wait)) = self.refused {
            fields::retry_after(headers, wait);
        }
    }
}

/// Asks of one limit, and whose they are.
struct Asked<'a> {
    limit: &'a Limit,
    asks: Vec<(Quota, Ask)>,
}

/// What limits ask of one request.
struct Question<'a> {
    enforced: Vec<Asked<'a>>,
    /// Of limits in shadow.
    tried: Vec<Asked<'a>>,
    /// Nanoseconds to wait, when a limit holds and the request can't be counted.
    refused: Option<u64>,
}

impl RateLimits {
    /// Whether they ask for fields of a request.
    pub(crate) fn read_fields(&self) -> bool {
        self.limits.iter().any(|limit| limit.key.reads_fields() || limit.expressions().next().is_some())
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
    pub(crate) fn admit(&self, view: &View<'_>, metrics: &ThreadMetrics) -> Option<Admission> {
        let now = self.counters.now();
        let Question { enforced, tried, refused } = self.ask(view, metrics);
        let mut in_flight = self.nothing_in_flight();
        let mut standings = Vec::new();
        for asked in &tried {
            let passes = self.take(std::slice::from_ref(asked), now, &mut standings, &mut in_flight);
            metrics.limited(&asked.limit.metrics, LimitOutcome::of(passes, true));
        }
        if let Some(wait) = refused {
            return Some(self.refusal(in_flight, wait));
        }
        if enforced.is_empty() {
            return (!in_flight.cells.is_empty()).then(|| self.admission(in_flight));
        }
        let passes = self.take(&enforced, now, &mut standings, &mut in_flight);
        let asks = enforced.iter().flat_map(|asked| asked.asks.iter().map(move |(quota, _)| (asked, *quota)));
        let told = asks.zip(standings).map(|((asked, quota), standing)| (asked, quota, standing));
        Some(self.judge(in_flight, &enforced, told, passes, metrics))
    }

    /// What limits ask of a request.
    fn ask(&self, view: &View<'_>, metrics: &ThreadMetrics) -> Question<'_> {
        let enforced = Vec::with_capacity(self.limits.len());
        let mut question = Question { enforced, tried: Vec::new(), refused: None };
        for limit in &self.limits {
            match limit.asks(view, &self.counters) {
                Asks::None => {}
                Asks::Some(asks) if limit.shadow => question.tried.push(Asked { limit, asks }),
                Asks::Some(asks) => question.enforced.push(Asked { limit, asks }),
                Asks::Refused => {
                    metrics.limited(&limit.metrics, LimitOutcome::of(false, limit.shadow));
                    if !limit.shadow {
                        question.refused =
                            Some(limit.meters.first().map_or(0, |(quota, _)| quota.nanoseconds()));
                        break;
                    }
                }
            }
        }
        question
    }

    /// Takes from the cells of some limits, or from none, and keeps what is in flight then.
    fn take(
        &self,
        asked: &[Asked<'_>],
        now: u64,
        standings: &mut Vec<Standing>,
        in_flight: &mut InFlight,
    ) -> bool {
        let asks: Vec<Ask> = asked.iter().flat_map(|asked| &asked.asks).map(|(_, ask)| *ask).collect();
        standings.reserve(asks.len());
        let passes = self.counters.take(&asks, now, standings);
        if passes {
            in_flight.add(asks.iter());
        }
        passes
    }

    /// What limits come to, by what each of their cells says.
    fn judge<'a>(
        &self,
        in_flight: InFlight,
        enforced: &'a [Asked<'a>],
        told: impl Iterator<Item = (&'a Asked<'a>, Quota, Standing)>,
        passes: bool,
        metrics: &ThreadMetrics,
    ) -> Admission {
        let mut worst: Option<(Told, &Limit)> = None;
        for (asked, quota, standing) in told {
            let tighter =
                worst.as_ref().is_none_or(|(told, _)| standing.tightness() < told.standing.tightness());
            if tighter {
                worst = Some((Told { name: asked.limit.name.clone(), quota, standing }, asked.limit));
            }
        }
        for asked in enforced {
            let at_fault =
                !passes && worst.as_ref().is_some_and(|(_, limit)| std::ptr::eq(*limit, asked.limit));
            if passes || at_fault {
                metrics.limited(&asked.limit.metrics, LimitOutcome::of(passes, false));
            }
        }
        let told = worst.map(|(told, _)| told);
        let mut admission = match passes {
            true => self.admission(in_flight),
            false => self.refusal(in_flight, told.as_ref().map_or(0, |told| told.standing.wait)),
        };
        admission.told = told;
        admission
    }

    fn nothing_in_flight(&self) -> InFlight {
        InFlight { counters: self.counters.clone(), cells: Vec::new() }
    }

    fn admission(&self, in_flight: InFlight) -> Admission {
        Admission { in_flight, fields: self.headers, told: None, refused: None }
    }

    fn refusal(&self, in_flight: InFlight, wait: u64) -> Admission {
        Admission { refused: Some((self.status, wait)), ..self.admission(in_flight) }
    }
}

enum Asks {
    /// The limit doesn't hold.
    None,
    Some(Vec<(Quota, Ask)>),
    /// It holds, and can't be counted.
    Refused,
}

impl Limit {
    fn compile(
        from: &model::RateLimit,
        shared: bool,
        counters: &Counters,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let meters = |rates: &[Rate], burst| meters(rates, burst, from.algorithm);
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
            name: from.name.clone(),
            shadow: from.shadow,
            when: all(&from.when, "when", Kind::Predicate)?,
            key: Key::compile(&from.key)?,
            on_missing_key: from.on_missing_key,
            meters: meters(&from.rates, from.burst),
            in_flight: from.concurrency,
            cost: cost.transpose().map_err(|why| format!("cost: {why}"))?,
            exempt_networks: networks.collect::<Result<_, String>>()?,
            exempt_when: all(&from.exempt.when, "exempt.when", Kind::Predicate)?,
            overrides,
            identity: match shared {
                false => counters.cell((&from.scope, &from.name, &from.key, from.algorithm)),
                true => Naming::new().and(identity(from).as_bytes()).cell(),
            },
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

    fn asks(&self, view: &View<'_>, counters: &Counters) -> Asks {
        let exempt = |network: &IpNet| network.contains(&view.peer.ip().to_canonical());
        if !self.when.iter().all(|when| when.holds(view))
            || self.exempt_networks.iter().any(exempt)
            || self.exempt_when.iter().any(|when| when.holds(view))
        {
            return Asks::None;
        }
        let Some(key) = self.key(view) else {
            return match self.on_missing_key {
                OnMissingKey::Skip | OnMissingKey::Shared => Asks::None,
                OnMissingKey::Reject => Asks::Refused,
            };
        };
        let other = self.overrides.iter().find(|other| other.when.iter().all(|when| when.holds(view)));
        let (tier, meters) = other.map_or((None, &self.meters), |other| (Some(&other.name), &other.meters));
        let cost = match &self.cost {
            None => 1,
            // What can't be said counts as one: a limit isn't got around by a field that makes no sense.
            Some(cost) => cost.number(view).unwrap_or(1).min(MOST_COST),
        };
        let identity = (self.identity, tier, &key);
        let mut asks = Vec::with_capacity(meters.len() + 1);
        asks.extend(meters.iter().map(|(quota, meter)| {
            let window = quota.nanoseconds();
            let cell = match self.shared {
                false => counters.cell((identity, window)),
                true => self.shared_cell(tier, &key, window),
            };
            (*quota, Ask { cell, meter: *meter, cost })
        }));
        asks.extend(self.in_flight.map(|limit| {
            let meter = Meter::InFlight { limit: limit.into() };
            (Quota::InFlight { limit }, Ask { cell: counters.cell((identity, "in flight")), meter, cost: 1 })
        }));
        if asks.is_empty() { Asks::None } else { Asks::Some(asks) }
    }

    /// The cell that other replicas find, too.
    fn shared_cell(&self, tier: Option<&Text>, key: &[u8], window: u64) -> CellId {
        // No tier is named like this.
        let tier = tier.map_or("", |tier| tier);
        let naming = Naming::new().and(&self.identity.number().to_be_bytes()).and(tier.as_bytes());
        naming.and(key).and(&window.to_be_bytes()).cell()
    }

    /// What is counted apart; none when a part is missing and doesn't count as shared.
    fn key(&self, view: &View<'_>) -> Option<Vec<u8>> {
        let (key, missing) = self.key.of(view);
        (missing == 0 || self.on_missing_key == OnMissingKey::Shared).then_some(key)
    }
}

fn all(from: &[Text], field: &str, kind: Kind) -> Result<Box<[Expression]>, String> {
    let compile = |(n, text): (usize, &Text)| {
        Expression::compile(text, kind).map_err(|why| format!("{field}[{n}]: {why}"))
    };
    from.iter().enumerate().map(compile).collect()
}

/// What a limit's cells are told by in all replicas.
fn identity(from: &model::RateLimit) -> String {
    serde_json::json!([from.scope, from.name, from.key, from.algorithm]).to_string()
}

/// One meter for each window: of two rates for the same, the smaller.
fn meters(rates: &[Rate], burst: Option<u32>, algorithm: Algorithm) -> Box<[(Quota, Meter)]> {
    let mut meters = Vec::<(Quota, Meter)>::with_capacity(rates.len());
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
        meters.push((Quota::Rate { limit, window }, meter));
    }
    meters.into()
}

/// Whether a limit can be compiled. The error names what is wrong, for the author of the policy.
pub fn check(limit: &model::RateLimit) -> Result<(), String> {
    Limit::compile(limit, false, &Counters::default(), &Metrics::new(1)).map(drop)
}
