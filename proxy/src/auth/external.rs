//! Clients that somebody else knows: an authorizer ([`crate::authorize`]) as one of several ways to be known.

use super::oidc::is_navigation;
use crate::authorize::{Denial, Permits};
use crate::expression::View;
use crate::filter::Terms;
use crate::model::ExternalAuthenticator;
use crate::router::Authorizer;
use crate::upstream::BackendState;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use std::sync::Arc;

/// Somebody who is asked.
#[derive(Debug)]
pub(crate) struct External {
    pub(crate) authorizer: Authorizer,
    /// Whether clients pass while it has no answer.
    pub(crate) fail_open: bool,
    /// What it said before; none: it is asked about every request.
    permits: Option<Permits>,
    /// Where browsers are sent whom it doesn't know.
    sign_in: Option<Box<str>>,
}

impl External {
    pub(super) fn compile(from: &ExternalAuthenticator, backend: Arc<BackendState>) -> Result<Self, String> {
        let terms = Terms { timeout: from.timeout, ..check(from)? };
        let sign_in = from.sign_in.as_deref().map(Into::into);
        let permits = permits(from)?;
        Ok(Self { authorizer: Authorizer { backend, terms }, fail_open: from.fail_open, permits, sign_in })
    }

    /// What it said before, and what tells the request apart. One whose body it is told is asked about.
    pub(crate) fn permits(&self, view: &View<'_>, has_body: bool) -> Option<(&Permits, Box<[u8]>)> {
        let permits = self.permits.as_ref().filter(|_| !has_body || self.authorizer.terms.max_body == 0)?;
        Some((permits, permits.key(view)?))
    }

    /// What a browser gets instead of a 401: the way to where it can sign in, and back. `asked`: the address that it asked for.
    pub(crate) fn redirect(
        &self,
        denial: Denial,
        (method, headers): (&Method, &HeaderMap),
        asked: impl FnOnce() -> String,
    ) -> Denial {
        let Some(sign_in) = &self.sign_in else { return denial };
        if denial.status != StatusCode::UNAUTHORIZED || !is_navigation(method, headers) {
            return denial;
        }
        let back: String = form_urlencoded::byte_serialize(asked().as_bytes()).collect();
        let separator = if sign_in.contains('?') { '&' } else { '?' };
        let Ok(location) = HeaderValue::try_from(format!("{sign_in}{separator}rd={back}")) else {
            return denial;
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Denial { status: StatusCode::FOUND, headers, body: bytes::Bytes::new() }
    }
}

/// Whether it can be compiled.
pub(super) fn check(from: &ExternalAuthenticator) -> Result<Terms, String> {
    if let Some(sign_in) = &from.sign_in
        && (!(sign_in.starts_with("https://") || sign_in.starts_with("http://") || sign_in.starts_with('/'))
            || HeaderValue::try_from(&**sign_in).is_err())
    {
        return Err(format!("signInRedirect: {sign_in:?} is neither an address nor a path"));
    }
    permits(from)?;
    Terms::compile(&from.ask)
}

fn permits(from: &ExternalAuthenticator) -> Result<Option<Permits>, String> {
    from.cache.as_ref().map(|cache| Permits::compile(cache).map_err(|why| format!("cache.{why}"))).transpose()
}
