//! Ids for requests: unique, and not to be guessed from others, so that nobody can plant a log line in advance.
//!
//! In the form of a random UUID (RFC 9562 §5.4): a counter under a keyed hash, the key drawn by the operating system
//! once per thread. No system call and no lock per request.

use bytes::BytesMut;
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};

/// Ids that share one allocation.
const TOGETHER: usize = 32;

/// Makes the ids of one thread.
#[derive(Debug)]
pub struct RequestIds {
    high: RandomState,
    low: RandomState,
    count: Cell<u64>,
    /// Room for the text of ids: many share one allocation.
    room: RefCell<BytesMut>,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestIds {
    /// With keys of its own.
    pub fn new() -> Self {
        // `RandomState::new` counts up from one draw per thread; one for each half differs in a key all the same.
        Self {
            high: RandomState::new(),
            low: RandomState::new(),
            count: Cell::new(0),
            room: RefCell::default(),
        }
    }

    /// The next id.
    pub fn next(&self) -> HeaderValue {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.high.hash_one(count).to_be_bytes());
        bytes[8..].copy_from_slice(&self.low.hash_one(count).to_be_bytes());
        // Version 4, variant 10.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = [b'-'; 36];
        let mut position = 0;
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                position += 1;
            }
            text[position] = HEX[usize::from(byte >> 4)];
            text[position + 1] = HEX[usize::from(byte & 15)];
            position += 2;
        }
        let mut room = self.room.borrow_mut();
        if room.capacity() < text.len() {
            room.reserve(text.len() * TOGETHER);
        }
        room.extend_from_slice(&text);
        HeaderValue::from_maybe_shared(room.split().freeze()).expect("digits and hyphens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_distinct_uuids_of_version_4() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        let ids: HashSet<_> = (0..1_000).flat_map(|_| [one.next(), other.next()]).collect();
        assert_eq!(ids.len(), 2_000);
        for id in &ids {
            let id = id.to_str().unwrap();
            let lengths: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(&id[14..15], "4", "{id}");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
            assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{id}");
        }
    }
}
