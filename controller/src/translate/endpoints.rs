//! From EndpointSlices to the endpoints of a Service's port or an XBackend's, and from addresses to those of an external host.
//!
//! Ready endpoints count; when none is ready, those that still serve while they terminate. A Service port finds its slices'
//! port by name, as kube-proxy does.

use super::destination::hostname;
use crate::cluster::{Cluster, Packed};
use crate::naming;
use crate::settings::Mode;
use headgate_proxy::model::{BackendId, BackendKind, Endpoint, EndpointSet, ObjectName, Text};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a set was made from, and the set.
#[derive(Debug)]
struct Known {
    origin: Origin,
    set: Arc<EndpointSet>,
}

/// What a set is made from.
#[derive(Debug)]
enum Origin {
    /// Slices of a Service that somebody made; which port of theirs is its matter.
    Service { service: Arc<Service>, slices: Slices },
    /// Slices of a Service that we made for an XBackend.
    Selector { service: ObjectName, slices: Slices },
    /// The addresses of an external host.
    Host { name: Text, addresses: Arc<[IpAddr]> },
}

type Slices = Vec<Arc<Packed<EndpointSlice>>>;

impl Origin {
    /// `None`: there is nothing that could have endpoints.
    fn of(cluster: &Cluster, id: &BackendId) -> Option<Self> {
        let slices = |service: &ObjectName| cluster.slices_of(service).cloned().collect();
        match id.kind {
            BackendKind::Service => {
                let service = cluster.services.get(&id.name)?.clone();
                Some(Self::Service { service, slices: slices(&id.name) })
            }
            BackendKind::XBackend => {
                let backend = cluster.x_backends.get(&id.name)?;
                if let Some(name) = hostname(backend) {
                    let addresses = cluster.hosts.get(&name).cloned().unwrap_or_default();
                    return Some(Self::Host { name, addresses });
                }
                let service = naming::selector(&id.name.namespace, backend.metadata.uid.as_deref()?);
                Some(Self::Selector { slices: slices(&service), service })
            }
        }
    }

    fn is(&self, other: &Self) -> bool {
        fn same(one: &Slices, other: &Slices) -> bool {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| Arc::ptr_eq(a, b))
        }
        match (self, other) {
            (Self::Service { service, slices }, Self::Service { service: other, slices: others }) => {
                Arc::ptr_eq(service, other) && same(slices, others)
            }
            (Self::Selector { service, slices }, Self::Selector { service: other, slices: others }) => {
                service == other && same(slices, others)
            }
            (Self::Host { name, addresses }, Self::Host { name: other, addresses: others }) => {
                name == other && addresses == others
            }
            (Self::Service { .. } | Self::Selector { .. } | Self::Host { .. }, _) => false,
        }
    }

    fn collect(&self, id: &BackendId, mode: Mode) -> EndpointSet {
        match self {
            Self::Service { service, slices } => match port_name(service, id) {
                Some(name) => collect(slices, name, id, mode),
                None => EndpointSet::default(),
            },
            Self::Selector { slices, .. } => collect(slices, naming::SELECTOR_PORT, id, mode),
            Self::Host { addresses, .. } => {
                let usable = addresses.iter().filter(|address| mode == Mode::Files || is_routable(address));
                let sockets: BTreeSet<_> = usable.map(|address| SocketAddr::new(*address, id.port)).collect();
                let endpoints = sockets.into_iter().map(|address| Endpoint { address, pod: None });
                EndpointSet { endpoints: endpoints.collect() }
            }
        }
    }
}

/// Sets of endpoints, until what they were made from changes.
#[derive(Debug, Default)]
pub struct Endpoints(BTreeMap<BackendId, Known>);

impl Endpoints {
    /// The endpoints of a backend; none when what has them is gone.
    pub fn get(&mut self, cluster: &Cluster, mode: Mode, id: &BackendId) -> Arc<EndpointSet> {
        let Some(origin) = Origin::of(cluster, id) else { return Arc::default() };
        let known = self.0.get(id);
        if let Some(known) = known.filter(|known| known.origin.is(&origin)) {
            return known.set.clone();
        }
        let made = origin.collect(id, mode);
        let set = match known {
            Some(known) if *known.set == made => known.set.clone(),
            Some(_) | None => Arc::new(made),
        };
        self.0.insert(id.clone(), Known { origin, set: set.clone() });
        set
    }

    /// The backends in use whose endpoints a Service's slices are.
    pub fn of_service(&self, service: &ObjectName) -> Vec<BackendId> {
        let has = |(id, known): &(&BackendId, &Known)| match &known.origin {
            Origin::Service { .. } => id.name == *service,
            Origin::Selector { service: own, .. } => own == service,
            Origin::Host { .. } => false,
        };
        self.0.iter().filter(has).map(|(id, _)| id.clone()).collect()
    }

    /// The backends in use that are one of these hosts.
    pub fn of_hosts(&self, hosts: &BTreeSet<Text>) -> Vec<BackendId> {
        let is = |known: &Known| match &known.origin {
            Origin::Host { name, .. } => hosts.contains(name),
            Origin::Service { .. } | Origin::Selector { .. } => false,
        };
        self.0.iter().filter(|(_, known)| is(known)).map(|(id, _)| id.clone()).collect()
    }

    /// Forgets a backend.
    pub fn remove(&mut self, id: &BackendId) {
        self.0.remove(id);
    }

    /// Forgets backends that nobody uses.
    pub fn retain(&mut self, used: impl Fn(&BackendId) -> bool) {
        self.0.retain(|id, _| used(id));
    }
}

/// The name of a Service's port; empty where it has none.
fn port_name<'a>(service: &'a Service, id: &BackendId) -> Option<&'a str> {
    let fits = |protocol: Option<&str>| protocol.unwrap_or("TCP") == id.transport.name();
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let port = ports.iter().find(|p| p.port == i32::from(id.port) && fits(p.protocol.as_deref()))?;
    Some(port.name.as_deref().unwrap_or_default())
}

/// What slices have on a port of that name.
fn collect(slices: &[Arc<Packed<EndpointSlice>>], name: &str, id: &BackendId, mode: Mode) -> EndpointSet {
    let fits = |protocol: Option<&str>| protocol.unwrap_or("TCP") == id.transport.name();
    let (mut ready, mut leaving) = (BTreeMap::new(), BTreeMap::new());
    for slice in slices {
        let slice = slice.unpack();
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
