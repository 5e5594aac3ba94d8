//! Where objects come from: a cluster, or files.
//!
//! A source sends batches of [`crate::cluster::Change`]s through a bounded channel ([`crate::reconcile::CHANGES`]) and waits
//! when it is full. The first report of each kind is complete.

pub mod catalog;
pub mod files;
pub mod kubernetes;
pub mod schema;
mod yaml;
