//! The data plane: a routing [`model`] in, answered requests out. Knows nothing of Kubernetes.
//!
//! [`snapshot`] compiles a model into tables and publishes them to the worker threads.

pub mod access_log;
pub mod admin;
pub mod filter;
pub mod headers;
pub mod host;
pub mod metrics;
pub mod model;
pub mod path;
pub mod rejection;
pub mod router;
#[cfg(test)]
mod sample;
pub mod snapshot;
pub mod tls;
pub mod upstream;
