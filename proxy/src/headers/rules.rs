//! What a port has to say of its clients' fields: the usual, or what a ClientPolicy has in its place.

use super::{Fate, X_REQUEST_ID, fate_in_request};
use crate::model::{self, Underscores};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of an id that clients may choose.
const LONGEST_ID: usize = 128;

/// Without a policy.
pub static USUAL: Rules = Rules {
    underscores: Underscores::Drop,
    id: X_REQUEST_ID,
    is_id_trusted: false,
    server: None,
    early_hints: true,
};

/// What becomes of fields.
#[derive(Clone, Debug)]
pub struct Rules {
    pub(super) underscores: Underscores,
    id: HeaderName,
    is_id_trusted: bool,
    server: Option<HeaderValue>,
    early_hints: bool,
}

impl Rules {
    /// The error is for its author, and begins with the field.
    pub(crate) fn compile(from: &model::ClientHeaders) -> Result<Self, String> {
        let id = from.request_id.as_deref().map_or(Ok(X_REQUEST_ID), |name| {
            let parsed = HeaderName::try_from(name).ok();
            parsed.filter(|name| *name == X_REQUEST_ID || is_free(name)).ok_or_else(|| {
                format!("headers.requestID.header: {name:?} has a meaning already; write X-Request-ID, or a name of your own")
            })
        })?;
        let server = from.server.as_deref().map(HeaderValue::try_from).transpose();
        let server = server.map_err(|_| "headers.server: a field's value is visible text".to_owned())?;
        let (underscores, is_id_trusted) = (from.underscores, from.trust_request_id);
        let early_hints = !from.no_early_hints;
        Ok(Self { underscores, id, is_id_trusted, server, early_hints })
    }

    /// The field with a request's id.
    pub(crate) fn id(&self) -> &HeaderName {
        &self.id
    }

    /// Whether clients get what backends say ahead of their answers.
    pub(crate) fn early_hints(&self) -> bool {
        self.early_hints
    }

    /// `Server` of every answer.
    pub(crate) fn server(&self) -> Option<&HeaderValue> {
        self.server.as_ref()
    }

    /// The id that the client gave its request, if it may and there is one that logs can take.
    pub(super) fn told_id(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.is_id_trusted {
            return None;
        }
        let mut values = headers.get_all(&self.id).iter();
        let id = values.next().filter(|_| values.next().is_none())?;
        let is_plain = id.as_bytes().iter().all(|byte| matches!(byte, b'!'..=b'~'));
        (is_plain && (1..=LONGEST_ID).contains(&id.len())).then(|| id.clone())
    }

    /// Takes fields away that a backend may read as another field of the request, one that a policy has set above all: to
    /// many, `x_user` is `x-user`.
    pub(crate) fn drop_shadows(&self, headers: &mut HeaderMap) {
        if self.underscores != Underscores::Keep {
            return;
        }
        let doomed: Vec<_> = headers
            .keys()
            .filter(|name| name.as_str().contains('_'))
            .filter(|name| headers.contains_key(hyphenated(name)))
            .cloned()
            .collect();
        for name in doomed {
            headers.remove(name);
        }
    }
}

/// Whether a name has no meaning of its own for us.
fn is_free(name: &HeaderName) -> bool {
    let name = name.as_str();
    fate_in_request(name) == Fate::Keep
        && !name.starts_with("content-")
        && !matches!(
            name,
            "authorization" | "accept" | "origin" | "date" | "range" | "traceparent" | "tracestate"
        )
}

/// What many backends make of a name.
pub(super) fn hyphenated(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}
