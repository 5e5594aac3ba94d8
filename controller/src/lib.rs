//! The control plane: what exists ([`cluster`]) becomes what is served and said ([`translate`]).
//!
//! A [`source`] reports changes; [`reconcile`] applies them to a [`cluster::Cluster`]; [`translate`] makes a routing model and
//! statuses of it, without I/O; the model goes to the proxy, and [`writer`] takes statuses, Services and EndpointSlices
//! ([`infra`]) back to the cluster, as far as this replica leads ([`lease`]).
//! What happens to backends by itself becomes [`events`].

pub mod api;
pub mod cluster;
pub mod events;
pub mod infra;
pub mod lease;
pub mod metrics;
pub mod naming;
pub mod reconcile;
pub mod resolver;
pub mod run;
pub mod settings;
pub mod source;
pub mod status;
pub mod translate;
pub mod writer;
