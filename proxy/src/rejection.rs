//! Answers we make instead of the backend. Domain words here, protocol words in the tables below; all exhaustive, so
//! that a new rejection doesn't compile until every table has it.
//!
//! The client gets a status code and a fixed public text as `application/problem+json` (RFC 9457); what really
//! happened goes to the log. Must not know how a request came to be rejected.

use crate::model::Failure;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use std::sync::LazyLock;

/// Why a request was not answered by its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The request breaks its protocol, or can be read in two ways.
    Malformed(Malformed),
    /// The head has more bytes or fields than allowed (security.md §8).
    HeadTooLarge,
    /// The request target is longer than allowed.
    TargetTooLong,
    /// The body is larger than a policy allows.
    BodyTooLarge,
    /// The head didn't arrive in time.
    HeadTimeout,
    /// The body stalled.
    BodyTimeout,
    /// A method that a gateway doesn't implement: `CONNECT`, or a name longer than 64 bytes.
    MethodUnsupported,
    /// `TRACE`, which would show the fields we add, unless a rule names it.
    MethodNotAllowed,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// A version of HTTP that isn't served here.
    Version,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// The Host belongs to another listener than the SNI (RFC 9110 §15.5.20).
    Misdirected,
    /// No listener of the port serves this host.
    NoListener,
    /// The listener has no route for the request.
    NoRoute,
    /// A policy wants to know the client, and doesn't.
    Unauthenticated,
    /// A policy knows the client, and doesn't allow this.
    Forbidden,
    /// The keys that tokens are verified by could never be fetched.
    KeysUnavailable,
    /// A browser comes back from its login with what doesn't make one.
    LoginFailed,
    /// The policy that guards this is broken: nobody passes.
    PolicyInvalid,
    /// The rule's authorizer doesn't let it pass.
    Denied,
    /// The rule's authorizer has no answer, or none that makes sense.
    Authorizer,
    /// A rate limit is used up.
    RateLimited,
    /// The configuration for this request is broken.
    Config(Failure),
    /// This process has no room for another request.
    Overloaded,
    /// A bug of ours: a panic while the request was served.
    Internal,
    /// The backend's circuit breaker is open: it failed, and is left alone for a while.
    BreakerOpen,
    /// The backend, or all of its endpoints, have as many requests under way as a policy allows.
    BackendLimit,
    /// So many of a backend's requests were retries that this one isn't tried again.
    RetryBudget,
    /// The backend has no endpoints.
    NoEndpoints,
    /// No endpoint accepted a connection.
    ConnectFailed,
    /// No endpoint accepted a connection in time.
    ConnectTimeout,
    /// No endpoint proved who it is, or none took our certificate.
    UpstreamTls,
    /// The backend's answer breaks its protocol.
    UpstreamProtocol,
    /// The backend closed the connection before its answer's head was complete.
    UpstreamClosed,
    /// The backend's answer didn't begin in time, or the rule's `backendRequest` timeout passed.
    UpstreamTimeout,
    /// The rule's `request` timeout passed.
    RequestTimeout,
}

/// What is wrong with a malformed request (security.md §1, 4, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Request line or fields can't be parsed.
    Head,
    /// The request target isn't one of the forms that the method allows, or has forbidden bytes.
    Target,
    /// The path has a bad escape, `%00`, or a backslash.
    Path,
    /// Backends may read the path in different ways, and the ways lead to different rules.
    AmbiguousPath,
    /// No Host, several, or one that isn't a host; or it contradicts `:authority`.
    Host,
    /// Lengths are missing, repeated, malformed or contradict each other.
    Framing,
    /// An upgrade that isn't a well-formed WebSocket handshake.
    Upgrade,
    /// The body isn't what the head promised.
    Body,
}

/// Whose doing a rejection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client sent something that isn't allowed, or nothing in time.
    Client,
    /// Our configuration or state.
    Gateway,
    /// The backend or the way to it.
    Upstream,
}

/// Whether a request may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It would end the same.
    Never,
    /// Always: no backend has seen it.
    Unsent,
    /// If it does no harm twice: a backend may have acted on it.
    Sent,
}

impl Rejection {
    /// Every rejection once; the order gives [`Rejection::index`].
    pub const ALL: [Self; 50] = [
        Self::Malformed(Malformed::Head),
        Self::Malformed(Malformed::Target),
        Self::Malformed(Malformed::Path),
        Self::Malformed(Malformed::AmbiguousPath),
        Self::Malformed(Malformed::Host),
        Self::Malformed(Malformed::Framing),
        Self::Malformed(Malformed::Upgrade),
        Self::Malformed(Malformed::Body),
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::BodyTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::MethodUnsupported,
        Self::MethodNotAllowed,
        Self::TransferCoding,
        Self::Version,
        Self::Expectation,
        Self::Misdirected,
        Self::NoListener,
        Self::NoRoute,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::KeysUnavailable,
        Self::LoginFailed,
        Self::PolicyInvalid,
        Self::Denied,
        Self::Authorizer,
        Self::RateLimited,
        Self::Config(Failure::NoBackends),
        Self::Config(Failure::BackendNotFound),
        Self::Config(Failure::BackendKind),
        Self::Config(Failure::RefNotPermitted),
        Self::Config(Failure::UnsupportedBackend),
        Self::Config(Failure::BackendTls),
        Self::Config(Failure::InvalidFilter),
        Self::Config(Failure::InvalidMatch),
        Self::Overloaded,
        Self::Internal,
        Self::BreakerOpen,
        Self::BackendLimit,
        Self::RetryBudget,
        Self::NoEndpoints,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamTls,
        Self::UpstreamProtocol,
        Self::UpstreamClosed,
        Self::UpstreamTimeout,
        Self::RequestTimeout,
    ];

    /// Position in [`Rejection::ALL`]: what counters are indexed by.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|other| *other == self).expect("ALL has every rejection: a test walks them")
    }

    /// Status code sent to the client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::LoginFailed => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::MethodUnsupported | Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoListener | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Denied | Self::Forbidden => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Config(_) | Self::Internal | Self::PolicyInvalid => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Authorizer
            | Self::KeysUnavailable
            | Self::Overloaded
            | Self::BreakerOpen
            | Self::BackendLimit
            | Self::RetryBudget
            | Self::NoEndpoints
            | Self::ConnectFailed
            | Self::ConnectTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTls | Self::UpstreamProtocol | Self::UpstreamClosed => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout | Self::RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// `grpc-status` sent to a gRPC client: the mapping of gRPC's `http-grpc-status-mapping.md`, with the more telling
    /// code where we know more than the status.
    pub fn grpc_code(self) -> u8 {
        const UNKNOWN: u8 = 2;
        const DEADLINE_EXCEEDED: u8 = 4;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const PERMISSION_DENIED: u8 = 7;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        const UNAUTHENTICATED: u8 = 16;
        match self {
            Self::Malformed(_) | Self::TransferCoding | Self::Expectation | Self::Internal => INTERNAL,
            Self::HeadTooLarge | Self::TargetTooLong | Self::BodyTooLarge | Self::RateLimited => {
                RESOURCE_EXHAUSTED
            }
            Self::HeadTimeout | Self::BodyTimeout | Self::UpstreamTimeout | Self::RequestTimeout => {
                DEADLINE_EXCEEDED
            }
            Self::MethodUnsupported
            | Self::MethodNotAllowed
            | Self::NoListener
            | Self::NoRoute
            | Self::Version => UNIMPLEMENTED,
            Self::Misdirected | Self::Config(_) | Self::PolicyInvalid => UNKNOWN,
            Self::Denied | Self::Forbidden => PERMISSION_DENIED,
            Self::Unauthenticated | Self::LoginFailed => UNAUTHENTICATED,
            Self::Authorizer
            | Self::KeysUnavailable
            | Self::Overloaded
            | Self::BreakerOpen
            | Self::BackendLimit
            | Self::RetryBudget
            | Self::NoEndpoints
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::UpstreamClosed => UNAVAILABLE,
        }
    }

    /// A stable word for metrics (label `reason`) and the access log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed(Malformed::Head) => "malformed_head",
            Self::Malformed(Malformed::Target) => "malformed_target",
            Self::Malformed(Malformed::Path) => "malformed_path",
            Self::Malformed(Malformed::AmbiguousPath) => "ambiguous_path",
            Self::Malformed(Malformed::Host) => "malformed_host",
            Self::Malformed(Malformed::Framing) => "malformed_framing",
            Self::Malformed(Malformed::Upgrade) => "malformed_upgrade",
            Self::Malformed(Malformed::Body) => "malformed_body",
            Self::HeadTooLarge => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::MethodUnsupported => "method_unsupported",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TransferCoding => "transfer_coding",
            Self::Version => "version",
            Self::Expectation => "expectation",
            Self::Misdirected => "misdirected",
            Self::NoListener => "no_listener",
            Self::NoRoute => "no_route",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::KeysUnavailable => "keys_unavailable",
            Self::LoginFailed => "login_failed",
            Self::PolicyInvalid => "policy_invalid",
            Self::Denied => "denied",
            Self::Authorizer => "authorizer",
            Self::RateLimited => "rate_limited",
            Self::Config(Failure::NoBackends) => "config_no_backends",
            Self::Config(Failure::BackendNotFound) => "config_backend_not_found",
            Self::Config(Failure::BackendKind) => "config_backend_kind",
            Self::Config(Failure::RefNotPermitted) => "config_ref_not_permitted",
            Self::Config(Failure::UnsupportedBackend) => "config_unsupported_backend",
            Self::Config(Failure::BackendTls) => "config_backend_tls",
            Self::Config(Failure::InvalidFilter) => "config_invalid_filter",
            Self::Config(Failure::InvalidMatch) => "config_invalid_match",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::BreakerOpen => "breaker_open",
            Self::BackendLimit => "backend_limit",
            Self::RetryBudget => "retry_budget",
            Self::NoEndpoints => "no_endpoints",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::RequestTimeout => "request_timeout",
        }
    }

    /// Whether the client's connection ends with the answer (HTTP/1.1): after what can't be read, or can be read in two
    /// ways, nobody knows where the next request begins (security.md, rule 1).
    pub fn ends_connection(self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::BodyTooLarge
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::MethodUnsupported
            | Self::TransferCoding
            | Self::Version
            | Self::Expectation => true,
            Self::MethodNotAllowed
            | Self::Misdirected
            | Self::NoListener
            | Self::NoRoute
            | Self::Unauthenticated
            | Self::LoginFailed
            | Self::Forbidden
            | Self::KeysUnavailable
            | Self::PolicyInvalid
            | Self::Denied
            | Self::Authorizer
            | Self::RateLimited
            | Self::Config(_)
            | Self::Overloaded
            | Self::Internal
            | Self::BreakerOpen
            | Self::BackendLimit
            | Self::RetryBudget
            | Self::NoEndpoints
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::UpstreamClosed
            | Self::UpstreamTimeout
            | Self::RequestTimeout => false,
        }
    }

    /// Whose doing it is.
    pub fn source(self) -> Source {
        match self {
            Self::Malformed(_)
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::BodyTooLarge
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::MethodUnsupported
            | Self::MethodNotAllowed
            | Self::TransferCoding
            | Self::Version
            | Self::Expectation
            | Self::Unauthenticated
            | Self::LoginFailed
            | Self::Forbidden
            | Self::Denied
            | Self::RateLimited
            | Self::Misdirected => Source::Client,
            Self::NoListener
            | Self::NoRoute
            | Self::PolicyInvalid
            | Self::Config(_)
            | Self::Overloaded
            | Self::Internal => Source::Gateway,
            Self::Authorizer
            | Self::KeysUnavailable
            | Self::BreakerOpen
            | Self::BackendLimit
            | Self::RetryBudget
            | Self::NoEndpoints
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::UpstreamClosed
            | Self::UpstreamTimeout
            | Self::RequestTimeout => Source::Upstream,
        }
    }

    /// Whether another try, on another endpoint, could end differently.
    pub fn repeat(self) -> Repeat {
        match self {
            Self::NoEndpoints | Self::ConnectFailed | Self::ConnectTimeout | Self::UpstreamTls => {
                Repeat::Unsent
            }
            Self::UpstreamClosed | Self::UpstreamTimeout => Repeat::Sent,
            Self::Malformed(_)
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::BodyTooLarge
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::MethodUnsupported
            | Self::MethodNotAllowed
            | Self::TransferCoding
            | Self::Version
            | Self::Expectation
            | Self::Misdirected
            | Self::NoListener
            | Self::NoRoute
            | Self::Unauthenticated
            | Self::LoginFailed
            | Self::Forbidden
            | Self::KeysUnavailable
            | Self::PolicyInvalid
            | Self::Denied
            | Self::Authorizer
            | Self::RateLimited
            | Self::Config(_)
            | Self::Overloaded
            | Self::Internal
            | Self::BreakerOpen
            | Self::BackendLimit
            | Self::RetryBudget
            | Self::UpstreamProtocol
            | Self::RequestTimeout => Repeat::Never,
        }
    }

    /// The public text: says what the client can do about it, nothing about us.
    fn detail(self) -> &'static str {
        match self {
            Self::Malformed(_) => "The request is malformed.",
            Self::HeadTooLarge => "The request's header fields are too large.",
            Self::TargetTooLong => "The request target is too long.",
            Self::BodyTooLarge => "The request's body is too large.",
            Self::HeadTimeout | Self::BodyTimeout => "The request took too long to arrive.",
            Self::MethodUnsupported => "The method is not implemented.",
            Self::MethodNotAllowed => "The method is not allowed.",
            Self::TransferCoding => "The transfer coding is not implemented.",
            Self::Version => "The version of HTTP is not supported.",
            Self::Expectation => "The expectation can't be met.",
            Self::Misdirected => "This connection doesn't serve the requested host.",
            Self::NoListener | Self::NoRoute => "Nothing is served under this address.",
            Self::Unauthenticated => "The request needs a valid credential.",
            Self::LoginFailed => "The login could not be completed; please begin again.",
            Self::Denied | Self::Forbidden => "The request is not allowed.",
            Self::RateLimited => "There were too many requests.",
            Self::Authorizer | Self::KeysUnavailable => "Nobody could say whether the request is allowed.",
            Self::Config(_) | Self::PolicyInvalid => {
                "The gateway's configuration for this address is incomplete."
            }
            Self::Internal => "The gateway failed.",
            Self::Overloaded => "The gateway is overloaded.",
            Self::BreakerOpen | Self::NoEndpoints | Self::ConnectFailed | Self::ConnectTimeout => {
                "The service is unavailable."
            }
            Self::BackendLimit | Self::RetryBudget => "The service is overloaded.",
            Self::UpstreamTls | Self::UpstreamProtocol | Self::UpstreamClosed => {
                "The service gave no valid response."
            }
            Self::UpstreamTimeout | Self::RequestTimeout => "The service took too long to respond.",
        }
    }

    /// The response's body: RFC 9457. A response to `HEAD` goes without it.
    pub fn body(self) -> Bytes {
        static BODIES: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
            let body = |rejection: &Rejection| rejection.problem(rejection.status());
            Rejection::ALL.iter().map(body).collect()
        });
        BODIES[self.index()].clone()
    }

    /// The body with a status that a policy chose.
    pub(crate) fn problem(self, status: StatusCode) -> Bytes {
        let title = status.canonical_reason().unwrap_or("Error");
        let (code, detail) = (status.as_u16(), self.detail());
        format!(r#"{{"type":"about:blank","title":"{title}","status":{code},"detail":"{detail}"}}"#).into()
    }

    /// The whole response to a call of gRPC: "Trailers-Only" (gRPC over HTTP/2, "Responses").
    pub fn grpc_response(self) -> Response<()> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", u16::from(self.grpc_code()).into());
        headers.insert("grpc-message", HeaderValue::from_static(self.detail()));
        response
    }

    /// The whole response. No `content-length` field: whoever sends it frames it.
    pub fn response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // A 404, 405, 414 or 501 may be cached by default (RFC 9110 §15.1): ours end with the next edit.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::MethodNotAllowed => {
                headers
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            }
            Self::Overloaded | Self::BreakerOpen | Self::BackendLimit | Self::RetryBudget => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Malformed(_)
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::BodyTooLarge
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::MethodUnsupported
            | Self::TransferCoding
            | Self::Version
            | Self::Expectation
            | Self::Misdirected
            | Self::NoListener
            | Self::NoRoute
            | Self::Unauthenticated
            | Self::LoginFailed
            | Self::Forbidden
            | Self::KeysUnavailable
            | Self::PolicyInvalid
            | Self::Denied
            | Self::Authorizer
            | Self::RateLimited
            | Self::Config(_)
            | Self::Internal
            | Self::NoEndpoints
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::UpstreamClosed
            | Self::UpstreamTimeout
            | Self::RequestTimeout => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The rejection after this one: exhaustive, so that a new variant has to be put into the chain.
    fn next(rejection: Rejection) -> Option<Rejection> {
        use Rejection as R;
        Some(match rejection {
            R::Malformed(Malformed::Head) => R::Malformed(Malformed::Target),
            R::Malformed(Malformed::Target) => R::Malformed(Malformed::Path),
            R::Malformed(Malformed::Path) => R::Malformed(Malformed::AmbiguousPath),
            R::Malformed(Malformed::AmbiguousPath) => R::Malformed(Malformed::Host),
            R::Malformed(Malformed::Host) => R::Malformed(Malformed::Framing),
            R::Malformed(Malformed::Framing) => R::Malformed(Malformed::Upgrade),
            R::Malformed(Malformed::Upgrade) => R::Malformed(Malformed::Body),
            R::Malformed(Malformed::Body) => R::HeadTooLarge,
            R::HeadTooLarge => R::TargetTooLong,
            R::TargetTooLong => R::BodyTooLarge,
            R::BodyTooLarge => R::HeadTimeout,
            R::HeadTimeout => R::BodyTimeout,
            R::BodyTimeout => R::MethodUnsupported,
            R::MethodUnsupported => R::MethodNotAllowed,
            R::MethodNotAllowed => R::TransferCoding,
            R::TransferCoding => R::Version,
            R::Version => R::Expectation,
            R::Expectation => R::Misdirected,
            R::Misdirected => R::NoListener,
            R::NoListener => R::NoRoute,
            R::NoRoute => R::Unauthenticated,
            R::Unauthenticated => R::Forbidden,
            R::Forbidden => R::KeysUnavailable,
            R::KeysUnavailable => R::LoginFailed,
            R::LoginFailed => R::PolicyInvalid,
            R::PolicyInvalid => R::Denied,
            R::Denied => R::Authorizer,
            R::Authorizer => R::RateLimited,
            R::RateLimited => R::Config(Failure::NoBackends),
            R::Config(Failure::NoBackends) => R::Config(Failure::BackendNotFound),
            R::Config(Failure::BackendNotFound) => R::Config(Failure::BackendKind),
            R::Config(Failure::BackendKind) => R::Config(Failure::RefNotPermitted),
            R::Config(Failure::RefNotPermitted) => R::Config(Failure::UnsupportedBackend),
            R::Config(Failure::UnsupportedBackend) => R::Config(Failure::BackendTls),
            R::Config(Failure::BackendTls) => R::Config(Failure::InvalidFilter),
            R::Config(Failure::InvalidFilter) => R::Config(Failure::InvalidMatch),
            R::Config(Failure::InvalidMatch) => R::Overloaded,
            R::Overloaded => R::Internal,
            R::Internal => R::BreakerOpen,
            R::BreakerOpen => R::BackendLimit,
            R::BackendLimit => R::RetryBudget,
            R::RetryBudget => R::NoEndpoints,
            R::NoEndpoints => R::ConnectFailed,
            R::ConnectFailed => R::ConnectTimeout,
            R::ConnectTimeout => R::UpstreamTls,
            R::UpstreamTls => R::UpstreamProtocol,
            R::UpstreamProtocol => R::UpstreamClosed,
            R::UpstreamClosed => R::UpstreamTimeout,
            R::UpstreamTimeout => R::RequestTimeout,
            R::RequestTimeout => return None,
        })
    }

    #[test]
    fn all_has_every_rejection_once() {
        let walked: Vec<_> =
            std::iter::successors(Some(Rejection::Malformed(Malformed::Head)), |r| next(*r)).collect();
        assert_eq!(walked, Rejection::ALL);
        for (position, rejection) in walked.iter().enumerate() {
            assert_eq!(rejection.index(), position);
        }
    }

    #[test]
    fn reasons_are_distinct_label_values() {
        let reasons: HashSet<_> = Rejection::ALL.iter().map(|rejection| rejection.reason()).collect();
        assert_eq!(reasons.len(), Rejection::ALL.len());
        assert!(reasons.iter().all(|reason| reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn source_and_status_class_agree() {
        for rejection in Rejection::ALL {
            let status = rejection.status();
            match rejection.source() {
                // 501 and 505 tell the client that it asked for what isn't here.
                Source::Client => assert!(status.is_client_error() || [501, 505].contains(&status.as_u16())),
                Source::Gateway => assert!([404, 500, 503].contains(&status.as_u16())),
                Source::Upstream => assert!([502, 503, 504].contains(&status.as_u16())),
            }
            assert!(rejection.repeat() == Repeat::Never || rejection.source() == Source::Upstream);
        }
    }

    #[test]
    fn bodies_are_problem_details() {
        for rejection in Rejection::ALL {
            let response = rejection.response();
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["type"], "about:blank");
            assert_eq!(body["status"], response.status().as_u16());
            assert_eq!(body["title"], response.status().canonical_reason().unwrap());
            assert!(body["detail"].as_str().unwrap().ends_with('.'));
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
    }

    #[test]
    fn grpc_responses_are_trailers_only() {
        let response = Rejection::NoRoute.grpc_response();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "12");
        assert_eq!(response.headers()["grpc-message"], "Nothing is served under this address.");
    }

    #[test]
    fn grpc_clients_learn_that_a_method_does_not_exist() {
        assert_eq!(Rejection::NoRoute.grpc_code(), 12);
        assert_eq!(Rejection::RequestTimeout.grpc_code(), 4);
        assert_eq!(Rejection::NoEndpoints.grpc_code(), 14);
    }

    #[test]
    fn the_documentation_has_every_reason() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/access-log.md");
        let page = std::fs::read_to_string(page).unwrap();
        for rejection in Rejection::ALL {
            let row = format!("| `{}` | {} |", rejection.reason(), rejection.status().as_u16());
            assert!(page.contains(&row), "docs/access-log.md lacks {row}");
        }
    }
}
