//! Ids for requests: unique, and not to be guessed from others, so that nobody can plant a log line in advance.
//!
//! Random UUIDs (RFC 9562 §5.4). Randomness is drawn for many at once: no system call and no lock per request.

use http::HeaderValue;
use std::cell::RefCell;

/// Ids whose randomness is drawn at once.
const TOGETHER: usize = 32;
/// Bytes of an id.
const BYTES: usize = 16;
/// Where the digits of each byte are in the text of an id.
const PLACES: [usize; BYTES] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
/// The digits of each byte.
const DIGITS: [[u8; 2]; 256] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        digits[byte] = [HEX[byte >> 4], HEX[byte & 15]];
        byte += 1;
    }
    digits
};

/// Makes the ids of one thread.
#[derive(Default)]
pub struct RequestIds(RefCell<Supply>);

/// What ids are made of.
struct Supply {
    random: [u8; BYTES * TOGETHER],
    /// Bytes of it that were used.
    used: usize,
}

impl Default for Supply {
    fn default() -> Self {
        Self { random: [0; BYTES * TOGETHER], used: BYTES * TOGETHER }
    }
}

// Who sees what is left knows ids to come.
impl std::fmt::Debug for RequestIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestIds").finish_non_exhaustive()
    }
}

impl RequestIds {
    /// With randomness of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let Supply { random, used } = &mut *self.0.borrow_mut();
        if *used == random.len() {
            aws_lc_rs::rand::fill(random).expect("the process couldn't have started without randomness");
            *used = 0;
        }
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&random[*used..*used + BYTES]);
        *used += BYTES;
        // Version 4, variant 10.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        RequestId(bytes)
    }
}

/// A request's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId([u8; BYTES]);

impl RequestId {
    /// Its text.
    pub(super) fn text(self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        for (byte, place) in self.0.iter().zip(PLACES) {
            text[place..place + 2].copy_from_slice(&DIGITS[usize::from(*byte)]);
        }
        text
    }

    /// The same, as a field has it.
    pub(super) fn value(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text()).expect("digits and hyphens")
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
            let value = id.value();
            let id = value.to_str().unwrap();
            let lengths: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(&id[14..15], "4", "{id}");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
            assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{id}");
        }
    }
}
