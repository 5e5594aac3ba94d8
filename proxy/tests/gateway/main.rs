//! A whole gateway in this process: real sockets on loopback, real threads, backends written in the tests.
//!
//! Clients and misbehaving backends speak in bytes, so that a test says exactly what is on the wire. Ports are the
//! system's choice, and nothing waits by sleeping.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod auth;
mod backend_tls;
mod bad_backends;
mod circuit_breaker;
mod client_policy;
mod configuration;
mod cors;
mod drain;
mod external_auth;
mod harness;
mod http1;
mod http2;
mod mirror;
mod oidc;
mod rate_limit;
mod retry;
mod session;
mod shared_limits;
mod staple;
mod streams;
mod timeouts;
mod tls;
mod websocket;
