//! Maps of fields that are over, for the next request or answer of the thread: a map's room is two allocations, and as
//! many again when it grows by the fields that we write.

use http::HeaderMap;
use std::cell::RefCell;

/// Maps that a thread keeps.
const KEPT: usize = 64;
/// Larger ones aren't kept.
const LARGEST: usize = 96;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many.
pub(crate) fn spare_map(room: usize) -> HeaderMap {
    let found = SPARE.with_borrow_mut(Vec::pop);
    found.unwrap_or_else(|| HeaderMap::with_capacity(room))
}

/// Keeps a map's room.
pub(crate) fn keep_map(mut map: HeaderMap) {
    if (1..=LARGEST).contains(&map.capacity()) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                map.clear();
                spare.push(map);
            }
        });
    }
}
