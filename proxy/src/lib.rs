//! The data plane: a routing [`model`] in, answered requests out. Knows nothing of Kubernetes.
//!
//! [`snapshot`] compiles a model into tables and publishes them to the worker threads; [`request`] is the life of a
//! request; [`start`] is the way in.

pub mod model;
pub mod rejection;
pub mod router;
pub mod snapshot;
