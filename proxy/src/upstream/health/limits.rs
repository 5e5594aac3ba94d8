//! What is under way at a time: counted by all threads, bounded by the policy.

use crate::model::BackendLimits;
use crate::rejection::Rejection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What is under way at a backend or an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Room {
    requests: AtomicU32,
    retries: AtomicU32,
}

impl Room {
    /// Whether no further request has a place.
    pub(super) fn is_full(&self, limits: &BackendLimits) -> bool {
        limits.max_parallel_requests.is_some_and(|most| self.requests.load(Ordering::Relaxed) >= most)
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    Retry,
}

/// One of the requests that are under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    kind: Kind,
}

impl Place {
    /// Of a request; none where nothing bounds them. In shadow nothing is refused, only counted.
    pub(super) fn of(
        room: &Arc<Room>,
        limits: &BackendLimits,
        shadow: bool,
    ) -> Result<Option<Self>, Rejection> {
        Self::take(room, Kind::Request, limits.max_parallel_requests, shadow)
    }

    /// Of a request that is tried again.
    pub(super) fn of_retry(
        room: &Arc<Room>,
        limits: &BackendLimits,
        shadow: bool,
    ) -> Result<Option<Self>, Rejection> {
        Self::take(room, Kind::Retry, limits.max_parallel_retries, shadow)
    }

    fn take(
        room: &Arc<Room>,
        kind: Kind,
        most: Option<u32>,
        shadow: bool,
    ) -> Result<Option<Self>, Rejection> {
        let Some(most) = most else { return Ok(None) };
        // Counted before it is judged, so that threads at the same time can't both have the last place.
        let place = Self { room: room.clone(), kind };
        let before = place.count().fetch_add(1, Ordering::Relaxed);
        match before >= most && !shadow {
            true => Err(Rejection::BackendLimit),
            false => Ok(Some(place)),
        }
    }

    fn count(&self) -> &AtomicU32 {
        match self.kind {
            Kind::Request => &self.room.requests,
            Kind::Retry => &self.room.retries,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's places at its backend and its endpoint.
#[derive(Debug)]
pub(crate) struct Places {
    _backend: Option<Place>,
    _endpoint: Option<Place>,
}

impl Places {
    pub(super) fn of(backend: Option<Place>, endpoint: Option<Place>) -> Option<Box<Self>> {
        (backend.is_some() || endpoint.is_some())
            .then(|| Box::new(Self { _backend: backend, _endpoint: endpoint }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_exactly_as_many_places_as_there_may_be() {
        let (room, limits) = (
            Arc::new(Room::default()),
            BackendLimits { max_parallel_requests: Some(8), ..BackendLimits::default() },
        );
        let got: Vec<_> = std::thread::scope(|scope| {
            let take = || (0..100).filter_map(|_| Place::of(&room, &limits, false).ok()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(got.len(), 8);
        assert!(room.is_full(&limits));
        assert!(Place::of(&room, &limits, true).is_ok());
        assert!(Place::of_retry(&room, &limits, false).unwrap().is_none());
        drop(got);
        assert_eq!(room.requests(), 0);
    }
}
