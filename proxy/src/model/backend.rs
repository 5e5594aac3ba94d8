//! Backends and their endpoints.

use super::{BackendId, Text};
use serde::Serialize;
use std::net::SocketAddr;

/// A port of a Service, without its endpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backend {
    /// Who it is.
    pub id: BackendId,
    /// What its endpoints speak.
    pub protocol: BackendProtocol,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum BackendProtocol {
    /// HTTP/1.1 in clear text, with WebSocket upgrades.
    #[serde(rename = "HTTP/1.1")]
    Http1,
    /// HTTP/2 in clear text with prior knowledge (`appProtocol: kubernetes.io/h2c`).
    #[serde(rename = "h2c")]
    H2c,
}

/// The live endpoints of a backend, sorted by address, each address once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct EndpointSet {
    /// Endpoints that take new requests: the ready ones; when none is ready, those that serve while terminating.
    pub endpoints: Vec<Endpoint>,
}

/// One pod's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The pod's name, when known: for logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Text>,
}
