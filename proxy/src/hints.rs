//! What backends say ahead of their answers, for clients to fetch meanwhile (103 Early Hints, RFC 8297).

use http::HeaderMap;
use std::cell::RefCell;

/// Hints that a client gets for one request; more are dropped, as they are when interim answers are too many.
const MOST: usize = 16;

/// Hints on their way from a request's backend to its client.
#[derive(Default)]
pub(crate) struct Hints(RefCell<Vec<HeaderMap>>);

impl Hints {
    /// A backend said so.
    pub(crate) fn add(&self, fields: HeaderMap) {
        let mut hints = self.0.borrow_mut();
        if hints.len() < MOST {
            hints.push(fields);
        }
    }

    /// What has come since this was asked last.
    pub(crate) fn take(&self) -> Vec<HeaderMap> {
        self.0.take()
    }
}
