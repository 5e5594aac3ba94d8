//! Limits that all replicas share: what is in flight is counted here first, all else in one call of the [`Store`]; when that
//! doesn't answer, what the policy says holds.

use super::counters::{Ask, Standing};
use super::store::Links;
use super::{Admission, Asked, InFlight, Question, RateLimits, Store, by_limit};
use crate::expression::View;
use crate::metrics::{LimitOutcome, ThreadMetrics};
use crate::model::OnUnavailable;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// When to ask again a store that denies because it can't be reached, in nanoseconds.
const UNAVAILABLE: u64 = 1_000_000_000;

/// Limits that take from all of their cells or from none.
struct Group<'a> {
    asked: &'a [Asked<'a>],
    /// What it has in flight, if it passes that far.
    in_flight: Option<InFlight>,
    standings: Vec<(&'a Asked<'a>, Standing)>,
}

impl<'a> Group<'a> {
    /// Those that the store counts; of a group that doesn't pass anyway, none.
    fn shared_asks(&self) -> impl Iterator<Item = &'a Asked<'a>> + use<'a> {
        let asked = if self.in_flight.is_some() { self.asked } else { &[] };
        asked.iter().filter(|asked| !asked.ask.is_in_flight())
    }

    fn passes(&self) -> bool {
        self.in_flight.is_some() && self.standings.iter().all(|(_, standing)| standing.passes)
    }
}

impl RateLimits {
    /// [`RateLimits::admit`] for limits that all replicas share. `waited` is how long the request has waited for stores: no
    /// longer than `timeout`, however often one is asked.
    pub(crate) async fn admit_shared(
        &self,
        view: &View<'_>,
        metrics: &ThreadMetrics,
        links: &Links,
        waited: &mut Duration,
    ) -> Option<Admission> {
        let Question { enforced, tried, refused } = self.ask(view, metrics);
        let enforced = if refused.is_some() { &[] } else { &enforced[..] };
        let now = self.counters.now();
        let mut groups: Vec<Group<'_>> = vec![self.group(enforced, now)];
        groups.extend(by_limit(&tried).map(|asked| self.group(asked, now)));
        if let Some(store) = &self.store {
            self.take_shared((store, links), &mut groups, now, metrics, waited).await;
        }
        let mut in_flight = InFlight::default();
        let mut groups = groups.into_iter();
        let first = groups.next();
        for group in groups {
            let passes = group.passes();
            metrics.limited(&group.asked[0].limit.metrics, LimitOutcome::of(passes, true));
            keep(&mut in_flight, group.in_flight.filter(|_| passes));
        }
        if let Some(wait) = refused {
            return Some(self.refusal(in_flight, wait));
        }
        let group = first.filter(|group| !group.asked.is_empty());
        let Some(group) = group else {
            return (!in_flight.0.is_empty()).then(|| self.admission(in_flight));
        };
        let passes = group.passes();
        keep(&mut in_flight, group.in_flight.filter(|_| passes));
        Some(self.judge(in_flight, enforced, group.standings.into_iter(), passes, metrics))
    }

    /// Takes what a group has in flight.
    fn group<'a>(&self, asked: &'a [Asked<'a>], now: u64) -> Group<'a> {
        let here = || asked.iter().filter(|asked| asked.ask.is_in_flight());
        let asks: Vec<Ask> = here().map(|asked| asked.ask).collect();
        let mut in_flight = InFlight::default();
        let (passes, standings) = self.take(&asks, now, &mut in_flight);
        let in_flight = passes.then_some(in_flight);
        Group { asked, in_flight, standings: here().zip(standings).collect() }
    }

    /// Takes the rest from the store, or from what stands in for it.
    async fn take_shared(
        &self,
        (store, links): (&Arc<Store>, &Links),
        groups: &mut [Group<'_>],
        now: u64,
        metrics: &ThreadMetrics,
        waited: &mut Duration,
    ) {
        let asks: Vec<(usize, Ask)> = groups
            .iter()
            .enumerate()
            .flat_map(|(n, group)| group.shared_asks().map(move |asked| (n, asked.ask)))
            .collect();
        if asks.is_empty() {
            return;
        }
        let began = Instant::now();
        let said = store.take(links, &asks, *waited).await;
        let took = began.elapsed();
        *waited += took;
        metrics.waited_for_store(took);
        let said = match said {
            Some(said) => said,
            None => {
                self.counters.note_without_store();
                self.stand_in(store.on_unavailable(), groups, now)
            }
        };
        let mut said = said.into_iter();
        for group in groups {
            // The group comes first: no answer is taken that is the next one's.
            let told: Vec<_> = group.shared_asks().zip(&mut said).collect();
            group.standings.extend(told);
        }
    }

    /// What holds while the store can't be reached.
    fn stand_in(&self, otherwise: OnUnavailable, groups: &[Group<'_>], now: u64) -> Vec<Standing> {
        let mut all = Vec::new();
        for group in groups {
            let asks: Vec<Ask> = group.shared_asks().map(|asked| asked.ask).collect();
            match otherwise {
                OnUnavailable::Local => all.extend(self.counters.take(&asks, now).1),
                OnUnavailable::Allow => {
                    all.extend(asks.iter().map(|ask| Standing { remaining: ask.meter.most(), ..ALLOWED }));
                }
                OnUnavailable::Deny => all.extend(asks.iter().map(|_| DENIED)),
            }
        }
        all
    }
}

const ALLOWED: Standing = Standing { passes: true, remaining: 0, reset: 0, wait: 0 };
const DENIED: Standing = Standing { passes: false, remaining: 0, reset: UNAVAILABLE, wait: UNAVAILABLE };

fn keep(all: &mut InFlight, more: Option<InFlight>) {
    if let Some(mut more) = more {
        all.0.append(&mut more.0);
    }
}
