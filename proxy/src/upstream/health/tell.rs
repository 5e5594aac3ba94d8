//! Changes of a backend's state, told: counted, logged, and heard by whoever listens.

use super::breaker::{Breaker, Change};
use super::{Health, now, until};
use crate::notice::{self, Notice, Subject};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Health {
    /// A breaker changed.
    pub(super) fn breaker_changed(&self, breaker: &Arc<Breaker>, change: Change) {
        let (state, shadow) = (&self.state, self.policy.shadow);
        let subject = self.subject(breaker);
        let (route, endpoint) = match &subject {
            Subject::Backend => (None, None),
            Subject::Route(route) => (Some(tracing::field::display(route)), None),
            Subject::Endpoint(socket) => (None, Some(tracing::field::display(socket))),
        };
        let backend = &state.id;
        let change = match change {
            Change::Opened { until: time } => {
                state.openings.fetch_add(1, Ordering::Relaxed);
                let seconds = until(time, now()).unwrap_or_default().as_secs_f64();
                tracing::warn!(%backend, route, endpoint, seconds, shadow, "a circuit breaker opens");
                notice::Change::Opened
            }
            Change::HalfOpened => {
                tracing::info!(%backend, route, endpoint, shadow, "a circuit breaker lets probes pass");
                notice::Change::HalfOpened
            }
            Change::Closed => {
                tracing::info!(%backend, route, endpoint, shadow, "a circuit breaker closes: its backend answers again");
                notice::Change::Closed
            }
        };
        self.tell(subject, change);
    }

    /// An endpoint is ejected for so long.
    pub(super) fn ejected(&self, socket: SocketAddr, time: Duration) {
        self.state.ejections.fetch_add(1, Ordering::Relaxed);
        let (backend, seconds, shadow) = (&self.state.id, time.as_secs_f64(), self.policy.shadow);
        tracing::warn!(%backend, endpoint = %socket, seconds, shadow, "an endpoint fails: it gets no requests for a while");
        self.tell(Subject::Endpoint(socket), notice::Change::Ejected);
    }

    /// An endpoint that was ejected answers well.
    pub(super) fn restored(&self, socket: SocketAddr) {
        let (backend, shadow) = (&self.state.id, self.policy.shadow);
        tracing::info!(%backend, endpoint = %socket, shadow, "an endpoint that was ejected answers again");
        self.tell(Subject::Endpoint(socket), notice::Change::Restored);
    }

    fn tell(&self, subject: Subject, change: notice::Change) {
        let backend = self.state.id.clone();
        self.state.notices.tell(Notice { backend, subject, change, shadow: self.policy.shadow });
    }

    /// Whose breaker it is. Looked for, because breakers seldom change.
    fn subject(&self, breaker: &Arc<Breaker>) -> Subject {
        let routes = self.state.routes.map.borrow();
        if let Some((route, _)) = routes.iter().find(|(_, known)| Arc::ptr_eq(known, breaker)) {
            return Subject::Route(route.clone());
        }
        let endpoints = self.state.endpoints.map.borrow();
        match endpoints.iter().find(|(_, endpoint)| Arc::ptr_eq(&endpoint.breaker, breaker)) {
            Some((socket, _)) => Subject::Endpoint(*socket),
            None => Subject::Backend,
        }
    }
}
