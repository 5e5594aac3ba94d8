//! What translating one route looks at, noted down: as long as all of it is the same, so is the result.

use super::attach::ParentName;
use super::backend_tls::{Policies, ServicePolicies};
use super::destination::{Destination, Destinations, Target, Traffic};
use super::gateway::View;
use super::grants::{Grants, Reference};
use super::policy::{self, Attached};
use crate::cluster::{Cluster, Kind};
use headgate_proxy::model::{BackendTls, ObjectName, Text};
use k8s_openapi::api::core::v1::{Namespace, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gateways of ours and their ListenerSets, as routes see them.
pub(super) type Views = BTreeMap<ParentName, Arc<View>>;

/// Something that was looked at, or that wasn't there.
#[derive(Debug)]
enum Seen {
    Parent(ParentName, Option<Arc<View>>),
    Service(ObjectName, Option<Arc<Service>>),
    Namespace(Text, Option<Arc<Namespace>>),
    Grants(Arc<Grants>),
    Policies(ObjectName, Option<Arc<ServicePolicies>>),
    Destination(ObjectName, Option<Arc<Destination>>),
    Traffic(Target, Option<Arc<Traffic>>),
    Attached((Kind, (Kind, ObjectName)), Option<Arc<Attached>>),
}

/// All that was looked at.
#[derive(Debug, Default)]
pub(super) struct Inputs(Vec<Seen>);

impl Inputs {
    /// Backends that were looked at and are, or have, something that wants to be told who uses it.
    pub(super) fn told_backends(&self) -> impl Iterator<Item = Target> {
        self.0.iter().filter_map(|seen| match seen {
            Seen::Policies(name, Some(_)) => Some((Kind::Service, name.clone())),
            Seen::Destination(name, Some(_)) => Some((Kind::XBackend, name.clone())),
            Seen::Traffic(target, Some(_)) => Some(target.clone()),
            Seen::Policies(_, None)
            | Seen::Destination(_, None)
            | Seen::Traffic(_, None)
            | Seen::Parent(..)
            | Seen::Service(..)
            | Seen::Namespace(..)
            | Seen::Attached(..)
            | Seen::Grants(_) => None,
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
            Seen::Parent(name, before) => same(before.as_ref(), views.get(name)),
            Seen::Service(name, before) => same(before.as_ref(), cluster.services.get(name)),
            Seen::Namespace(name, before) => same(before.as_ref(), namespace(cluster, name)),
            Seen::Grants(before) => Arc::ptr_eq(before, grants),
            Seen::Policies(name, before) => same(before.as_ref(), policies.services.get(name)),
            Seen::Destination(name, before) => same(before.as_ref(), destinations.backends.get(name)),
            Seen::Traffic(target, before) => same(before.as_ref(), destinations.traffic(target)),
            Seen::Attached(id, before) => same(before.as_ref(), governing.attached.get(id)),
        })
    }
}

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
    inputs: Inputs,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(around: &Around<'a>) -> Self {
        let Around { cluster, views, grants, policies, destinations, governing } = *around;
        Self { cluster, views, grants, policies, destinations, governing, inputs: Inputs::default() }
    }

    pub(super) fn into_inputs(self) -> Inputs {
        self.inputs
    }

    pub(super) fn parent(&mut self, name: &ParentName) -> Option<&'a Arc<View>> {
        let found = self.views.get(name);
        self.inputs.0.push(Seen::Parent(name.clone(), found.cloned()));
        found
    }

    pub(super) fn service(&mut self, name: &ObjectName) -> Option<&'a Arc<Service>> {
        let found = self.cluster.services.get(name);
        self.inputs.0.push(Seen::Service(name.clone(), found.cloned()));
        found
    }

    /// Labels of a namespace. Files may leave namespaces out: then it has the one label that every namespace has.
    pub(super) fn namespace_labels(&mut self, name: &str) -> BTreeMap<String, String> {
        let (found, labels) = namespace_labels(self.cluster, name);
        self.inputs.0.push(Seen::Namespace(name.into(), found.cloned()));
        labels
    }

    /// How the backends of a Service's port are verified; `None`: they speak clear text.
    pub(super) fn backend_tls(
        &mut self,
        service: &ObjectName,
        port_name: Option<&str>,
    ) -> Option<Arc<BackendTls>> {
        let found = self.policies.services.get(service);
        self.inputs.0.push(Seen::Policies(service.clone(), found.cloned()));
        found?.of_port(port_name).cloned()
    }

    /// An XBackend.
    pub(super) fn destination(&mut self, name: &ObjectName) -> Option<Arc<Destination>> {
        let found = self.destinations.backends.get(name).cloned();
        self.inputs.0.push(Seen::Destination(name.clone(), found.clone()));
        found
    }

    /// What XBackendTrafficPolicies say of a backend.
    pub(super) fn traffic(&mut self, backend: Target) -> Option<Arc<Traffic>> {
        let found = self.destinations.traffic(&backend).cloned();
        self.inputs.0.push(Seen::Traffic(backend, found.clone()));
        found
    }

    /// The policies of a kind that are attached to an object.
    pub(super) fn attached(&mut self, policy: Kind, target: (Kind, ObjectName)) -> Option<Arc<Attached>> {
        let id = (policy, target);
        let found = self.governing.attached.get(&id).cloned();
        self.inputs.0.push(Seen::Attached(id, found.clone()));
        found
    }

    pub(super) fn permit(&mut self, reference: &Reference<'_>) -> bool {
        self.inputs.0.push(Seen::Grants(self.grants.clone()));
        self.grants.permit(reference)
    }
}

/// A namespace and its labels.
pub(super) fn namespace_labels<'a>(
    cluster: &'a Cluster,
    name: &str,
) -> (Option<&'a Arc<Namespace>>, BTreeMap<String, String>) {
    let found = namespace(cluster, name);
    let mut labels = found.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default();
    labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.to_owned());
    (found, labels)
}

fn namespace<'a>(cluster: &'a Cluster, name: &str) -> Option<&'a Arc<Namespace>> {
    cluster.namespaces.get(&ObjectName::new("", name))
}
