//! What a rule does to a request or response on its way. A new kind of filter is a variant of [`Filter`]; every
//! `match` on it then says what is missing.

use super::{BackendId, Text};
use serde::Serialize;

/// A processing step, applied in the order of the rule's list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Filter {
    /// Edits the request's fields before they go to the backend.
    RequestHeaders(HeaderEdits),
    /// Edits the response's fields before they go to the client.
    ResponseHeaders(HeaderEdits),
    /// Changes host or path before the request goes to the backend.
    Rewrite(Rewrite),
    /// Tells browsers which origins may read answers, and answers their preflight requests. At most one, on a rule.
    Cors(Cors),
    /// Copies requests to another backend.
    Mirror(Mirror),
    /// Asks another backend whether a request may pass, before all other steps but CORS. At most one, on a rule.
    ExternalAuth(ExternalAuth),
}

/// `ExternalAuth`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExternalAuth {
    /// Who is asked: a backend of the model.
    pub backend: BackendId,
    /// How it is asked.
    pub protocol: AuthProtocol,
    /// Names of fields that it is told. HTTP: besides Host and Authorization. gRPC: none named is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<Text>,
    /// Bytes of the body that it is told; requests with more are answered 413. 0: none of it.
    pub max_body: u32,
}

/// How an authorizer is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum AuthProtocol {
    /// By a request like the one that is asked about; 200 lets it pass.
    Http {
        /// Goes before the path; may be empty.
        path: Text,
        /// Fields of the answer that the backend gets; none named: all.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        response_headers: Vec<Text>,
    },
    /// By Envoy's `ext_authz`, version 3.
    Grpc,
}

/// `RequestMirror`: that backend gets a copy of `numerator` of each `denominator` requests; its answers are discarded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mirror {
    /// A backend of the model.
    pub backend: BackendId,
    /// At most the denominator.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

/// `CORS`. Empty lists say nothing; `*` allows whatever is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cors {
    /// `*`, or `scheme://host[:port]`, where the host may be `*` or begin with `*.`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Text>,
    /// Whether requests may carry cookies and the like.
    pub credentials: bool,
    /// Methods, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Text>,
    /// Names of request header fields, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Text>,
    /// Names of response header fields that scripts may read, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<Text>,
    /// Seconds for which a browser may remember the answer to a preflight request.
    pub max_age: u32,
}

/// Edits to header fields: `set` replaces or adds, then `add` appends, then `remove` deletes. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HeaderEdits {
    /// Replace every field of that name by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(Text, Text)>,
    /// Append a field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(Text, Text)>,
    /// Delete every field of that name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Text>,
}

/// `URLRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rewrite {
    /// New Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Text>,
    /// New path; the query stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

/// How a path is replaced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum PathRewrite {
    /// The whole path.
    Full(Text),
    /// What the rule's prefix matched; the rest stays. `/` removes the prefix.
    Prefix(Text),
}

/// `RequestRedirect`: answers instead of forwarding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Redirect {
    /// Scheme of `Location`; absent keeps the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Host of `Location`; absent keeps the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Text>,
    /// Port of `Location`; absent: the given scheme's, else the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path of `Location`; absent keeps the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A URL scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As URLs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}
