//! What translating one route looks at, noted down: as long as all of it is the same, so is the result.

use super::gateway::View;
use super::grants::{Grants, Reference};
use crate::cluster::Cluster;
use headgate_proxy::model::{ObjectName, Text};
use k8s_openapi::api::core::v1::{Namespace, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gateways of ours, as routes see them.
pub(super) type Views = BTreeMap<ObjectName, Arc<View>>;

/// Something that was looked at, or that wasn't there.
#[derive(Debug)]
enum Seen {
    Gateway(ObjectName, Option<Arc<View>>),
    Service(ObjectName, Option<Arc<Service>>),
    Namespace(Text, Option<Arc<Namespace>>),
    Grants(Arc<Grants>),
}

/// All that was looked at.
#[derive(Debug, Default)]
pub(super) struct Inputs(Vec<Seen>);

impl Inputs {
    /// Whether all of it is still the same.
    pub(super) fn are_current(&self, cluster: &Cluster, views: &Views, grants: &Arc<Grants>) -> bool {
        fn same<T>(before: Option<&Arc<T>>, now: Option<&Arc<T>>) -> bool {
            match (before, now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
        }
        self.0.iter().all(|seen| match seen {
            Seen::Gateway(name, before) => same(before.as_ref(), views.get(name)),
            Seen::Service(name, before) => same(before.as_ref(), cluster.services.get(name)),
            Seen::Namespace(name, before) => same(before.as_ref(), namespace(cluster, name)),
            Seen::Grants(before) => Arc::ptr_eq(before, grants),
        })
    }
}

/// Looks things up, and remembers what.
pub(super) struct Lookup<'a> {
    cluster: &'a Cluster,
    views: &'a Views,
    grants: &'a Arc<Grants>,
    inputs: Inputs,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(cluster: &'a Cluster, views: &'a Views, grants: &'a Arc<Grants>) -> Self {
        Self { cluster, views, grants, inputs: Inputs::default() }
    }

    pub(super) fn into_inputs(self) -> Inputs {
        self.inputs
    }

    pub(super) fn gateway(&mut self, name: &ObjectName) -> Option<&'a Arc<View>> {
        let found = self.views.get(name);
        self.inputs.0.push(Seen::Gateway(name.clone(), found.cloned()));
        found
    }

    pub(super) fn service(&mut self, name: &ObjectName) -> Option<&'a Arc<Service>> {
        let found = self.cluster.services.get(name);
        self.inputs.0.push(Seen::Service(name.clone(), found.cloned()));
        found
    }

    /// Labels of a namespace. Files may leave namespaces out: then it has the one label that every namespace has.
    pub(super) fn namespace_labels(&mut self, name: &str) -> BTreeMap<String, String> {
        let found = namespace(self.cluster, name);
        self.inputs.0.push(Seen::Namespace(name.into(), found.cloned()));
        let mut labels = found.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default();
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.to_owned());
        labels
    }

    pub(super) fn permit(&mut self, reference: &Reference<'_>) -> bool {
        self.inputs.0.push(Seen::Grants(self.grants.clone()));
        self.grants.permit(reference)
    }
}

fn namespace<'a>(cluster: &'a Cluster, name: &str) -> Option<&'a Arc<Namespace>> {
    cluster.namespaces.get(&ObjectName::new("", name))
}
