//! What is under way at a time: counted by all threads, bounded by the policy.

use crate::model::BackendLimits;
use crate::rejection::Rejection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;

/// What is under way at a backend or an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Room {
    requests: AtomicU32,
    retries: AtomicU32,
    connections: AtomicU32,
    /// Of these, those that carry nothing.
    idle: AtomicU32,
    waiting: AtomicU32,
    /// A connection is gone: one of those who wait, on whichever thread, may open another.
    pub(crate) freed: Notify,
    /// Somebody waits: threads with idle connections are to close one.
    pub(crate) wanted: Notify,
}

impl Room {
    /// Whether no further request has a place.
    pub(super) fn is_full(&self, limits: &BackendLimits) -> bool {
        limits.max_parallel_requests.is_some_and(|most| self.requests.load(Ordering::Relaxed) >= most)
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests that wait for a connection, on all threads.
    pub(crate) fn waiting(&self) -> u32 {
        // Whoever waits counts first and looks for a connection then; whoever frees one does it the other way round. In one order
        // that all agree on, one of them sees the other.
        self.waiting.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    Retry,
    Connection,
    Idle,
    Wait,
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

    /// Of a request that waits for a connection, whether or not that is bounded.
    pub(super) fn of_wait(room: &Arc<Room>, limits: &BackendLimits) -> Result<Option<Self>, Rejection> {
        // Who waits for a connection that another thread has idle waits for a moment only.
        let idle = room.idle.load(Ordering::Relaxed);
        let most = limits.max_pending_requests.unwrap_or(u32::MAX).saturating_add(idle);
        Self::take(room, Kind::Wait, Some(most), false)
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
        let before = place.count().fetch_add(1, Ordering::SeqCst);
        match before >= most && !shadow {
            true => Err(Rejection::BackendLimit),
            false => Ok(Some(place)),
        }
    }

    fn count(&self) -> &AtomicU32 {
        match self.kind {
            Kind::Request => &self.room.requests,
            Kind::Retry => &self.room.retries,
            Kind::Connection => &self.room.connections,
            Kind::Idle => &self.room.idle,
            Kind::Wait => &self.room.waiting,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::SeqCst);
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

/// A connection's places at its backend and its endpoint: as long as it is open.
#[derive(Debug)]
pub(crate) struct Seat {
    places: Option<(Option<Place>, Option<Place>)>,
    room: Arc<Room>,
    /// While the connection carries nothing.
    rest: Option<Place>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Backend,
    Endpoint,
}

impl Seat {
    /// For a connection to an endpoint of a backend; each comes with what bounds it.
    pub(super) fn take(
        backend: (&Arc<Room>, &BackendLimits),
        endpoint: (&Arc<Room>, &BackendLimits),
        shadow: bool,
    ) -> Result<Self, Full> {
        let place = |(room, limits): (&Arc<Room>, &BackendLimits)| {
            Place::take(room, Kind::Connection, limits.max_connections, shadow)
        };
        let at_backend = place(backend).map_err(|_| Full::Backend)?;
        let at_endpoint = match place(endpoint) {
            Ok(place) => place,
            Err(_) => {
                drop(Self { places: Some((at_backend, None)), room: backend.0.clone(), rest: None });
                return Err(Full::Endpoint);
            }
        };
        Ok(Self { places: Some((at_backend, at_endpoint)), room: backend.0.clone(), rest: None })
    }

    /// The connection carries nothing from now on.
    pub(crate) fn rest(&mut self) {
        self.rest = Place::take(&self.room, Kind::Idle, Some(u32::MAX), false).ok().flatten();
    }

    /// It carries something again.
    pub(crate) fn resume(&mut self) {
        self.rest = None;
    }

    /// Whether that is its backend's room.
    pub(crate) fn is_in(&self, room: &Arc<Room>) -> bool {
        Arc::ptr_eq(&self.room, room)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        drop(self.places.take());
        if self.room.waiting() > 0 {
            self.room.freed.notify_one();
        }
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

    #[test]
    fn a_seat_is_at_both_or_at_none() {
        let bound = |most| BackendLimits { max_connections: most, ..BackendLimits::default() };
        let (room, one, two) = (Arc::new(Room::default()), Arc::default(), Arc::default());
        let (of_all, of_each) = (bound(Some(2)), bound(Some(1)));
        let take = |endpoint: &Arc<Room>| Seat::take((&room, &of_all), (endpoint, &of_each), false);
        let first = take(&one).unwrap();
        assert_eq!(take(&one).err(), Some(Full::Endpoint));
        let _second = take(&two).unwrap();
        assert_eq!(take(&one).err(), Some(Full::Backend));
        assert_eq!(room.connections(), 2);
        drop(first);
        assert_eq!((room.connections(), one.connections()), (1, 0));
        take(&one).unwrap();
        let unbounded = bound(None);
        Seat::take((&room, &unbounded), (&two, &unbounded), false).unwrap();
        assert!(Seat::take((&room, &of_all), (&two, &of_each), true).is_ok());
    }

    #[test]
    fn so_many_may_wait() {
        let (room, limits) =
            (Arc::default(), BackendLimits { max_pending_requests: Some(1), ..BackendLimits::default() });
        let waiting = Place::of_wait(&room, &limits).unwrap();
        assert_eq!(room.waiting(), 1);
        assert!(Place::of_wait(&room, &limits).is_err());
        assert!(Place::of_wait(&room, &BackendLimits::default()).is_ok());
        drop(waiting);
        assert_eq!(room.waiting(), 0);
    }
}
