//! Maps of fields that are over, for the next request or answer of the thread: a map's room is two allocations, and as
//! many again when it grows by the fields that we write.

use crate::shelf::Shelf;
use http::HeaderMap;

/// Maps that a thread keeps.
const KEPT: usize = 64;
/// Larger ones aren't kept.
const LARGEST: usize = 96;

thread_local! {
    static SPARE: Shelf<HeaderMap> = const { Shelf::of(KEPT) };
}

/// An empty map with room for so many.
pub(crate) fn spare_map(room: usize) -> HeaderMap {
    SPARE.with(Shelf::take).unwrap_or_else(|| HeaderMap::with_capacity(room))
}

/// Keeps a map's room.
pub(crate) fn keep_map(mut map: HeaderMap) {
    if (1..=LARGEST).contains(&map.capacity()) {
        map.clear();
        SPARE.with(|shelf| shelf.keep(map));
    }
}
