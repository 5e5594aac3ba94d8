//! What translating one route looks at, noted down: as long as all of it is the same, so is the result.

use super::attach::ParentName;
use super::backend_tls::{Policies, ServicePolicies};
use super::destination::{Destination, Destinations, Target, Traffic};
use super::gateway::View;
use super::grants::{Grants, Reference};
use super::policy::{self, Attached};
use super::reuse;
use super::tally::Id;
use crate::cluster::{Cluster, Kind};
use headgate_proxy::model::{BackendTls, ListenerId, ObjectName, Text};
use k8s_openapi::api::core::v1::{Namespace, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gateways of ours and their ListenerSets, as routes see them.
pub(super) type Views = BTreeMap<ParentName, Arc<View>>;

/// Something that was looked at, or that wasn't there. There are half a dozen for each route: kinds are fields of their own, which
/// packs them into four words.
#[derive(Debug)]
enum Seen {
    Gateway(ObjectName, Option<Arc<View>>, Ungoverned),
    ListenerSet(ObjectName, Option<Arc<View>>),
    Service(ObjectName, Option<Arc<Service>>, Absent),
    Namespace(Text, Option<Arc<Namespace>>),
    Grants(Arc<Grants>),
    Policies(ObjectName, Option<Arc<ServicePolicies>>),
    Destination(ObjectName, Option<Arc<Destination>>),
    Traffic(Kind, ObjectName, Option<Arc<Traffic>>),
    /// The policies of the first kind that are attached to an object of the second.
    Attached(Kind, Kind, ObjectName, Option<Arc<Attached>>),
    /// No policy of any kind is attached to it.
    Ungoverned(Kind, ObjectName),
}

const _: () = assert!(size_of::<Seen>() == 32);

/// Whether a Gateway that was looked at has no policy, as most haven't, and that was looked at, too.
type Ungoverned = bool;

/// What a Service that was looked at hasn't, as most haven't: less than an entry of its own for each.
#[derive(Clone, Copy, Debug, Default)]
struct Absent {
    policies: bool,
    traffic: bool,
}

impl Seen {
    /// Whether both are about the same thing.
    fn is_about(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gateway(name, ..), Self::Gateway(other, ..))
            | (Self::ListenerSet(name, _), Self::ListenerSet(other, _))
            | (Self::Service(name, ..), Self::Service(other, ..))
            | (Self::Policies(name, _), Self::Policies(other, _))
            | (Self::Destination(name, _), Self::Destination(other, _)) => name == other,
            (Self::Namespace(name, _), Self::Namespace(other, _)) => name == other,
            (Self::Traffic(kind, name, _), Self::Traffic(other, of, _))
            | (Self::Ungoverned(kind, name), Self::Ungoverned(other, of)) => (kind, name) == (other, of),
            (Self::Attached(policy, kind, name, _), Self::Attached(another, other, of, _)) => {
                (policy, kind, name) == (another, other, of)
            }
            (Self::Grants(_), Self::Grants(_)) => true,
            (
                Self::Gateway(..)
                | Self::ListenerSet(..)
                | Self::Service(..)
                | Self::Namespace(..)
                | Self::Grants(_)
                | Self::Policies(..)
                | Self::Destination(..)
                | Self::Traffic(..)
                | Self::Attached(..)
                | Self::Ungoverned(..),
                _,
            ) => false,
        }
    }
}

/// All that was looked at.
#[derive(Debug, Default)]
pub(super) struct Inputs(Box<[Seen]>);

impl Inputs {
    /// Backends that were looked at and are, or have, something that wants to be told who uses it.
    pub(super) fn told_backends(&self) -> impl Iterator<Item = Target> {
        self.0.iter().filter_map(|seen| match seen {
            Seen::Policies(name, Some(_)) => Some((Kind::Service, name.clone())),
            Seen::Destination(name, Some(_)) => Some((Kind::XBackend, name.clone())),
            Seen::Traffic(kind, name, Some(_)) => Some((*kind, name.clone())),
            Seen::Policies(_, None)
            | Seen::Destination(_, None)
            | Seen::Traffic(_, _, None)
            | Seen::Gateway(..)
            | Seen::ListenerSet(..)
            | Seen::Service(..)
            | Seen::Namespace(..)
            | Seen::Attached(..)
            | Seen::Ungoverned(..)
            | Seen::Grants(_) => None,
        })
    }

    /// What was looked up in the cluster itself, whether or not it was there.
    pub(super) fn looked_up(&self) -> impl Iterator<Item = Id> {
        self.0.iter().filter_map(|seen| match seen {
            Seen::Service(name, ..) => Some((Kind::Service, name.clone())),
            Seen::Namespace(name, _) => Some((Kind::Namespace, ObjectName::new("", name.clone()))),
            Seen::Gateway(..)
            | Seen::ListenerSet(..)
            | Seen::Grants(_)
            | Seen::Policies(..)
            | Seen::Destination(..)
            | Seen::Traffic(..)
            | Seen::Attached(..)
            | Seen::Ungoverned(..) => None,
        })
    }

    /// Whether all of it is still the same.
    pub(super) fn are_current(&self, around: &Around<'_>) -> bool {
        let Around { cluster, views, grants, policies, destinations, governing } = *around;
        fn same<T>(before: Option<&Arc<T>>, now: Option<&Arc<T>>) -> bool {
            match (before, now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
        }
        self.0.iter().all(|seen| match seen {
            Seen::Gateway(name, before, ungoverned) => {
                same(before.as_ref(), views.get(&ParentName::Gateway(name.clone())))
                    && !(*ungoverned && governing.govern(&(Kind::Gateway, name.clone())))
            }
            Seen::ListenerSet(name, before) => {
                same(before.as_ref(), views.get(&ParentName::ListenerSet(name.clone())))
            }
            Seen::Service(name, before, absent) => {
                same(before.as_ref(), cluster.services.get(name))
                    && !(absent.policies && policies.services.contains_key(name))
                    && !(absent.traffic && destinations.traffic(&(Kind::Service, name.clone())).is_some())
            }
            Seen::Namespace(name, before) => {
                same(before.as_ref(), namespace(cluster, name).map(|(_, namespace)| namespace))
            }
            Seen::Grants(before) => Arc::ptr_eq(before, grants),
            Seen::Policies(name, before) => same(before.as_ref(), policies.services.get(name)),
            Seen::Destination(name, before) => same(before.as_ref(), destinations.backends.get(name)),
            Seen::Traffic(kind, name, before) => {
                same(before.as_ref(), destinations.traffic(&(*kind, name.clone())))
            }
            Seen::Attached(policy, kind, name, before) => {
                same(before.as_ref(), governing.attached.get(&(*policy, (*kind, name.clone()))))
            }
            Seen::Ungoverned(kind, name) => !governing.govern(&(*kind, name.clone())),
        })
    }
}

/// An object with its name as it is kept, to be shared.
type Named<'a, K> = (&'a ObjectName, &'a Arc<K>);

/// What a route may look at.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) views: &'a Views,
    pub(super) grants: &'a Arc<Grants>,
    pub(super) policies: &'a Policies,
    pub(super) destinations: &'a Destinations,
    /// Policies of requests.
    pub(super) governing: &'a policy::Policies,
}

/// Looks things up, and remembers what.
pub(super) struct Lookup<'a> {
    cluster: &'a Cluster,
    views: &'a Views,
    grants: &'a Arc<Grants>,
    policies: &'a Policies,
    destinations: &'a Destinations,
    governing: &'a policy::Policies,
    seen: Vec<Seen>,
    /// Those of the route that was translated before.
    listeners: Option<Arc<[ListenerId]>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(around: &Around<'a>) -> Self {
        let Around { cluster, views, grants, policies, destinations, governing } = *around;
        Self { cluster, views, grants, policies, destinations, governing, seen: Vec::new(), listeners: None }
    }

    /// After a route that had these listeners.
    pub(super) fn after(self, listeners: Option<Arc<[ListenerId]>>) -> Self {
        Self { listeners, ..self }
    }

    /// Listeners to be kept: once for routes that have the same, as most of a Gateway's have.
    pub(super) fn shared(&self, listeners: Vec<ListenerId>) -> Arc<[ListenerId]> {
        reuse(self.listeners.as_ref(), listeners.into())
    }

    pub(super) fn into_inputs(self) -> Inputs {
        Inputs(self.seen.into())
    }

    /// What a Service that was looked at hasn't.
    fn absent(&mut self, service: &ObjectName) -> Option<&mut Absent> {
        self.seen.iter_mut().find_map(|seen| {
            if let Seen::Service(name, _, absent) = seen
                && name == service
            {
                Some(absent)
            } else {
                None
            }
        })
    }

    /// Notes something down, once.
    fn note(&mut self, seen: Seen) {
        if !self.seen.iter().any(|known| known.is_about(&seen)) {
            self.seen.push(seen);
        }
    }

    pub(super) fn parent(&mut self, name: &ParentName) -> Option<&'a Arc<View>> {
        // Names are shared with what was found.
        let found = self.views.get_key_value(name);
        let name = found.map_or(name, |(name, _)| name).clone();
        let found = found.map(|(_, view)| view);
        let seen = found.cloned();
        self.note(match name {
            ParentName::Gateway(name) => Seen::Gateway(name, seen, false),
            ParentName::ListenerSet(name) => Seen::ListenerSet(name, seen),
        });
        found
    }

    /// A Service, with its name as it is kept.
    pub(super) fn service(&mut self, name: &ObjectName) -> Option<Named<'a, Service>> {
        let found = self.cluster.services.get_key_value(name);
        let name = found.map_or(name, |(name, _)| name).clone();
        self.note(Seen::Service(name, found.map(|(_, service)| service.clone()), Absent::default()));
        found
    }

    /// Labels of a namespace. Files may leave namespaces out: then it has the one label that every namespace has.
    pub(super) fn namespace_labels(&mut self, name: &str) -> BTreeMap<String, String> {
        let (found, labels) = namespace_labels(self.cluster, name);
        let name = found.map_or_else(|| name.into(), |(name, _)| name.name.clone());
        self.note(Seen::Namespace(name, found.map(|(_, namespace)| namespace.clone())));
        labels
    }

    /// How the backends of a Service's port are verified; `None`: they speak clear text.
    pub(super) fn backend_tls(
        &mut self,
        service: &ObjectName,
        port_name: Option<&str>,
    ) -> Option<Arc<BackendTls>> {
        let found = self.policies.services.get(service);
        match (found, self.absent(service)) {
            (None, Some(absent)) => absent.policies = true,
            (found, _) => self.note(Seen::Policies(service.clone(), found.cloned())),
        }
        found?.of_port(port_name).cloned()
    }

    /// An XBackend.
    pub(super) fn destination(&mut self, name: &ObjectName) -> Option<Arc<Destination>> {
        let found = self.destinations.backends.get(name).cloned();
        self.note(Seen::Destination(name.clone(), found.clone()));
        found
    }

    /// What XBackendTrafficPolicies say of a backend.
    pub(super) fn traffic(&mut self, backend: Target) -> Option<Arc<Traffic>> {
        let found = self.destinations.traffic(&backend).cloned();
        let absent = if backend.0 == Kind::Service { self.absent(&backend.1) } else { None };
        match (&found, absent) {
            (None, Some(absent)) => absent.traffic = true,
            (found, _) => self.note(Seen::Traffic(backend.0, backend.1, found.clone())),
        }
        found
    }

    /// The policies of a kind that are attached to an object.
    pub(super) fn attached(&mut self, policy: Kind, target: (Kind, ObjectName)) -> Option<Arc<Attached>> {
        let id = (policy, target);
        let found = self.governing.attached.get(&id).cloned();
        let governed = self.governing.govern(&id.1);
        let (policy, (kind, name)) = id;
        match (governed, self.ungoverned(kind, &name)) {
            (true, _) => self.note(Seen::Attached(policy, kind, name, found.clone())),
            (false, Some(ungoverned)) => *ungoverned = true,
            (false, None) => self.note(Seen::Ungoverned(kind, name)),
        }
        found
    }

    /// Whether a Gateway that was looked at has no policy, to be noted down.
    fn ungoverned(&mut self, kind: Kind, gateway: &ObjectName) -> Option<&mut Ungoverned> {
        let mut seen = self.seen.iter_mut().filter(|_| kind == Kind::Gateway);
        seen.find_map(|seen| {
            if let Seen::Gateway(name, _, ungoverned) = seen
                && name == gateway
            {
                Some(ungoverned)
            } else {
                None
            }
        })
    }

    pub(super) fn permit(&mut self, reference: &Reference<'_>) -> bool {
        self.note(Seen::Grants(self.grants.clone()));
        self.grants.permit(reference)
    }
}

/// A namespace and its labels.
pub(super) fn namespace_labels<'a>(
    cluster: &'a Cluster,
    name: &str,
) -> (Option<Named<'a, Namespace>>, BTreeMap<String, String>) {
    let found = namespace(cluster, name);
    let mut labels = found.and_then(|(_, namespace)| namespace.metadata.labels.clone()).unwrap_or_default();
    labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.to_owned());
    (found, labels)
}

fn namespace<'a>(cluster: &'a Cluster, name: &str) -> Option<Named<'a, Namespace>> {
    cluster.namespaces.get_key_value(&ObjectName::new("", name))
}
