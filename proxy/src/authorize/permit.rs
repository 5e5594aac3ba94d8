//! What an authorizer has for a request that may pass: changes of its fields, and fields for its answer.

use super::protobuf::Append;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Lets a request pass.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    /// Fields of the request that go first: whatever the client says there doesn't count.
    pub(super) remove: Vec<HeaderName>,
    /// Fields of the request that are set, in this order.
    pub(super) set: Vec<(HeaderName, HeaderValue, Append)>,
    /// Fields of the answer.
    pub(super) answer: HeaderMap,
}

impl Permit {
    /// Changes the request, and gives what the answer gets.
    pub(crate) fn apply(&self, request: &mut HeaderMap) -> HeaderMap {
        for name in &self.remove {
            request.remove(name);
        }
        set(&self.set, request);
        self.answer.clone()
    }
}

/// Sets fields.
pub(super) fn set(from: &[(HeaderName, HeaderValue, Append)], headers: &mut HeaderMap) {
    for (name, value, append) in from {
        match append {
            Append::Add => {
                headers.append(name, value.clone());
            }
            Append::IfAbsent => {
                headers.entry(name).or_insert_with(|| value.clone());
            }
            Append::Overwrite => {
                headers.insert(name, value.clone());
            }
            Append::IfPresent => {
                if headers.contains_key(name) {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
}
