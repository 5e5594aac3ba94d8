//! What rules do to requests and responses on their way: one file per filter, compiled so that nothing is left to go
//! wrong when a request comes.
//!
//! The controller asks [`check`] and [`check_redirect`] first, and refuses in the object's status what they refuse.
//! Filters see the request as it goes to the backend: fields after [`crate::headers::prepare_request`], where Host is
//! the host it goes to.

mod cors;
mod external_auth;
mod header_edits;
mod redirect;
mod rewrite;

pub use cors::{Admission, Cors};
pub use external_auth::{Protocol, Terms};
pub(crate) use header_edits::field_name;
pub use redirect::{Origin, Redirect};

use crate::headers::Fields;
use crate::model;
use header_edits::Edits;
use http::HeaderMap;
use rewrite::Rewrite;
use std::borrow::Cow;

/// The part of a request that filters change.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Fields, Host among them.
    pub headers: &'a mut HeaderMap,
    /// Path without query, in normal form.
    pub path: Cow<'a, str>,
    /// How many of its bytes the rule's condition took ([`crate::router::Found::prefix_len`]).
    pub prefix_len: usize,
}

/// Compiled filters of a rule or of one of its backends. Most have none: that is one empty pointer.
#[derive(Debug, Default)]
pub struct Filters(Option<Box<Steps>>);

#[derive(Debug)]
struct Steps {
    /// Those that act before the backend, in order.
    request: Box<[RequestStep]>,
    /// Those that act after it, in order.
    response: Box<[Edits]>,
    cors: Option<Box<Cors>>,
}

#[derive(Debug)]
enum RequestStep {
    Headers(Edits),
    Rewrite(Rewrite),
}

impl Filters {
    /// Compiles a list. The error is for the author of the route.
    pub(crate) fn compile(from: &[model::Filter]) -> Result<Self, String> {
        if from.is_empty() {
            return Ok(Self(None));
        }
        let (mut request, mut response, mut cors) = (Vec::new(), Vec::new(), None);
        for filter in from {
            match filter {
                model::Filter::RequestHeaders(edits) => {
                    request.push(RequestStep::Headers(Edits::compile(edits)?))
                }
                model::Filter::ResponseHeaders(edits) => response.push(Edits::compile(edits)?),
                model::Filter::Rewrite(rewrite) => {
                    request.push(RequestStep::Rewrite(Rewrite::compile(rewrite)?))
                }
                // Not a step on the way, but a way of its own: the router compiles it.
                model::Filter::Mirror(_) => {}
                model::Filter::ExternalAuth(from) => drop(Terms::compile(from)?),
                model::Filter::Cors(from) => cors = Some(Box::new(Cors::compile(from)?)),
            }
        }
        Ok(Self(Some(Box::new(Steps { request: request.into(), response: response.into(), cors }))))
    }

    /// The CORS filter, if there is one.
    pub fn cors(&self) -> Option<&Cors> {
        self.0.as_ref()?.cors.as_deref()
    }

    /// Whether requests are changed.
    pub(crate) fn change_requests(&self) -> bool {
        self.0.as_ref().is_some_and(|steps| !steps.request.is_empty())
    }

    /// Changes a request before it goes to the backend.
    pub fn apply_to_request(&self, request: &mut Outgoing<'_>) {
        for step in self.0.iter().flat_map(|steps| &steps.request) {
            match step {
                RequestStep::Headers(edits) => edits.apply(request.headers),
                RequestStep::Rewrite(rewrite) => rewrite.apply(request),
            }
        }
    }

    /// Changes a response before it goes to the client.
    pub(crate) fn apply_to_response(&self, headers: &mut Fields) {
        for edits in self.0.iter().flat_map(|steps| &steps.response) {
            edits.apply(headers.map());
        }
    }
}

/// Whether a filter can be compiled. The error names what is wrong, for the author of the route.
pub fn check(filter: &model::Filter) -> Result<(), String> {
    Filters::compile(std::slice::from_ref(filter)).map(drop)
}

/// Whether a redirect can be compiled. The error names what is wrong, for the author of the route.
pub fn check_redirect(redirect: &model::Redirect) -> Result<(), String> {
    Redirect::compile(redirect).map(drop)
}

/// Replaces what a prefix condition matched (Gateway API, `HTTPPathModifier`): slashes where the two parts meet are one.
fn replace_prefix(path: &str, prefix_len: usize, replacement: &str) -> String {
    // After a prefix without final slash the rest is empty or begins with one.
    let rest = path.get(prefix_len..).unwrap_or_default();
    match (replacement.trim_end_matches('/'), rest) {
        ("", "") => "/".to_owned(),
        (replacement, rest) => [replacement, rest].concat(),
    }
}

/// The length that a replaced prefix has then: for a later filter that replaces it again.
fn replaced_len(replacement: &str) -> usize {
    replacement.trim_end_matches('/').len()
}

/// A path that a filter writes: what a request may have. Empty is the root.
fn compile_path(path: &str, field: &str) -> Result<Box<str>, String> {
    if path.is_empty() {
        return Ok("/".into());
    }
    match crate::path::normalise(path) {
        Ok(normal) => Ok(normal.into_owned().into()),
        Err(_) => {
            Err(format!("{field} {path:?} isn't a path: it must begin with a slash and be percent-encoded"))
        }
    }
}

/// A host that a filter writes.
fn compile_host(host: &str) -> Result<Box<str>, String> {
    match crate::host::Host::parse(host) {
        Ok(parsed) if parsed.name() == parsed.as_str() => Ok(parsed.name().into()),
        Ok(_) | Err(_) => Err(format!("hostname {host:?} isn't a host name without a port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Filter, HeaderEdits, PathRewrite};

    fn edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderEdits {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        HeaderEdits { set: pairs(set), add: pairs(add), remove: remove.iter().map(|n| (*n).into()).collect() }
    }

    #[test]
    fn steps_are_taken_in_order_each_on_its_side() {
        let rewrite = model::Rewrite { hostname: None, path: Some(PathRewrite::Prefix("/v2".into())) };
        let filters = Filters::compile(&[
            Filter::RequestHeaders(edits(&[("x-a", "1")], &[], &[])),
            Filter::ResponseHeaders(edits(&[], &[("x-r", "1")], &[])),
            Filter::RequestHeaders(edits(&[("x-a", "2")], &[("x-b", "3")], &[])),
            Filter::Rewrite(rewrite),
            Filter::ResponseHeaders(edits(&[], &[("x-r", "2")], &[])),
        ])
        .unwrap();
        let mut headers = HeaderMap::new();
        let mut request = Outgoing { headers: &mut headers, path: "/v1/a".into(), prefix_len: 3 };
        filters.apply_to_request(&mut request);
        assert_eq!(request.path, "/v2/a");
        assert_eq!(
            (&headers["x-a"], &headers["x-b"], headers.len()),
            (&"2".parse().unwrap(), &"3".parse().unwrap(), 2)
        );
        let mut response = Fields::from(HeaderMap::new());
        filters.apply_to_response(&mut response);
        assert_eq!(response.map().get_all("x-r").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    /// The table of Gateway API's `ReplacePrefixMatch`. Prefixes reach us without their final slash.
    #[test]
    fn prefixes_are_replaced_as_the_specification_tabulates() {
        for (path, prefix, replacement, replaced) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
        ] {
            assert_eq!(
                replace_prefix(path, prefix.len(), replacement),
                replaced,
                "{path} {prefix} {replacement}"
            );
        }
    }

    #[test]
    fn a_prefix_can_be_replaced_twice() {
        let prefix = |to: &str| {
            Filter::Rewrite(model::Rewrite { hostname: None, path: Some(PathRewrite::Prefix(to.into())) })
        };
        let mut headers = HeaderMap::new();
        let mut request = Outgoing { headers: &mut headers, path: "/a/x".into(), prefix_len: 2 };
        Filters::compile(&[prefix("/longer/"), prefix("/b")]).unwrap().apply_to_request(&mut request);
        assert_eq!(request.path, "/b/x");
    }

    #[test]
    fn what_cannot_be_compiled_is_refused() {
        let full = |path: &str| {
            Filter::Rewrite(model::Rewrite { hostname: None, path: Some(PathRewrite::Full(path.into())) })
        };
        let host = |host: &str| Filter::Rewrite(model::Rewrite { hostname: Some(host.into()), path: None });
        for filter in [
            full("no-slash"),
            full("/a?b"),
            full("/%zz"),
            host("a:80"),
            host("a b"),
            Filter::RequestHeaders(edits(&[("a b", "1")], &[], &[])),
            Filter::RequestHeaders(edits(&[("a", "1\n2")], &[], &[])),
            Filter::RequestHeaders(edits(&[], &[("transfer-encoding", "chunked")], &[])),
            Filter::RequestHeaders(edits(&[], &[], &["content-length"])),
            Filter::RequestHeaders(edits(&[("host", "a")], &[], &[])),
        ] {
            assert!(check(&filter).is_err(), "{filter:?}");
        }
    }
}
