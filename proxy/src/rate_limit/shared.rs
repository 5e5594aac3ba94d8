//! Limits that all replicas share: what is in flight is counted here first, all else in one call of the [`Store`]; when that
//! doesn't answer, what the policy says holds.

use super::counters::{Ask, Meter, Standing};
use super::store::Links;
use super::{Admission, Asked, InFlight, Question, Quota, RateLimits, Store};
use crate::expression::View;
use crate::metrics::{LimitOutcome, ThreadMetrics};
use crate::model::OnUnavailable;
use std::sync::Arc;

/// When to ask again a store that denies because it can't be reached, in nanoseconds.
const UNAVAILABLE: u64 = 1_000_000_000;

/// Limits that take from all of their cells or from none.
struct Group<'a> {
    limits: &'a [Asked<'a>],
    /// What it has in flight, if it passes that far.
    in_flight: Option<InFlight>,
    standings: Vec<(&'a Asked<'a>, Quota, Standing)>,
}

impl<'a> Group<'a> {
    fn asks(&self) -> impl Iterator<Item = (&'a Asked<'a>, Quota, Ask)> + use<'a> {
        let of = |asked: &'a Asked<'a>| asked.asks.iter().map(move |(quota, ask)| (asked, *quota, *ask));
        self.limits.iter().flat_map(of)
    }

    /// Those that the store counts; of a group that doesn't pass anyway, none.
    fn shared_asks(&self) -> impl Iterator<Item = (&'a Asked<'a>, Quota, Ask)> + use<'a> {
        self.asks().filter(|(_, _, ask)| !is_in_flight(ask)).take(match self.in_flight {
            Some(_) => usize::MAX,
            None => 0,
        })
    }

    fn passes(&self) -> bool {
        self.in_flight.is_some() && self.standings.iter().all(|(_, _, standing)| standing.passes)
    }
}

fn is_in_flight(ask: &Ask) -> bool {
    match ask.meter {
        Meter::InFlight { .. } => true,
        Meter::Bucket { .. } | Meter::Fixed { .. } | Meter::Sliding { .. } => false,
    }
}

impl RateLimits {
    /// [`RateLimits::admit`] for limits that all replicas share.
    pub(crate) async fn admit_shared(
        &self,
        view: &View<'_>,
        metrics: &ThreadMetrics,
        links: &Links,
    ) -> Option<Admission> {
        let Question { enforced, tried, refused } = self.ask(view, metrics);
        let enforced = if refused.is_some() { Vec::new() } else { enforced };
        let now = self.counters.now();
        let mut groups: Vec<Group<'_>> = vec![self.group(&enforced, now)];
        groups.extend(tried.iter().map(|one| self.group(std::slice::from_ref(one), now)));
        if let Some(store) = &self.store {
            self.take_shared(store, links, &mut groups, now).await;
        }
        let mut in_flight = self.nothing_in_flight();
        let mut groups = groups.into_iter();
        let first = groups.next();
        for group in groups {
            let passes = group.passes();
            for asked in group.limits {
                metrics.limited(&asked.limit.metrics, LimitOutcome::of(passes, true));
            }
            keep(&mut in_flight, group.in_flight.filter(|_| passes));
        }
        if let Some(wait) = refused {
            return Some(self.refusal(in_flight, wait));
        }
        let group = first.filter(|group| !group.limits.is_empty());
        let Some(group) = group else {
            return (!in_flight.cells.is_empty()).then(|| self.admission(in_flight));
        };
        let passes = group.passes();
        keep(&mut in_flight, group.in_flight.filter(|_| passes));
        Some(self.judge(in_flight, &enforced, group.standings.into_iter(), passes, metrics))
    }

    /// Takes what a group has in flight.
    fn group<'a>(&self, limits: &'a [Asked<'a>], now: u64) -> Group<'a> {
        let mut group = Group { limits, in_flight: None, standings: Vec::new() };
        let here: Vec<_> = group.asks().filter(|(_, _, ask)| is_in_flight(ask)).collect();
        let asks: Vec<Ask> = here.iter().map(|(_, _, ask)| *ask).collect();
        let mut standings = Vec::with_capacity(asks.len());
        if self.counters.take(&asks, now, &mut standings) {
            let mut in_flight = self.nothing_in_flight();
            in_flight.add(asks.iter());
            group.in_flight = Some(in_flight);
        }
        let told = here.into_iter().zip(standings);
        group.standings.extend(told.map(|((asked, quota, _), standing)| (asked, quota, standing)));
        group
    }

    /// Takes the rest from the store, or from what stands in for it.
    async fn take_shared(&self, store: &Arc<Store>, links: &Links, groups: &mut [Group<'_>], now: u64) {
        let asks: Vec<(usize, Ask)> = groups
            .iter()
            .enumerate()
            .flat_map(|(n, group)| group.shared_asks().map(move |(_, _, ask)| (n, ask)))
            .collect();
        if asks.is_empty() {
            return;
        }
        let said = match store.take(links, &asks).await {
            Some(said) => said,
            None => {
                self.counters.note_without_store();
                self.stand_in(store.on_unavailable(), groups, now)
            }
        };
        let mut said = said.into_iter();
        for group in groups {
            // The group comes first: no answer is taken that is the next one's.
            let told = group.shared_asks().zip(&mut said);
            let told: Vec<_> = told.map(|((asked, quota, _), standing)| (asked, quota, standing)).collect();
            group.standings.extend(told);
        }
    }

    /// What holds while the store can't be reached.
    fn stand_in(&self, otherwise: OnUnavailable, groups: &[Group<'_>], now: u64) -> Vec<Standing> {
        let (mut all, mut standings) = (Vec::new(), Vec::new());
        for group in groups {
            let asks: Vec<Ask> = group.shared_asks().map(|(_, _, ask)| ask).collect();
            match otherwise {
                OnUnavailable::Local => drop(self.counters.take(&asks, now, &mut standings)),
                OnUnavailable::Allow => {
                    standings.clear();
                    standings
                        .extend(asks.iter().map(|ask| Standing { remaining: ask.meter.most(), ..ALLOWED }));
                }
                OnUnavailable::Deny => {
                    standings.clear();
                    standings.extend(asks.iter().map(|_| DENIED));
                }
            }
            all.append(&mut standings);
        }
        all
    }
}

const ALLOWED: Standing = Standing { passes: true, remaining: 0, reset: 0, wait: 0 };
const DENIED: Standing = Standing { passes: false, remaining: 0, reset: UNAVAILABLE, wait: UNAVAILABLE };

fn keep(all: &mut InFlight, more: Option<InFlight>) {
    if let Some(mut more) = more {
        all.cells.append(&mut more.cells);
    }
}
