//! What all kinds of route have in common: `parentRefs`, hostnames, and the form of their status.
//!
//! Each kind has types of its own for these, alike in every field. Everything behind this module sees one.

use super::generated::httproutes;
use super::http_route::BackendRef;
use super::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute, UdpRoute};
use crate::cluster::{Pack, Packed};

/// An entry of `spec.parentRefs`, and of a status.
pub type ParentRef = httproutes::HttpRouteStatusParentsParentRef;
/// The status of a route.
pub type RouteStatus = httproutes::HttpRouteStatus;
/// What one parent says.
pub type ParentStatus = httproutes::HttpRouteStatusParents;

/// A kind of route.
pub trait Route: Pack<Kept = Packed<Self>> {
    /// `spec.parentRefs`.
    fn parent_refs(&self) -> Vec<ParentRef>;

    /// `spec.hostnames`; kinds without hostnames have none.
    fn hostnames(&self) -> &[String];
}

/// A kind of route for what isn't HTTP.
pub trait StreamRoute: Route {
    /// `backendRefs` of its rule: the API allows one rule.
    fn backend_refs(&self) -> Vec<BackendRef>;
}

macro_rules! parent_ref {
    ($from:expr) => {
        ParentRef {
            group: $from.group.clone(),
            kind: $from.kind.clone(),
            name: $from.name.clone(),
            namespace: $from.namespace.clone(),
            port: $from.port,
            section_name: $from.section_name.clone(),
        }
    };
}

macro_rules! route {
    ($kind:ty, |$this:ident| $hostnames:expr) => {
        impl Route for $kind {
            fn parent_refs(&self) -> Vec<ParentRef> {
                self.spec.parent_refs.iter().flatten().map(|parent| parent_ref!(parent)).collect()
            }

            fn hostnames(&self) -> &[String] {
                let $this = self;
                $hostnames
            }
        }

        impl Pack for $kind {
            fn take_status(&mut self) -> Option<RouteStatus> {
                let parents = self.status.take()?.parents.into_iter().map(|parent| ParentStatus {
                    conditions: parent.conditions,
                    controller_name: parent.controller_name,
                    parent_ref: parent_ref!(parent.parent_ref),
                });
                Some(RouteStatus { parents: parents.collect() })
            }
        }
    };
}

macro_rules! stream_route {
    ($kind:ty) => {
        impl StreamRoute for $kind {
            fn backend_refs(&self) -> Vec<BackendRef> {
                let references = self.spec.rules.iter().take(1).flat_map(|rule| &rule.backend_refs);
                let same = references.map(|reference| BackendRef {
                    group: reference.group.clone(),
                    kind: reference.kind.clone(),
                    name: reference.name.clone(),
                    namespace: reference.namespace.clone(),
                    port: reference.port,
                    weight: reference.weight,
                    ..BackendRef::default()
                });
                same.collect()
            }
        }
    };
}

stream_route!(TlsRoute);
stream_route!(TcpRoute);
stream_route!(UdpRoute);

route!(HttpRoute, |route| route.spec.hostnames.as_deref().unwrap_or_default());
route!(GrpcRoute, |route| route.spec.hostnames.as_deref().unwrap_or_default());
route!(TlsRoute, |route| &route.spec.hostnames);
route!(TcpRoute, |_route| &[]);
route!(UdpRoute, |_route| &[]);
