//! The data plane: a routing [`model`] in, answered requests out. Knows nothing of Kubernetes.

pub mod model;
pub mod rejection;
pub mod tls;
