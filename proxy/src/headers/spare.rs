//! Maps of fields and heads of requests that are over, for the next request or answer of the thread: a map's room is two
//! allocations, and as many again when it grows by the fields that we write.

use crate::shelf::Shelf;
use http::{HeaderMap, Method, Request, Uri, request};

/// Of each sort, so many are kept by a thread.
const KEPT: usize = 64;
/// Larger ones aren't kept.
const LARGEST: usize = 96;

thread_local! {
    static SPARE: Shelf<HeaderMap> = const { Shelf::of(KEPT) };
    static SPARE_PARTS: Shelf<Box<request::Parts>> = const { Shelf::of(KEPT) };
}

/// A box with a request's head that says nothing.
pub(crate) fn spare_parts() -> Box<request::Parts> {
    SPARE_PARTS.with(Shelf::take).unwrap_or_else(|| Box::new(Request::new(()).into_parts().0))
}

/// Keeps a head's box and the room of its map. What it had of the connection's buffer goes.
pub(crate) fn keep_parts(mut parts: Box<request::Parts>) {
    keep_map(std::mem::take(&mut parts.headers));
    parts.extensions.clear();
    (parts.method, parts.uri) = (Method::GET, Uri::default());
    SPARE_PARTS.with(|shelf| shelf.keep(parts));
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
