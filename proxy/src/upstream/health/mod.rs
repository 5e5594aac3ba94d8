//! How a backend fares, and what that means for requests: circuit breaking, ejection of endpoints, and limits.
//!
//! A [`Health`] is a policy in force and the [`State`] that it is judged by. All threads share it, and it outlives edits of the
//! policy and changes of the endpoints. On the way of a request are atomics only: nothing waits. Endpoints and routes that
//! never gave cause have no state of their own, so that a healthy backend costs a look at its breaker.
//!
//! [`super::open`] asks what to spare ([`Health::spare`]). [`super::forward`] asks before it sends ([`Health::enter`], [`Health::choose`]) and tells what came of it ([`Watch::tell`],
//! [`Health::note`]). Must not know how requests are sent.

mod breaker;
mod endpoint;
mod limits;
mod report;
mod tell;
mod watch;
mod window;

use super::endpoint::Member;
use crate::expression::Answer;
use crate::model::{
    BackendId, BackendLimits, BackendPolicy, Breaker as BreakerPolicy, BreakerScope, OnOpen, RouteId, Text,
};
use crate::notice::Notices;
use crate::rejection::Rejection;
use crate::snapshot::Swap;
use breaker::{Phase, Verdict};
use endpoint::Endpoint;
use http::StatusCode;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

pub(crate) use breaker::{Breaker, Millis};
pub(crate) use limits::{Full, Place, Places, Room, Seat};
pub(crate) use report::{BackendHealth, Reading};
pub(crate) use watch::{Kept, Sent, Trailing, Watch, Watching, ends_in_trailers};
pub(crate) use window::Window;

/// Breakers of routes that are kept although they have nothing to remember.
const IDLE_ROUTES: usize = 1_024;

/// The time on the clock that all threads share. It begins at one second, so that 0 is before everything.
pub(crate) fn now() -> Millis {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX >> 1) + 1_000
}

/// A map that is read without a lock and seldom written.
#[derive(Debug)]
struct Known<K, V> {
    map: Swap<HashMap<K, Arc<V>>>,
    /// Whether there was ever anything in it: most never have anything.
    begun: AtomicBool,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { map: Swap::new(Arc::default()), begun: AtomicBool::new(false) }
    }
}

impl<K: Clone + Eq + Hash, V: Default> Known<K, V> {
    fn get(&self, key: &K) -> Option<Arc<V>> {
        if !self.begun.load(Ordering::Acquire) {
            return None;
        }
        self.map.borrow().get(key).cloned()
    }

    fn get_or_make(&self, key: &K) -> Arc<V> {
        if let Some(found) = self.get(key) {
            return found;
        }
        let new: Arc<V> = Arc::default();
        self.map.update(|known| {
            let mut known = known.clone();
            // Another thread may have been faster.
            known.entry(key.clone()).or_insert_with(|| new.clone());
            known
        });
        self.begun.store(true, Ordering::Release);
        self.get(key).unwrap_or(new)
    }

    fn retain(&self, keep: impl Fn(&K, &V) -> bool) {
        if self.map.borrow().iter().any(|(key, value)| !keep(key, value)) {
            self.map.update(|known| {
                known
                    .iter()
                    .filter(|(key, value)| keep(key, value))
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            });
        }
    }
}

/// What is known of a backend.
#[derive(Debug)]
pub(crate) struct State {
    id: BackendId,
    breaker: Arc<Breaker>,
    routes: Known<RouteId, Breaker>,
    endpoints: Known<SocketAddr, Endpoint>,
    room: Arc<Room>,
    openings: AtomicU64,
    ejections: AtomicU64,
    notices: Arc<Notices>,
}

/// A policy in force, and what it is judged by.
#[derive(Debug)]
pub(crate) struct Health {
    policy: Arc<BackendPolicy>,
    state: Arc<State>,
    /// What of answers is a failure beside their codes.
    failures: Box<[Answer]>,
    /// Whether requests are counted, or endpoints have breakers.
    counts: bool,
}

/// What a request gets that an open breaker keeps out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shut {
    pub(crate) status: StatusCode,
    /// Seconds until it may be worth trying.
    pub(crate) retry_after: u64,
}

impl Health {
    /// Puts a policy in force, with what was known under the one before.
    pub(super) fn new(
        id: &BackendId,
        policy: Arc<BackendPolicy>,
        before: Option<&Self>,
        notices: &Arc<Notices>,
    ) -> Self {
        let state = before.map(|before| before.state.clone()).unwrap_or_else(|| {
            Arc::new(State {
                id: id.clone(),
                breaker: Arc::default(),
                routes: Known::default(),
                endpoints: Known::default(),
                room: Arc::default(),
                openings: AtomicU64::new(0),
                ejections: AtomicU64::new(0),
                notices: notices.clone(),
            })
        });
        let expressions = policy.breaker.iter().flat_map(|breaker| &breaker.failure_when.expressions);
        let compile = |text: &Text| match Answer::compile(text) {
            Ok(compiled) => Some(compiled),
            Err(error) => {
                tracing::error!(backend = %id, %error, "a circuit breaker's expression can't be compiled");
                None
            }
        };
        let failures = expressions.filter_map(compile).collect();
        let bounded = |limits: &BackendLimits| {
            limits.max_parallel_requests.is_some() || limits.max_connections.is_some()
        };
        let by_endpoint = |breaker: &BreakerPolicy| breaker.scope == BreakerScope::Endpoint;
        let counts = bounded(&policy.limits)
            || bounded(&policy.per_endpoint)
            || policy.breaker.as_ref().is_some_and(by_endpoint);
        Self { policy, state, failures, counts }
    }

    pub(super) fn policy(&self) -> &Arc<BackendPolicy> {
        &self.policy
    }

    /// The backend that answers while the breaker is open.
    pub(crate) fn fallback(&self) -> Option<&BackendId> {
        match &self.policy.breaker.as_ref()?.on_open {
            OnOpen::Fallback(backend) => Some(backend),
            OnOpen::Reject { .. } => None,
        }
    }

    /// What requests get that the breaker keeps out.
    pub(crate) fn shut(&self, route: &RouteId) -> Shut {
        let (now, breaker) = (now(), self.policy.breaker.as_ref());
        let status = match breaker.map(|breaker| &breaker.on_open) {
            Some(OnOpen::Reject { status }) => StatusCode::from_u16(*status).ok(),
            Some(OnOpen::Fallback(_)) | None => None,
        };
        let until = match breaker.map(|breaker| breaker.scope) {
            None | Some(BreakerScope::Backend) => open_until(&self.state.breaker),
            Some(BreakerScope::RouteBackend) => {
                self.state.routes.get(route).and_then(|breaker| open_until(&breaker))
            }
            // One is enough.
            Some(BreakerScope::Endpoint) => {
                let endpoints = self.state.endpoints.map.borrow();
                endpoints.values().filter_map(|endpoint| open_until(&endpoint.breaker)).min()
            }
        };
        let left = until.unwrap_or(now).saturating_sub(now);
        Shut {
            status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            retry_after: left.div_ceil(1_000).max(1),
        }
    }

    /// The breaker of a route's own, where each has one.
    pub(crate) fn breaker_of(&self, route: &RouteId) -> Option<Arc<Breaker>> {
        if self.policy.breaker.as_ref()?.scope != BreakerScope::RouteBackend {
            return None;
        }
        if self.state.routes.map.borrow().len() > IDLE_ROUTES {
            self.state.routes.retain(|known, breaker| known == route || breaker.phase() != Phase::Closed);
        }
        Some(self.state.routes.get_or_make(route))
    }

    /// Lets a request in, or not, before an endpoint is picked; `route` is the breaker of its route's own. The watch wants to hear what
    /// becomes of it.
    pub(crate) fn enter<'a>(
        self: &'a Arc<Self>,
        route: Option<&'a Arc<Breaker>>,
        random: u32,
    ) -> Result<Option<Watch<'a>>, Rejection> {
        let Some(policy) = &self.policy.breaker else { return Ok(None) };
        let breaker = match policy.scope {
            BreakerScope::Backend => Some(&self.state.breaker),
            BreakerScope::RouteBackend => route,
            BreakerScope::Endpoint => None,
        };
        let Some(breaker) = breaker else { return Ok(None) };
        match breaker.admit(now, policy) {
            Verdict::Pass(permit) => Ok(Some(Watch::new(self, breaker, permit, random))),
            Verdict::Refused { .. } if self.policy.shadow => Ok(None),
            Verdict::Refused { .. } => Err(Rejection::BreakerOpen),
        }
    }

    /// Whether it has to be asked which endpoint a request may go to. Not while none has failed, if nothing is counted.
    pub(crate) fn chooses(&self) -> bool {
        self.counts || self.state.endpoints.begun.load(Ordering::Acquire)
    }

    /// Picks an endpoint that may get a request. `pick` picks one whose slot isn't among those that it is told.
    pub(crate) fn choose<'a>(
        self: &Arc<Self>,
        members: &'a [Member],
        tried: &[usize],
        random: u32,
        pick: impl Fn(&[usize]) -> Option<&'a Member>,
    ) -> Result<Chosen<'a>, Option<Rejection>> {
        let first = pick(tried).ok_or(None)?;
        if self.bar(first).is_none() || self.policy.shadow {
            return self.take(first, random).map_err(Some);
        }
        let mut barred: Vec<_> =
            members.iter().filter_map(|member| Some((member.address.slot(), self.bar(member)?))).collect();
        let ejected = barred.iter().filter(|(_, bar)| *bar == Bar::Ejected).count();
        if would_overload(members.len(), ejected) {
            barred.retain(|(_, bar)| *bar != Bar::Ejected);
        }
        loop {
            let avoided = |but: Option<Bar>| -> Vec<usize> {
                let bars = barred.iter().filter(|(_, bar)| Some(*bar) != but).map(|(slot, _)| *slot);
                tried.iter().copied().chain(bars).collect()
            };
            // Where all others are out of reach, one that is ejected may do.
            let Some(member) = pick(&avoided(None)).or_else(|| pick(&avoided(Some(Bar::Ejected)))) else {
                let open = barred.iter().any(|(_, bar)| *bar == Bar::Breaker);
                let full = barred.iter().any(|(_, bar)| *bar == Bar::Full);
                return Err(match () {
                    () if open => Some(Rejection::BreakerOpen),
                    () if full => Some(Rejection::BackendLimit),
                    () => None,
                });
            };
            match self.take(member, random) {
                Ok(chosen) => return Ok(chosen),
                // Another thread took the last place of this endpoint; of the backend there is none either.
                Err(Rejection::BreakerOpen) => barred.push((member.address.slot(), Bar::Breaker)),
                Err(_) if self.state.room.is_full(&self.policy.limits) => {
                    return Err(Some(Rejection::BackendLimit));
                }
                Err(_) => barred.push((member.address.slot(), Bar::Full)),
            }
        }
    }

    /// Slots of endpoints that connections should spare as well as those that were tried.
    pub(crate) fn spare(&self, members: &[Member], tried: &[usize]) -> Vec<usize> {
        let mut spared = tried.to_vec();
        if self.policy.ejection.is_some() && !self.policy.shadow {
            let (now, endpoints) = (now(), self.state.endpoints.map.borrow());
            let is_ejected = |member: &&Member| {
                endpoints.get(&member.address.socket()).is_some_and(|endpoint| endpoint.is_ejected(now))
            };
            let ejected: Vec<_> =
                members.iter().filter(is_ejected).map(|member| member.address.slot()).collect();
            if !would_overload(members.len(), ejected.len()) {
                spared.extend(ejected);
            }
        }
        spared
    }

    /// Why an endpoint isn't to get a request.
    fn bar(&self, member: &Member) -> Option<Bar> {
        let (endpoint, now) = (self.state.endpoints.get(&member.address.socket())?, now());
        if self.policy.ejection.is_some() && endpoint.is_ejected(now) {
            return Some(Bar::Ejected);
        }
        if self.endpoint_breaker().is_some_and(|policy| endpoint.breaker.refuses(now, policy)) {
            return Some(Bar::Breaker);
        }
        endpoint.room.is_full(&self.policy.per_endpoint).then_some(Bar::Full)
    }

    /// Takes what a request needs to go to an endpoint.
    fn take<'a>(self: &Arc<Self>, member: &'a Member, random: u32) -> Result<Chosen<'a>, Rejection> {
        let socket = member.address.socket();
        let backend = Place::of(&self.state.room, &self.policy.limits, self.policy.shadow)?;
        let endpoint = match self.policy.per_endpoint.max_parallel_requests {
            None => None,
            Some(_) => {
                let room = &self.state.endpoints.get_or_make(&socket).room;
                Place::of(room, &self.policy.per_endpoint, self.policy.shadow)?
            }
        };
        let watch = match self.endpoint_breaker() {
            None => None,
            Some(policy) => {
                let breaker = self.state.endpoints.get_or_make(&socket).breaker.clone();
                match breaker.admit(now, policy) {
                    Verdict::Pass(permit) => Some(Box::new(Kept::new(self.clone(), breaker, permit, random))),
                    Verdict::Refused { .. } if self.policy.shadow => None,
                    Verdict::Refused { .. } => return Err(Rejection::BreakerOpen),
                }
            }
        };
        Ok(Chosen { member, places: Places::of(backend, endpoint), watch })
    }

    fn endpoint_breaker(&self) -> Option<&BreakerPolicy> {
        self.policy.breaker.as_ref().filter(|breaker| breaker.scope == BreakerScope::Endpoint)
    }

    /// Whether what comes of tries may eject an endpoint.
    pub(crate) fn ejects(&self) -> bool {
        self.policy.ejection.is_some()
    }

    /// Takes in what came of a try on an endpoint; `members` says how many there are, where that matters.
    pub(crate) fn note(&self, socket: SocketAddr, sent: &Sent, members: impl FnOnce() -> usize) {
        let Some(policy) = &self.policy.ejection else { return };
        let endpoint = match sent.is_success() {
            // Most endpoints never fail.
            true if policy.failure_percent.is_none() => self.state.endpoints.get(&socket),
            true | false => Some(self.state.endpoints.get_or_make(&socket)),
        };
        let Some(endpoint) = endpoint else { return };
        let now = now();
        if endpoint.is_restored_by(sent, now) {
            self.restored(socket);
        }
        let Some(wanted) = endpoint.note(sent, now, policy) else { return };
        let most =
            (members() * usize::from(policy.max_percent) / 100).max(usize::from(policy.max_percent > 0));
        let ejected = self.state.ejected(now);
        if ejected >= most {
            return;
        }
        if let Some(time) = endpoint.eject(now, wanted, policy) {
            self.ejected(socket, time);
        }
    }

    /// Where connections are counted, if they are bounded.
    pub(crate) fn seats(&self) -> Option<&Arc<Room>> {
        let bounds = [&self.policy.limits, &self.policy.per_endpoint];
        bounds.iter().any(|limits| limits.max_connections.is_some()).then_some(&self.state.room)
    }

    /// A place for a connection to an endpoint.
    pub(crate) fn sit(&self, socket: SocketAddr) -> Result<Seat, Full> {
        let (limits, per_endpoint) = (&self.policy.limits, &self.policy.per_endpoint);
        let endpoint = match per_endpoint.max_connections {
            Some(_) => &self.state.endpoints.get_or_make(&socket).room,
            // It isn't counted.
            None => &self.state.room,
        };
        Seat::take((&self.state.room, limits), (endpoint, per_endpoint), self.policy.shadow)
    }

    /// A place among those who wait for a connection.
    pub(crate) fn line_up(&self) -> Result<Option<Place>, Rejection> {
        Place::of_wait(&self.state.room, &self.policy.limits)
    }

    /// A place for a request that is tried again, if there is one.
    pub(crate) fn retry(&self) -> Result<Option<Place>, Rejection> {
        let limits = &self.policy.limits;
        Place::of_retry(&self.state.room, limits, self.policy.shadow)
    }

    /// Forgets endpoints that are gone.
    pub(super) fn keep_endpoints(&self, listed: impl Fn(&SocketAddr) -> bool) {
        self.state.endpoints.retain(|socket, _| listed(socket));
    }
}

impl State {
    /// Endpoints that are ejected now.
    fn ejected(&self, now: Millis) -> usize {
        self.endpoints.map.borrow().values().filter(|endpoint| endpoint.is_ejected(now)).count()
    }
}

/// Whether fewer than half would be left, who would carry more than they can.
fn would_overload(members: usize, ejected: usize) -> bool {
    (members - ejected) * 2 < members
}

fn open_until(breaker: &Breaker) -> Option<Millis> {
    match breaker.phase() {
        Phase::Open { until } => Some(until),
        Phase::Closed | Phase::HalfOpen { .. } => None,
    }
}

/// Why an endpoint isn't to get a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bar {
    Ejected,
    Breaker,
    Full,
}

/// An endpoint, and what goes with the request there.
pub(crate) struct Chosen<'a> {
    pub(crate) member: &'a Member,
    /// Counts the request until its answer is complete.
    pub(crate) places: Option<Box<Places>>,
    pub(crate) watch: Option<Box<Kept>>,
}

/// How long a time of the shared clock is from now.
fn until(time: Millis, now: Millis) -> Option<Duration> {
    time.checked_sub(now).filter(|left| *left > 0).map(Duration::from_millis)
}
