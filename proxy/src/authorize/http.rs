//! Authorizers that speak HTTP: they see the request's head, and let it pass by answering 200.

use super::protobuf::Append;
use super::{Denial, Permit, Said, Verdict, may_set};
use crate::filter::Terms;
use crate::headers::{Upgrade, prepare_response};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};

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
/// to set come from it.
pub(super) fn verdict(said: Said, allowed: &[HeaderName]) -> Option<Verdict> {
    let Said { status, mut headers, body, .. } = said;
    prepare_response(&mut headers, Upgrade::None);
    if status == StatusCode::OK {
        return Some(Verdict::Allowed(Box::new(permit(&headers, allowed))));
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

fn permit(answer: &HeaderMap, allowed: &[HeaderName]) -> Permit {
    let own = |name: &HeaderName| {
        name.as_str().starts_with("content-") || *name == header::DATE || *name == header::SERVER
    };
    // Whatever the authorizer says of them: the client's word doesn't count.
    let remove: Vec<_> = match allowed {
        [] => answer.keys().filter(|name| may_set(name) && !own(name)).cloned().collect(),
        named => named.to_vec(),
    };
    let values = |name: &HeaderName| {
        let name = name.clone();
        answer
            .get_all(&name)
            .iter()
            .map(move |value| (name.clone(), value.clone(), Append::Add))
            .collect::<Vec<_>>()
    };
    let set = remove.iter().flat_map(values).collect();
    Permit { remove, set, answer: HeaderMap::new() }
}
