//! Answers we make instead of the backend. Domain words here, protocol words in the tables below; all exhaustive, so
//! that a new rejection doesn't compile until every table has it.

use crate::model::Failure;
use http::StatusCode;

/// Why a request was not answered by its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No listener of the port serves this host.
    NoListener,
    /// The listener has no route for the request.
    NoRoute,
    /// The Host belongs to another listener than the SNI (RFC 9110 §15.5.20).
    Misdirected,
    /// The configuration for this request is broken.
    Config(Failure),
    /// The backend has no endpoints.
    NoEndpoints,
}

/// Whose doing a rejection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client sent something that isn't allowed.
    Client,
    /// Our configuration or state.
    Gateway,
    /// The backend or the way to it.
    Upstream,
}

impl Rejection {
    /// Status code sent to the client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoListener | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Config(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoEndpoints => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
