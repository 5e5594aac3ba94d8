//! `CORS` (GEP-1767, the Fetch standard): answers preflight requests, and tells browsers who may read an answer.
//!
//! An origin that isn't allowed gets no `Access-Control-Allow-Origin`; its request is forwarded all the same, for CORS
//! protects readers of answers, not servers. What the backend says about CORS is replaced: two opinions are none.

use crate::model::{Cors as Model, Text};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderName, Method};

/// A compiled filter.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    methods: List,
    headers: List,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

#[derive(Debug)]
enum Origins {
    Any,
    Of(Box<[Origin]>),
}

/// `scheme://host:port`; the host may begin with a wildcard.
#[derive(Debug)]
struct Origin {
    scheme: Box<str>,
    host: Host,
    port: u16,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Any,
    Exact(Box<str>),
    /// With its dot. Any number of labels before it.
    Suffix(Box<str>),
}

/// What a preflight request is told may be used.
#[derive(Debug)]
enum List {
    /// Whatever it asks for.
    Asked,
    /// These; `None` says nothing.
    These(Option<HeaderValue>),
}

/// What one request's origin is told, kept until the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission(Option<HeaderValue>);

impl Cors {
    pub(super) fn compile(from: &Model) -> Result<Self, String> {
        let any = from.origins.iter().any(|origin| &**origin == "*");
        let origins = match any {
            true => Origins::Any,
            false => Origins::Of(
                from.origins
                    .iter()
                    .map(|origin| {
                        Origin::parse(origin).ok_or_else(|| {
                            format!("allowOrigins: {origin:?} isn't * or scheme://host[:port]")
                        })
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        let expose: Vec<Text> = from
            .expose_headers
            .iter()
            .filter(|name| !(from.credentials && &***name == "*"))
            .cloned()
            .collect();
        Ok(Self {
            origins,
            credentials: from.credentials,
            methods: List::compile(&from.methods, "allowMethods")?,
            headers: List::compile(&from.headers, "allowHeaders")?,
            expose: joined(&expose, "exposeHeaders")?,
            max_age: from.max_age.into(),
        })
    }

    /// Judges the request's origin. `None`: there is none, so the request isn't a cross-origin one.
    pub fn admit(&self, headers: &HeaderMap) -> Option<Admission> {
        let origin = headers.get(ORIGIN)?;
        Some(Admission(match &self.origins {
            Origins::Any if self.credentials => Some(origin.clone()),
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Of(origins) => {
                let asked = origin.to_str().ok().and_then(Origin::parse);
                let allowed = asked.is_some_and(|asked| origins.iter().any(|origin| origin.covers(&asked)));
                allowed.then(|| origin.clone())
            }
        }))
    }

    /// Whether a request with an `Origin` only asks what it may do (Fetch §3.3.3).
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The fields of the answer to a preflight request, but for those of [`Cors::apply`].
    pub fn preflight(&self, asked: &HeaderMap, admission: &Admission) -> HeaderMap {
        let mut answer = HeaderMap::with_capacity(8);
        if admission.0.is_some() {
            self.methods.tell(
                asked,
                &ACCESS_CONTROL_REQUEST_METHOD,
                &mut answer,
                ACCESS_CONTROL_ALLOW_METHODS,
            );
            if asked.contains_key(ACCESS_CONTROL_REQUEST_HEADERS) {
                self.headers.tell(
                    asked,
                    &ACCESS_CONTROL_REQUEST_HEADERS,
                    &mut answer,
                    ACCESS_CONTROL_ALLOW_HEADERS,
                );
            }
            answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        let asked = HeaderValue::from_static("access-control-request-method, access-control-request-headers");
        answer.insert(VARY, asked);
        answer
    }

    /// Tells the browser in an answer who may read it.
    pub fn apply(&self, admission: Admission, answer: &mut HeaderMap) {
        for name in [ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
            answer.remove(name);
        }
        // Caches must not give one origin's answer to another.
        if !matches!(self.origins, Origins::Any) || self.credentials {
            answer.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = admission.0 else {
            answer.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
            return;
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Origin {
    /// Reads `https://a.example:8443`, `https://*.example` or `https://*`; without a port it is the scheme's.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, port.parse().ok()?)
            }
            _ => (authority, default),
        };
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(suffix) => Host::Suffix(suffix.into()),
            None if host.is_empty() => return None,
            None => Host::Exact(host.into()),
        };
        Some(Self { scheme: scheme.into(), host, port })
    }

    /// Whether this pattern covers the origin that a browser sent.
    fn covers(&self, asked: &Self) -> bool {
        let Host::Exact(host) = &asked.host else { return false };
        self.scheme == asked.scheme
            && self.port == asked.port
            && match &self.host {
                Host::Any => true,
                Host::Exact(exact) => exact == host,
                Host::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            }
    }
}

impl List {
    fn compile(from: &[Text], field: &str) -> Result<Self, String> {
        match from.iter().any(|entry| &**entry == "*") {
            true => Ok(Self::Asked),
            false => joined(from, field).map(Self::These),
        }
    }

    fn tell(&self, asked: &HeaderMap, field: &HeaderName, answer: &mut HeaderMap, name: HeaderName) {
        let value = match self {
            Self::Asked => asked.get(field),
            Self::These(value) => value.as_ref(),
        };
        if let Some(value) = value {
            answer.insert(name, value.clone());
        }
    }
}

fn joined(entries: &[Text], field: &str) -> Result<Option<HeaderValue>, String> {
    let invalid = |entry: &&Text| entry.is_empty() || !entry.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(entry) = entries.iter().find(invalid) {
        return Err(format!("{field}: {entry:?} isn't a name"));
    }
    let joined = HeaderValue::from_str(&entries.join(", ")).map_err(|error| format!("{field}: {error}"))?;
    Ok((!entries.is_empty()).then_some(joined))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool, wildcards: bool) -> Cors {
        let list = |list: &[&str]| list.iter().map(|entry| (*entry).into()).collect::<Vec<Text>>();
        let (methods, headers, expose): (&[&str], &[&str], &[&str]) = match wildcards {
            true => (&["*"], &["*"], &["*"]),
            false => (&["GET", "PUT"], &["x-a", "x-b"], &["x-c"]),
        };
        Cors::compile(&Model {
            origins: list(origins),
            credentials,
            methods: list(methods),
            headers: list(headers),
            expose_headers: list(expose),
            max_age: 5,
        })
        .unwrap()
    }

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn admitted(cors: &Cors, origin: &'static str) -> Option<String> {
        let Admission(allowed) = cors.admit(&fields(&[("origin", origin)])).unwrap();
        allowed.map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        let cors = cors(&["https://a.example", "https://*.b.example", "http://*:8080"], false, false);
        for origin in [
            "https://a.example",
            "https://a.example:443",
            "https://x.b.example",
            "https://x.y.b.example",
            "http://any.example:8080",
        ] {
            assert_eq!(admitted(&cors, origin).as_deref(), Some(origin));
        }
        for origin in [
            "http://a.example",
            "https://a.example:444",
            "https://b.example",
            "https://evilb.example",
            "https://a.example.evil",
            "http://any.example",
            "https://*.b.example",
            "null",
            "",
        ] {
            assert_eq!(admitted(&cors, origin), None, "{origin}");
        }
        assert!(cors.admit(&HeaderMap::new()).is_none());
    }

    #[test]
    fn any_origin_is_a_star_unless_credentials_are_allowed() {
        assert_eq!(admitted(&cors(&["*"], false, false), "null").as_deref(), Some("*"));
        assert_eq!(admitted(&cors(&["*"], true, false), "https://a").as_deref(), Some("https://a"));
    }

    #[test]
    fn a_preflight_is_told_the_lists_or_what_it_asked_for() {
        let asked = fields(&[
            ("origin", "https://a"),
            ("access-control-request-method", "DELETE"),
            ("access-control-request-headers", "x-z"),
        ]);
        let told = |cors: &Cors| {
            let admission = cors.admit(&asked).unwrap();
            let mut answer = cors.preflight(&asked, &admission);
            cors.apply(admission, &mut answer);
            answer
        };
        let answer = told(&cors(&["https://a"], true, false));
        assert_eq!(answer["access-control-allow-methods"], "GET, PUT");
        assert_eq!(answer["access-control-allow-headers"], "x-a, x-b");
        assert_eq!(answer["access-control-expose-headers"], "x-c");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert_eq!(answer["access-control-max-age"], "5");
        assert_eq!(answer.get_all("vary").iter().count(), 2);
        let answer = told(&cors(&["*"], true, true));
        assert_eq!(answer["access-control-allow-methods"], "DELETE");
        assert_eq!(answer["access-control-allow-headers"], "x-z");
        // With credentials a star would be read as the name of a field.
        assert!(!answer.contains_key("access-control-expose-headers"));
        let answer = told(&cors(&["https://b"], true, false));
        assert_eq!(answer.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["vary"]);
    }

    #[test]
    fn what_the_backend_says_is_replaced() {
        let mut answer = fields(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-secret"),
        ]);
        let cors = cors(&["https://a"], false, false);
        cors.apply(Admission(None), &mut answer);
        assert_eq!(answer.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["vary"]);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for origin in ["a.example", "ftp://a", "https://", "https://a:b:c:99999"] {
            let from = Model { origins: vec![origin.into()], ..Model::default() };
            assert!(Cors::compile(&from).is_err(), "{origin}");
        }
    }
}
