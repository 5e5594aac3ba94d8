//! ReferenceGrants: who may name what in another namespace (GEP-709).

use crate::api::{GROUP, ReferenceGrant};
use crate::cluster::{Cluster, Store};
use headgate_proxy::model::{ObjectName, Text};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A reference to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Kind of the object that refers.
    pub from_kind: &'a str,
    /// Its namespace.
    pub from_namespace: &'a str,
    /// Group of the object referred to; empty for core.
    pub to_group: &'a str,
    /// Its kind.
    pub to_kind: &'a str,
    /// Its name.
    pub to: &'a ObjectName,
}

impl Reference<'_> {
    fn group(&self) -> &'static str {
        match self.from_kind {
            "AuthPolicy" | "CircuitBreakerPolicy" => "headgate.dev",
            _ => GROUP,
        }
    }
}

/// All grants, by the namespace that they open.
#[derive(Debug, Default)]
pub struct Grants {
    by_namespace: BTreeMap<Text, Vec<Arc<ReferenceGrant>>>,
}

impl Grants {
    /// Those that exist; the ones before when they are the same.
    pub fn of(cluster: &Cluster, before: &Arc<Self>) -> Arc<Self> {
        match before.is_same(&cluster.reference_grants) {
            true => before.clone(),
            false => Arc::new(Self::index(&cluster.reference_grants)),
        }
    }

    fn index(grants: &Store<ReferenceGrant>) -> Self {
        let mut by_namespace = BTreeMap::<Text, Vec<_>>::new();
        for (name, grant) in grants {
            by_namespace.entry(name.namespace.clone()).or_default().push(grant.clone());
        }
        Self { by_namespace }
    }

    fn is_same(&self, grants: &Store<ReferenceGrant>) -> bool {
        let known = self.by_namespace.values().flatten();
        known.clone().count() == grants.len() && known.zip(grants.values()).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Whether the reference stays within its namespace, or a grant allows it.
    pub fn permit(&self, reference: &Reference<'_>) -> bool {
        let to = &reference.to;
        *to.namespace == *reference.from_namespace
            || self.by_namespace.get(&to.namespace).into_iter().flatten().any(|grant| {
                let from = grant.spec.from.iter().any(|from| {
                    from.group == reference.group()
                        && from.kind == reference.from_kind
                        && from.namespace == reference.from_namespace
                });
                let covers =
                    |name: Option<&str>| name.is_none_or(|name| name.is_empty() || *name == *to.name);
                from && grant.spec.to.iter().any(|granted| {
                    granted.group == reference.to_group
                        && granted.kind == reference.to_kind
                        && covers(granted.name.as_deref())
                })
            })
    }
}
