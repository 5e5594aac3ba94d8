//! Where a credential is in a request, and how it is taken out before the backend sees it.

use super::oidc::is_piece;
use crate::expression::{View, cookies};
use crate::headers::Touched;
use crate::model::CredentialSource;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;

/// Where a credential is.
#[derive(Debug)]
pub(crate) enum Place {
    Header(HeaderName, Option<Box<str>>),
    Cookie(Box<str>),
    Query(Box<str>),
    /// The cookies of a session, which is in several of them when it is long.
    Session(Box<str>),
}

/// What is found at some places.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    Nothing,
    One(Cow<'a, str>),
    /// Several, or one that isn't text: nobody knows which one counts.
    Unclear,
}

impl Place {
    pub(super) fn compile(from: &CredentialSource) -> Result<Self, String> {
        Ok(match from {
            CredentialSource::Header { name, scheme } => {
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("header: {name:?} isn't the name of a header"))?;
                Self::Header(name, scheme.as_deref().map(Into::into))
            }
            CredentialSource::Cookie(name) => Self::Cookie((&**name).into()),
            CredentialSource::Query(name) => Self::Query((&**name).into()),
        })
    }

    pub(super) fn all(from: &[CredentialSource]) -> Result<Box<[Self]>, String> {
        let place = |(n, from): (usize, &CredentialSource)| {
            Self::compile(from).map_err(|why| format!("from[{n}].{why}"))
        };
        from.iter().enumerate().map(place).collect()
    }

    /// The field that it is in, as far as that may be ours.
    pub(super) fn touches(&self) -> Touched {
        match self {
            Self::Header(name, _) => name.clone().into(),
            Self::Cookie(_) | Self::Session(_) | Self::Query(_) => Touched::default(),
        }
    }

    /// Calls with each credential that is there; `None` for one that isn't text.
    fn each<'a>(&self, view: &View<'a>, mut take: impl FnMut(Option<Cow<'a, str>>)) {
        match self {
            Self::Header(name, scheme) => {
                for value in view.headers.get_all(name) {
                    match (value.to_str(), scheme) {
                        (Err(_), _) => take(None),
                        (Ok(value), None) => take(Some(value.trim().into())),
                        (Ok(value), Some(scheme)) => {
                            if let Some(credential) = after_scheme(value, scheme) {
                                take(Some(credential.into()));
                            }
                        }
                    }
                }
            }
            Self::Cookie(name) => {
                let found = cookies(view.headers).filter(|(cookie, _)| *cookie == &**name);
                found.for_each(|(_, value)| take(Some(value.into())));
            }
            // It is put together where it is opened.
            Self::Session(_) => {}
            Self::Query(name) => {
                let pairs = form_urlencoded::parse(view.query.unwrap_or_default().as_bytes());
                pairs.filter(|(key, _)| *key == **name).for_each(|(_, value)| take(Some(value)));
            }
        }
    }

    /// Takes the credential out of a request. `query`: what the backend gets as its query.
    pub(super) fn take_out(&self, headers: &mut HeaderMap, query: &mut Option<Cow<'_, str>>) {
        match self {
            Self::Header(name, _) => {
                headers.remove(name);
            }
            Self::Cookie(name) => take_cookies(headers, |cookie| *cookie == **name),
            Self::Session(name) => take_cookies(headers, |cookie| is_piece(cookie, name)),
            Self::Query(name) => {
                let is_ours = |pair: &str| {
                    form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(key, _)| *key == **name)
                };
                if let Some(whole) = query {
                    let left: Vec<_> = whole.split('&').filter(|pair| !is_ours(pair)).collect();
                    let left = left.join("&");
                    *query = (!left.is_empty()).then_some(Cow::Owned(left));
                }
            }
        }
    }
}

/// Takes cookies out of a request.
fn take_cookies(headers: &mut HeaderMap, is_ours: impl Fn(&str) -> bool) {
    let is_ours = |pair: &str| pair.trim().split_once('=').is_some_and(|(name, _)| is_ours(name));
    let mut left = Vec::new();
    for value in headers.get_all(header::COOKIE) {
        match value.to_str() {
            Ok(field) => left.extend(field.split(';').filter(|pair| !is_ours(pair)).map(str::trim)),
            Err(_) => return drop(headers.remove(header::COOKIE)),
        }
    }
    let left = HeaderValue::try_from(left.join("; ")).ok().filter(|left| !left.is_empty());
    match left {
        Some(left) => drop(headers.insert(header::COOKIE, left)),
        None => drop(headers.remove(header::COOKIE)),
    }
}

/// What follows an authentication scheme; schemes are compared without case (RFC 9110 §11.1).
fn after_scheme<'a>(field: &'a str, scheme: &str) -> Option<&'a str> {
    let (named, credential) = field.trim().split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| credential.trim_start())
}

/// Looks for one credential at all places. The same one twice is one.
pub(super) fn find<'a>(places: &[Place], view: &View<'a>) -> Found<'a> {
    let mut found = Found::Nothing;
    for place in places {
        place.each(view, |credential| {
            found = match (&found, credential) {
                (Found::Nothing, Some(credential)) => Found::One(credential),
                (Found::One(first), Some(credential)) if *first == credential => return,
                (Found::Nothing | Found::One(_) | Found::Unclear, _) => Found::Unclear,
            };
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn look(
        places: &[CredentialSource],
        fields: &[(&'static str, &'static str)],
        query: &str,
    ) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let view = View {
            method: &Method::GET,
            scheme: "https",
            host: "example.com",
            path: "/",
            query: Some(query),
            headers: &headers,
            peer: ([192, 0, 2, 1], 1).into(),
            auth: None,
        };
        match find(&Place::all(places).unwrap(), &view) {
            Found::Nothing => None,
            Found::One(credential) => Some(credential.into_owned()),
            Found::Unclear => Some("unclear".to_owned()),
        }
    }

    fn bearer() -> CredentialSource {
        CredentialSource::Header { name: "authorization".into(), scheme: Some("Bearer".into()) }
    }

    #[test]
    fn a_credential_is_found_at_any_place_once() {
        let places = [
            bearer(),
            CredentialSource::Header { name: "x-key".into(), scheme: None },
            CredentialSource::Cookie("key".into()),
            CredentialSource::Query("key".into()),
        ];
        for (fields, query, found) in [
            (&[][..], "", None),
            (&[("authorization", "bEARER  a.b.c ")], "", Some("a.b.c")),
            (&[("authorization", "Basic abc")], "", None),
            (&[("authorization", "Bearer")], "", None),
            (&[("x-key", "a")], "", Some("a")),
            (&[("cookie", "other=1; key=a")], "", Some("a")),
            (&[], "x=1&k%65y=a%20b", Some("a b")),
            (&[("x-key", "a"), ("cookie", "key=a")], "key=a", Some("a")),
            (&[("x-key", "a"), ("cookie", "key=b")], "", Some("unclear")),
            (&[("x-key", "a"), ("x-key", "b")], "", Some("unclear")),
            (&[("x-key", "\u{fc}")], "", Some("unclear")),
        ] {
            assert_eq!(look(&places, fields, query).as_deref(), found, "{fields:?} {query:?}");
        }
    }

    #[test]
    fn only_the_credential_is_taken_out() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; key=x"));
        headers.append("cookie", HeaderValue::from_static("key=y; b=2"));
        headers.insert("x-key", HeaderValue::from_static("x"));
        let mut query = Some(Cow::Borrowed("a=1&key=x&b=2&ke%79=y"));
        for place in [
            CredentialSource::Header { name: "x-key".into(), scheme: None },
            CredentialSource::Cookie("key".into()),
            CredentialSource::Query("key".into()),
        ] {
            Place::compile(&place).unwrap().take_out(&mut headers, &mut query);
        }
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(query.as_deref(), Some("a=1&b=2"));
        let mut query = Some(Cow::Borrowed("key=x"));
        Place::Query("key".into()).take_out(&mut headers, &mut query);
        assert_eq!(query, None);
    }
}
