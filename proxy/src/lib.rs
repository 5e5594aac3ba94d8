//! The data plane: a routing [`model`] in, answered requests out. Knows nothing of Kubernetes.
//!
//! [`snapshot`] compiles a model into tables and publishes them to the worker threads.

pub mod filter;
pub mod headers;
pub mod host;
pub mod metrics;
pub mod model;
pub mod path;
pub mod rejection;
pub mod router;
pub mod snapshot;
pub mod tls;
pub mod upstream;
