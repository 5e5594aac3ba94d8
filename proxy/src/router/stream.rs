//! Where connections and sessions go that aren't HTTP: per listener, by server name as the routes have it.
//!
//! Of routes with one hostname the oldest serves, and the others wait behind it (Gateway API, TCPRoute and UDPRoute).

use super::host::HostMap;
use super::precedence::Seniority;
use super::rule::{Context, Split};
use crate::model::{HostPattern, RouteId, StreamRoute};
use std::sync::Arc;

/// A compiled route. Connections share it and may outlive the snapshot it came from.
#[derive(Debug)]
pub struct Stream {
    /// What it was compiled from.
    pub(crate) source: Arc<StreamRoute>,
    hostnames: Box<[HostPattern]>,
    seniority: Seniority,
    split: Split,
}

impl Stream {
    pub(crate) fn compile(source: &Arc<StreamRoute>, context: &mut Context<'_>) -> Arc<Self> {
        let mut hostnames = source.hostnames.clone();
        hostnames.sort();
        hostnames.dedup();
        Arc::new(Self {
            source: source.clone(),
            hostnames: hostnames.into(),
            seniority: Seniority::new(source.created, &source.id),
            split: Split::compile(&source.backends, context),
        })
    }

    /// Whose it is.
    pub fn id(&self) -> &RouteId {
        &self.source.id
    }

    /// Where what comes goes.
    pub fn split(&self) -> &Split {
        &self.split
    }
}

/// The stream routes of one listener. Cheap to copy and change a little.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamTable(HostMap<Vec<Arc<Stream>>>);

impl StreamTable {
    pub(crate) fn insert(&mut self, stream: &Arc<Stream>) {
        for hostname in &stream.hostnames {
            let place = |streams: &mut Vec<Arc<Stream>>| {
                let at = streams.partition_point(|other| other.seniority < stream.seniority);
                streams.insert(at, stream.clone());
            };
            self.0.change(hostname, place, |_| true);
        }
    }

    pub(crate) fn remove(&mut self, stream: &Arc<Stream>) {
        for hostname in &stream.hostnames {
            let take = |streams: &mut Vec<Arc<Stream>>| streams.retain(|other| !Arc::ptr_eq(other, stream));
            self.0.change(hostname, take, |streams| !streams.is_empty());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The route for a server name; without one, of those for any.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Stream>> {
        self.0.find(name, |streams| streams.first())
    }
}
