//! The control plane: what exists ([`cluster`]) becomes what is served and said ([`translate`]).
//!
//! Sources apply changes to a [`cluster::Cluster`]; [`translate`] makes a routing model and statuses of it, without
//! I/O; the model goes to the proxy, statuses and Services go back to the cluster.

pub mod api;
pub mod cluster;
pub mod naming;
pub mod settings;
pub mod status;
pub mod translate;
