//! Routes of what isn't HTTP: connections, and sessions of datagrams.

use super::{HostPattern, ListenerId, RouteId, WeightedBackend};
use serde::Serialize;
use std::sync::Arc;
use thin_vec::ThinVec;

/// One route object: `TLSRoute`, `TCPRoute` or `UDPRoute`. Of several that fit, the one with the most specific hostname
/// serves, then the oldest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamRoute {
    /// Who it is.
    pub id: RouteId,
    /// Seconds since the Unix epoch when the object was created.
    pub created: i64,
    /// Listeners that accepted it, sorted.
    pub listeners: Arc<[ListenerId]>,
    /// Server names **as written**, never empty: `Any` for kinds that have none.
    pub hostnames: ThinVec<HostPattern>,
    /// Where connections or sessions go, by weight; without filters. When all weights are 0 they end at once.
    pub backends: ThinVec<WeightedBackend>,
}
