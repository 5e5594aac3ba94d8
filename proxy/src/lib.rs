//! The data plane: a routing [`model`] in, answered requests out. Knows nothing of Kubernetes.

pub mod headers;
pub mod host;
pub mod model;
pub mod path;
pub mod rejection;
pub mod tls;
