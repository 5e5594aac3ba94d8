//! Which CircuitBreakerPolicies govern which backend, and what they come to there.
//!
//! A backend has one state, and so one policy, whatever route its requests come by. What is attached to the Gateways,
//! listeners, routes and rules that forward to it is merged level by level, the levels of all of them together; then what is
//! attached to its Service, and to its port. Where two of one level say different things, the older wins, and the other is
//! told. Policies in Shadow are tried where none acts. Nothing is done where there are no such policies.

use super::circuit_breaker::{Put, put};
use super::merge::{Level, Source, merge};
use super::scope::Became;
use super::{Attached, Note, Notes, Policies, Policy, Refused, TargetId};
use crate::api::http_route::BackendRef;
use crate::cluster::{Cluster, Kind};
use crate::translate::backend_ref::resolve;
use crate::translate::lookup::{Around, Lookup};
use crate::translate::route::{Routed, Translated};
use headgate_crds::CircuitBreakerPolicy;
use headgate_crds::policy::ServiceRef;
use headgate_proxy::model::{
    Action, Backend, BackendId, BackendKind, ListenerId, ObjectName, Route, Sorted, Target, WeightedBackend,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const KIND: Kind = Kind::CircuitBreakerPolicy;
/// Gateway, listener, ListenerSet, its listener, route, rule, Service, port.
const LEVELS: usize = 8;

/// What governs a backend.
#[derive(Default)]
struct Governed {
    levels: [Vec<Arc<Source>>; LEVELS],
    gateways: BTreeSet<ObjectName>,
}

impl Governed {
    fn add(&mut self, level: usize, from: Option<&Level>) {
        for source in from.iter().flat_map(|level| &level.sources) {
            if !self.levels[level].iter().any(|known| known.name == source.name) {
                self.levels[level].push(source.clone());
            }
        }
    }

    fn add_both(&mut self, level: usize, attached: Option<&Arc<Attached>>, section: Option<&str>) {
        let Some(attached) = attached else { return };
        self.add(level, attached.whole.as_ref());
        self.add(level + 1, section.and_then(|section| attached.sections.get(section)));
    }
}

/// Gives backends their policies, and adds the backends that stand in for others.
pub(in crate::translate) fn govern<'a>(
    around: &Around<'_>,
    routes: impl Iterator<Item = (&'a TargetId, &'a Arc<Translated>)>,
    backends: &mut Sorted<BackendId, Backend>,
    told: &mut Notes,
) {
    if around.cluster.circuit_breaker_policies.is_empty() {
        return;
    }
    let mut governed = BTreeMap::<BackendId, Governed>::new();
    for (id, translated) in routes {
        match &translated.route {
            Some(Routed::Http(route)) => by_route(around.governing, id, route, &mut governed),
            Some(Routed::Stream(_)) | None => {}
        }
    }
    let ages = ages(around.cluster);
    let mut left: Vec<_> = governed.into_iter().collect();
    // Whoever stands in for another is governed by its own Service's policies; each is looked at once.
    let mut seen: BTreeSet<BackendId> = left.iter().map(|(id, _)| id.clone()).collect();
    while let Some((id, mut governed)) = left.pop() {
        match id.kind {
            BackendKind::Service => {
                let services = (Kind::Service, id.name.clone());
                by_service(around, &id, attached(around.governing, services.clone()), &mut governed);
                told.belongs(services, governed.gateways.iter());
            }
            // Policies reach it by what forwards to it.
            BackendKind::XBackend => {}
        }
        let mut found = Vec::new();
        let merged = one(around, &governed, &ages, &mut found, told);
        if let (Some(policy), Some(backend)) = (merged, backends.get_mut(&id)) {
            Arc::make_mut(backend).policy = Some(Arc::new(policy));
        }
        for backend in found {
            if seen.insert(backend.id.clone()) {
                let gateways = governed.gateways.clone();
                left.push((backend.id.clone(), Governed { gateways, ..Governed::default() }));
            }
            let id = backend.id.clone();
            backends.or_insert_with(&id, || Arc::new(backend));
        }
    }
}

/// The policies of one backend, merged; `found` gets the backends that they name.
fn one(
    around: &Around<'_>,
    governed: &Governed,
    ages: &BTreeMap<ObjectName, usize>,
    found: &mut Vec<Backend>,
    told: &mut Notes,
) -> Option<headgate_proxy::model::BackendPolicy> {
    let levels: Vec<Level> = governed
        .levels
        .iter()
        .filter(|sources| !sources.is_empty())
        .map(|sources| {
            let mut sources = sources.clone();
            sources.sort_by_key(|source| ages.get(&source.name));
            Level { target: "".into(), sources }
        })
        .collect();
    if levels.is_empty() {
        return None;
    }
    let (shape, all) = (&CircuitBreakerPolicy::SHAPE, levels.iter().collect::<Vec<_>>());
    let mut merged = merge(shape, &all, |source| !source.shadow);
    let tried = merged.fields.is_empty();
    if tried {
        merged = merge(shape, &all, |_| true);
    }
    let mut lookup = Lookup::new(around);
    let Put { policy, unresolved } = put(&merged, tried, |namespace, named: &ServiceRef| {
        let ServiceRef { name, namespace: other, port } = named.clone();
        let reference = BackendRef { name, namespace: other, port: Some(port), ..BackendRef::default() };
        let backend =
            resolve(&mut lookup, KIND.name(), namespace, &reference).map_err(|refused| refused.why)?;
        let id = backend.id.clone();
        found.push(backend);
        Ok(id)
    });
    let mut notes = Vec::new();
    notes.extend(unresolved.into_iter().map(|(policy, why)| (policy, Became::Unresolved(why))));
    let watched = levels.iter().flat_map(|level| &level.sources).filter(|source| source.shadow && !tried);
    notes.extend(watched.map(|source| {
        let why = "mode is Shadow, and others act on the same Service: a backend has one state, so it isn't tried there";
        (source.name.clone(), Became::Incomplete(why.to_owned()))
    }));
    let in_force = merged.fields.iter().filter(|(path, _)| !path.is_mode());
    notes.extend(in_force.map(|(_, field)| (field.policy.clone(), Became::InForce)));
    let refused = merged.refused.into_iter();
    notes.extend(refused.map(|Refused { loser, path, winner }| (loser, Became::Refused(path, winner))));
    for Refused { loser, path, winner } in levels.iter().flat_map(Level::conflicts) {
        if !path.is_mode() {
            let why = format!(
                "{path} is as {winner} has it where both govern a Service: it is older, or first by name"
            );
            notes.push((loser, Became::Incomplete(why)));
        }
    }
    for gateway in &governed.gateways {
        for (policy, what) in &notes {
            let policy = (KIND, policy.clone());
            told.note(Note { policy, gateway: gateway.clone(), what: what.clone() });
        }
    }
    policy
}

/// Notes what governs the backends of a route.
fn by_route(policies: &Policies, id: &TargetId, route: &Route, governed: &mut BTreeMap<BackendId, Governed>) {
    let own = attached(policies, id.clone());
    let above: Vec<_> = route
        .listeners
        .iter()
        .map(|listener| {
            let gateway = attached(policies, (Kind::Gateway, listener.gateway.clone()));
            let set = listener.listener_set.clone();
            let set = set.and_then(|set| attached(policies, (Kind::ListenerSet, set)));
            (listener, gateway, set)
        })
        .collect();
    for rule in &route.rules {
        let Action::Forward(backends) = &rule.action else { continue };
        for WeightedBackend { target, .. } in backends {
            let Target::Backend(backend) = target else { continue };
            let governed = governed.entry(backend.clone()).or_default();
            for (ListenerId { gateway: name, listener_set, name: section }, gateway, set) in &above {
                // The section of a listener is its declarer's.
                let (of_gateway, of_set) = match listener_set {
                    None => (Some(&**section), None),
                    Some(_) => (None, Some(&**section)),
                };
                governed.add_both(0, *gateway, of_gateway);
                governed.add_both(2, *set, of_set);
                governed.gateways.insert(name.clone());
            }
            governed.add_both(4, own, rule.name.as_deref());
        }
    }
}

/// Notes what governs a backend by its Service: a section is a port's name or number.
fn by_service(
    around: &Around<'_>,
    id: &BackendId,
    attached: Option<&Arc<Attached>>,
    governed: &mut Governed,
) {
    let Some(attached) = attached else { return };
    governed.add(6, attached.whole.as_ref());
    let ports =
        around.cluster.services.get(&id.name).and_then(|service| service.spec.as_ref()?.ports.as_ref());
    let port = ports.into_iter().flatten().find(|port| port.port == i32::from(id.port));
    let name = port.and_then(|port| port.name.as_deref());
    for section in [name, Some(&*id.port.to_string())].into_iter().flatten() {
        governed.add(7, attached.sections.get(section));
    }
}

fn attached(policies: &Policies, target: TargetId) -> Option<&Arc<Attached>> {
    policies.attached.get(&(KIND, target))
}

/// How old policies are: the older first, then by name.
fn ages(cluster: &Cluster) -> BTreeMap<ObjectName, usize> {
    let mut all: Vec<_> = cluster.circuit_breaker_policies.iter().collect();
    all.sort_by_key(|(_, policy)| policy.metadata.creation_timestamp.as_ref().map(|time| time.0));
    all.into_iter().enumerate().map(|(age, (name, _))| (name.clone(), age)).collect()
}
