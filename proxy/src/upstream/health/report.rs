//! The state of backends with a policy, for people: metrics and the admin port.

use super::breaker::{Breaker, Millis, Phase};
use super::{Health, now, until};
use crate::model::BreakerScope;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Figures of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// 0 closed, 1 half open, 2 open; the worst, where there are several.
    pub(crate) breaker: u64,
    pub(crate) openings: u64,
    pub(crate) ejected: u64,
    pub(crate) ejections: u64,
}

impl Health {
    /// What metrics say.
    pub(crate) fn read(&self) -> Reading {
        let state = &self.state;
        let level = |breaker: &Arc<Breaker>| level(breaker.phase());
        let breaker = match self.policy.breaker.as_ref().map(|breaker| breaker.scope) {
            None => None,
            Some(BreakerScope::Backend) => Some(level(&state.breaker)),
            Some(BreakerScope::RouteBackend) => state.routes.map.borrow().values().map(level).max(),
            Some(BreakerScope::Endpoint) => {
                state.endpoints.map.borrow().values().map(|endpoint| level(&endpoint.breaker)).max()
            }
        };
        Reading {
            breaker: breaker.unwrap_or(0),
            openings: state.openings.load(Ordering::Relaxed),
            ejected: state.ejected(now()) as u64,
            ejections: state.ejections.load(Ordering::Relaxed),
        }
    }
}

fn level(phase: Phase) -> u64 {
    match phase {
        Phase::Closed => 0,
        Phase::HalfOpen { .. } => 1,
        Phase::Open { .. } => 2,
    }
}

/// What the admin port says of a backend with a policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendHealth {
    backend: String,
    #[serde(skip_serializing_if = "is_false")]
    shadow: bool,
    /// Of the backend; absent where its breakers are its routes' or endpoints', or where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<BreakerHealth>,
    /// By route, those that were asked.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    routes: BTreeMap<String, BreakerHealth>,
    /// By address, those that gave cause.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    endpoints: BTreeMap<String, EndpointHealth>,
    /// Under way, where that is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_requests: Option<u32>,
    /// Open, and requests that wait for one, where they are bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_requests: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BreakerHealth {
    state: &'static str,
    /// Until probes may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_for_seconds: Option<f64>,
}

impl BreakerHealth {
    fn of(breaker: &Breaker, now: Millis) -> Self {
        let (state, time) = match breaker.phase() {
            Phase::Closed => ("closed", None),
            Phase::HalfOpen { .. } => ("halfOpen", None),
            Phase::Open { until: time } => ("open", until(time, now)),
        };
        Self { state, open_for_seconds: time.map(|time| time.as_secs_f64()) }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointHealth {
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_for_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<BreakerHealth>,
}

impl Health {
    /// What the admin port says.
    pub(crate) fn report(&self) -> BackendHealth {
        let (now, state) = (now(), &self.state);
        let scope = self.policy.breaker.as_ref().map(|breaker| breaker.scope);
        let routes = state.routes.map.borrow();
        let endpoints = state.endpoints.map.borrow();
        BackendHealth {
            backend: state.id.to_string(),
            shadow: self.policy.shadow,
            breaker: (scope == Some(BreakerScope::Backend)).then(|| BreakerHealth::of(&state.breaker, now)),
            routes: routes
                .iter()
                .filter(|_| scope == Some(BreakerScope::RouteBackend))
                .map(|(route, breaker)| (route.to_string(), BreakerHealth::of(breaker, now)))
                .collect(),
            endpoints: endpoints
                .iter()
                .map(|(socket, endpoint)| {
                    let ejected = until(endpoint.ejected_until(), now).map(|time| time.as_secs_f64());
                    let breaker = (scope == Some(BreakerScope::Endpoint))
                        .then(|| BreakerHealth::of(&endpoint.breaker, now));
                    (socket.to_string(), EndpointHealth { ejected_for_seconds: ejected, breaker })
                })
                .collect(),
            parallel_requests: self.policy.limits.max_parallel_requests.map(|_| state.room.requests()),
            connections: self.policy.limits.max_connections.map(|_| state.room.connections()),
            pending_requests: self.seats().map(|room| room.waiting()),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}
