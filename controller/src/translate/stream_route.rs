//! TLSRoutes, TCPRoutes and UDPRoutes: to a route of the model, and what each parent says of it.
//!
//! All of them are a list of backends with weights. A reference that can't be followed keeps its share: connections that
//! fall to it are closed.

use super::backend_ref;
use super::lookup::Lookup;
use super::route::{Parents, Problems, Routed, Translated, created};
use crate::api::route::StreamRoute as ApiRoute;
use headgate_proxy::model::{
    ObjectName, RouteId, RouteKind, StreamRoute, Target, ThinVec, Transport, WeightedBackend,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Translates one route.
pub(super) fn translate<K: ApiRoute>(
    kind: RouteKind,
    lookup: &mut Lookup<'_>,
    name: &ObjectName,
    route: &K,
) -> Translated {
    let parents = Parents::of(lookup, name, route);
    if parents.is_empty() {
        return Translated::nothing(parents);
    }
    let transport = if kind == RouteKind::Udp { Transport::Udp } else { Transport::Tcp };
    let (mut problems, mut backends, mut split) = (Problems::default(), Vec::new(), ThinVec::new());
    for (n, reference) in route.backend_refs().iter().enumerate() {
        let found =
            backend_ref::resolve_stream(lookup, K::KIND.name(), &name.namespace, reference, transport);
        let target = match found {
            Ok(backend) => {
                let id = backend.id.clone();
                backends.push(Arc::new(backend));
                Target::Backend(id)
            }
            Err(refused) => {
                let why = format!("spec.rules[0].backendRefs[{n}]: {}", refused.why);
                problems.unresolved.push((refused.reason, why));
                Target::Fail(refused.failure)
            }
        };
        let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or_default();
        split.push(WeightedBackend::new(target, weight));
    }
    let attached = parents.attached.clone();
    let model = StreamRoute {
        id: RouteId { kind, name: name.clone() },
        created: created(route),
        listeners: attached.clone(),
        hostnames: parents.hostnames.clone(),
        backends: split,
    };
    Translated {
        route: (!attached.is_empty()).then(|| Routed::Stream(Arc::new(model))),
        backends,
        attached,
        draft: Arc::new(parents.draft(false, &problems)),
        notes: BTreeSet::new(),
    }
}
