//! Authorizers that speak HTTP: they see the request's head, and let it pass by answering 200.

use super::{Denial, Said, Verdict, may_set};
use crate::filter::Terms;
use crate::headers::{Upgrade, prepare_response};
use http::header::{self, HeaderMap, HeaderName};
use http::{StatusCode, header::HeaderValue};

/// What the authorizer is told: Host and credentials always, others as the rule says.
pub(super) fn told(terms: &Terms, headers: &HeaderMap) -> HeaderMap {
    let mut told = HeaderMap::with_capacity(terms.request_headers.len() + 2);
    for name in [header::HOST, header::AUTHORIZATION].iter().chain(&terms.request_headers) {
        if !told.contains_key(name) {
            for value in headers.get_all(name) {
                told.append(name, value.clone());
            }
        }
    }
    // It frames its own message.
    told.remove(header::CONTENT_LENGTH);
    told
}

/// What the answer means. `None`: the authorizer failed. When the request may pass, the fields that are the authorizer's
/// to set are set.
pub(super) fn verdict(said: Said, allowed: &[HeaderName], request: &mut HeaderMap) -> Option<Verdict> {
    let Said { status, mut headers, body, .. } = said;
    prepare_response(&mut headers, Upgrade::None);
    if status == StatusCode::OK {
        grant(&headers, allowed, request);
        return Some(Verdict::Allowed(None));
    }
    if status.is_server_error() {
        return None;
    }
    if status.is_success() {
        // "Any other code is considered an authorization failure" (HTTPExternalAuthFilter.protocol): but not a
        // failure that a client would understand.
        return Some(Verdict::Denied(Box::new(Denial {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
        })));
    }
    Some(Verdict::Denied(Box::new(Denial { status, headers, body })))
}

fn grant(answer: &HeaderMap, allowed: &[HeaderName], request: &mut HeaderMap) {
    let mut set = |name: &HeaderName, values: header::GetAll<'_, HeaderValue>| {
        // Whatever the authorizer says of it: the client's word doesn't count.
        request.remove(name);
        for value in values {
            request.append(name, value.clone());
        }
    };
    for name in allowed {
        set(name, answer.get_all(name));
    }
    if allowed.is_empty() {
        let own = |name: &HeaderName| {
            name.as_str().starts_with("content-") || *name == header::DATE || *name == header::SERVER
        };
        for name in answer.keys().filter(|name| may_set(name) && !own(name)) {
            set(name, answer.get_all(name));
        }
    }
}
