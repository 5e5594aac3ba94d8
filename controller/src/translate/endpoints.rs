//! From EndpointSlices to the endpoints of a Service's port.
//!
//! Ready endpoints count; when none is ready, those that still serve while they terminate. A Service port finds its slices'
//! port by name, as kube-proxy does.

use crate::cluster::Cluster;
use crate::settings::Mode;
use headgate_proxy::model::{BackendId, Endpoint, EndpointSet, ObjectName};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a set was made from, and the set.
#[derive(Debug)]
struct Known {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    set: Arc<EndpointSet>,
}

/// Sets of endpoints, until what they were made from changes.
#[derive(Debug, Default)]
pub struct Endpoints(BTreeMap<BackendId, Known>);

impl Endpoints {
    /// The endpoints of a backend; none when its Service is gone.
    pub fn get(&mut self, cluster: &Cluster, mode: Mode, id: &BackendId) -> Arc<EndpointSet> {
        let Some(service) = cluster.services.get(&id.name) else { return Arc::default() };
        let slices: Vec<_> = cluster.slices_of(&id.name).cloned().collect();
        if let Some(known) = self.0.get(id)
            && Arc::ptr_eq(&known.service, service)
            && known.slices.len() == slices.len()
            && known.slices.iter().zip(&slices).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return known.set.clone();
        }
        let made = collect(service, &slices, id, mode);
        let set = match self.0.get(id) {
            Some(known) if *known.set == made => known.set.clone(),
            _ => Arc::new(made),
        };
        self.0.insert(id.clone(), Known { service: service.clone(), slices, set: set.clone() });
        set
    }

    /// The ports of a Service that are in use.
    pub fn of_service(&self, service: &ObjectName) -> Vec<BackendId> {
        self.0.keys().filter(|id| id.name == *service).cloned().collect()
    }

    /// Forgets backends that nobody uses.
    pub fn retain(&mut self, used: impl Fn(&BackendId) -> bool) {
        self.0.retain(|id, _| used(id));
    }
}

fn collect(service: &Service, slices: &[Arc<EndpointSlice>], id: &BackendId, mode: Mode) -> EndpointSet {
    let fits = |protocol: Option<&str>| protocol.unwrap_or("TCP") == id.transport.name();
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let port = ports.iter().find(|p| p.port == i32::from(id.port) && fits(p.protocol.as_deref()));
    let Some(port) = port else { return EndpointSet::default() };
    let name = port.name.as_deref().unwrap_or_default();
    let (mut ready, mut leaving) = (BTreeMap::new(), BTreeMap::new());
    for slice in slices {
        let mut slice_ports = slice.ports.iter().flatten();
        let Some(number) = slice_ports
            .find(|p| p.name.as_deref().unwrap_or_default() == name && fits(p.protocol.as_deref()))
            .and_then(|p| p.port)
            .and_then(|number| u16::try_from(number).ok())
        else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serves = conditions.and_then(|c| c.serving).unwrap_or(is_ready);
            let to = match (is_ready, serves) {
                (true, _) => &mut ready,
                (false, true) => &mut leaving,
                (false, false) => continue,
            };
            let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            let pod = target.and_then(|target| target.name.as_deref()).map(Into::into);
            // All addresses of an endpoint are the same pod; the first is the one to use.
            let address = endpoint.addresses.first().and_then(|address| address.parse().ok());
            if let Some(address) = address.filter(|address| mode == Mode::Files || is_routable(address)) {
                to.insert(SocketAddr::new(address, number), pod);
            }
        }
    }
    let chosen = if ready.is_empty() { leaving } else { ready };
    EndpointSet { endpoints: chosen.into_iter().map(|(address, pod)| Endpoint { address, pod }).collect() }
}

/// Whether a pod may have the address: who may write EndpointSlices must not reach our own pod or node with them
/// (CVE-2021-25740).
fn is_routable(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}
