//! `RequestRedirect`: an answer of our own that sends the client elsewhere.
//!
//! What the filter doesn't name stays as the client asked for it, the query always. Port: the one given, else the one
//! that belongs to the given scheme, else the listener's; it is left out where it goes without saying.

use super::compile_host;
use super::rewrite::PathEdit;
use crate::model::{self, Scheme};
use http::StatusCode;
use http::header::{HeaderValue, InvalidHeaderValue};

/// A compiled redirect.
#[derive(Debug)]
pub struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathEdit>,
    status: StatusCode,
}

/// What the client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Scheme of its connection.
    pub scheme: Scheme,
    /// Name of the host ([`crate::host::Host::name`]).
    pub host: &'a str,
    /// The port that the Gateway's listener names.
    pub port: u16,
    /// Path in normal form.
    pub path: &'a str,
    /// How many bytes of the path the rule's condition took.
    pub prefix_len: usize,
    /// Query, without its question mark.
    pub query: Option<&'a str>,
}

impl Redirect {
    pub(crate) fn compile(from: &model::Redirect) -> Result<Self, String> {
        let status = match from.status {
            301 | 302 | 303 | 307 | 308 => {
                StatusCode::from_u16(from.status).map_err(|error| error.to_string())?
            }
            other => return Err(format!("statusCode {other} isn't one of 301, 302, 303, 307, 308")),
        };
        Ok(Self {
            scheme: from.scheme,
            host: from.hostname.as_ref().map(|host| compile_host(host)).transpose()?,
            port: from.port,
            path: from.path.as_ref().map(PathEdit::compile).transpose()?,
            status,
        })
    }

    /// The status code to answer with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The value of `Location`. A path and query that were checked always make one.
    pub fn location(&self, origin: &Origin<'_>) -> Result<HeaderValue, InvalidHeaderValue> {
        let scheme = self.scheme.unwrap_or(origin.scheme);
        let (name, known_port) = match scheme {
            Scheme::Http => ("http://", 80),
            Scheme::Https => ("https://", 443),
        };
        let port = self.port.unwrap_or(match self.scheme {
            Some(_) => known_port,
            None => origin.port,
        });
        let mut location = String::with_capacity(64 + origin.path.len() + origin.query.map_or(0, str::len));
        location.push_str(name);
        location.push_str(self.host.as_deref().unwrap_or(origin.host));
        if port != known_port {
            location.push(':');
            location.push_str(itoa::Buffer::new().format(port));
        }
        match &self.path {
            Some(path) => location.push_str(&path.apply(origin.path, origin.prefix_len)),
            None => location.push_str(origin.path),
        }
        if let Some(query) = origin.query {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::try_from(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PathRewrite;

    const ORIGIN: Origin<'static> = Origin {
        scheme: Scheme::Http,
        host: "a.example",
        port: 80,
        path: "/foo/bar",
        prefix_len: 4,
        query: None,
    };
    const KEEP: model::Redirect =
        model::Redirect { scheme: None, hostname: None, port: None, path: None, status: 302 };

    fn location(from: &model::Redirect, origin: Origin<'_>) -> String {
        let value = Redirect::compile(from).unwrap().location(&origin).unwrap();
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_not_named_stays() {
        let origin = Origin { query: Some("a=b&c"), ..ORIGIN };
        assert_eq!(location(&KEEP, origin), "http://a.example/foo/bar?a=b&c");
        let host = model::Redirect { hostname: Some("b.example".into()), ..KEEP };
        assert_eq!(location(&host, origin), "http://b.example/foo/bar?a=b&c");
    }

    #[test]
    fn port_is_given_else_the_given_schemes_else_the_listeners() {
        use Scheme::{Http, Https};
        for (scheme, port, listener, expected) in [
            (None, None, (Http, 80), "http://a.example"),
            (None, None, (Http, 8080), "http://a.example:8080"),
            (None, None, (Https, 443), "https://a.example"),
            (None, None, (Https, 8443), "https://a.example:8443"),
            (None, Some(80), (Http, 8080), "http://a.example"),
            (None, Some(8083), (Https, 443), "https://a.example:8083"),
            (Some(Http), None, (Http, 8080), "http://a.example"),
            (Some(Https), None, (Http, 8080), "https://a.example"),
            (Some(Http), None, (Https, 443), "http://a.example"),
            (Some(Https), Some(443), (Http, 80), "https://a.example"),
            (Some(Http), Some(443), (Http, 80), "http://a.example:443"),
            (Some(Https), Some(80), (Http, 80), "https://a.example:80"),
        ] {
            let redirect = model::Redirect { scheme, port, ..KEEP };
            let origin = Origin { scheme: listener.0, port: listener.1, ..ORIGIN };
            assert_eq!(
                location(&redirect, origin),
                format!("{expected}/foo/bar"),
                "{scheme:?} {port:?} {listener:?}"
            );
        }
    }

    #[test]
    fn paths_are_replaced() {
        let full = model::Redirect { path: Some(PathRewrite::Full("/x".into())), ..KEEP };
        let origin = Origin { query: Some("q"), ..ORIGIN };
        assert_eq!(location(&full, origin), "http://a.example/x?q");
        let prefix = model::Redirect { path: Some(PathRewrite::Prefix("/x/".into())), ..KEEP };
        assert_eq!(location(&prefix, ORIGIN), "http://a.example/x/bar");
    }

    #[test]
    fn only_redirecting_statuses() {
        for status in [301, 302, 303, 307, 308] {
            let redirect = Redirect::compile(&model::Redirect { status, ..KEEP }).unwrap();
            assert_eq!(redirect.status().as_u16(), status);
        }
        for status in [200, 300, 304, 305, 309, 0] {
            assert!(Redirect::compile(&model::Redirect { status, ..KEEP }).is_err());
        }
    }
}
