//! ListenerSets: listeners that others add to a Gateway (GEP-1713).
//!
//! A Gateway says in `spec.allowedListeners` from which namespaces. Its own listeners come first, then those of the sets by
//! age, then by name: of two that want the same, the earlier has it.

use super::listener::Evaluated as Listener;
use crate::api::gateway::{AllowedListenersFrom, Listener as ApiListener};
use crate::api::{GROUP, Gateway, ListenerSet};
use crate::cluster::Cluster;
use crate::status::{ConditionType, Draft, ListenerDraft, ListenerSetDraft, Reason};
use headgate_proxy::model::{ListenerId, ObjectName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A set of one Gateway.
pub(super) struct Member<'a> {
    pub(super) name: &'a ObjectName,
    set: &'a Arc<ListenerSet>,
    pub(super) allowed: bool,
    /// In the form of a Gateway's; none when it isn't allowed.
    pub(super) listeners: Vec<ApiListener>,
}

/// A set that was judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) name: ObjectName,
    generation: i64,
    conditions: Vec<Draft>,
    pub(super) listeners: Vec<Listener>,
}

/// The Gateway that a set belongs to.
fn parent(name: &ObjectName, set: &ListenerSet) -> Option<ObjectName> {
    let parent = &set.spec.parent_ref;
    let of_gateway = parent.group.as_deref().unwrap_or(GROUP) == GROUP
        && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway";
    let namespace = parent.namespace.as_deref().unwrap_or(&name.namespace);
    of_gateway.then(|| ObjectName::new(namespace, parent.name.as_str()))
}

/// The sets of a Gateway, in the order in which they count.
fn sets<'a>(cluster: &'a Cluster, gateway: &ObjectName) -> Vec<(&'a ObjectName, &'a Arc<ListenerSet>)> {
    let own = cluster.listener_sets.iter().filter(|(name, set)| parent(name, set).as_ref() == Some(gateway));
    let mut sets: Vec<_> = own.collect();
    sets.sort_by_key(|(name, set)| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), *name));
    sets
}

/// The sets of a Gateway, allowed or not.
pub(super) fn members<'a>(cluster: &'a Cluster, name: &ObjectName, gateway: &Gateway) -> Vec<Member<'a>> {
    let member = |(set_name, set): (&'a ObjectName, &'a Arc<ListenerSet>)| {
        let allowed = allows(cluster, name, gateway, &set_name.namespace);
        let listeners = if allowed { listeners(set) } else { Vec::new() };
        Member { name: set_name, set, allowed, listeners }
    };
    sets(cluster, name).into_iter().map(member).collect()
}

/// Protocol and port of the listeners that sets add to a Gateway.
pub(crate) fn added_ports<'a>(
    cluster: &'a Cluster,
    name: &ObjectName,
    gateway: &Gateway,
) -> impl Iterator<Item = (&'a str, i32)> {
    let allowed = |(set, _): &(&ObjectName, _)| allows(cluster, name, gateway, &set.namespace);
    let sets: Vec<_> = sets(cluster, name).into_iter().filter(allowed).collect();
    sets.into_iter()
        .flat_map(|(_, set)| &set.spec.listeners)
        .map(|listener| (listener.protocol.as_str(), listener.port))
}

fn allows(cluster: &Cluster, name: &ObjectName, gateway: &Gateway, namespace: &str) -> bool {
    let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let Some(allowed) = allowed else { return false };
    match allowed.from.as_ref().unwrap_or(&AllowedListenersFrom::None) {
        AllowedListenersFrom::None => false,
        AllowedListenersFrom::All => true,
        AllowedListenersFrom::Same => *name.namespace == *namespace,
        AllowedListenersFrom::Selector => {
            let Some(selector) = &allowed.selector else { return false };
            let expressions = selector.match_expressions.iter().flatten();
            let expressions = expressions.map(|expression| LabelSelectorRequirement {
                key: expression.key.clone(),
                operator: expression.operator.clone(),
                values: expression.values.clone(),
            });
            let selector = LabelSelector {
                match_labels: selector.match_labels.clone(),
                match_expressions: Some(expressions.collect()),
            };
            let labels = super::lookup::namespace_labels(cluster, namespace).1;
            Selector::try_from(selector).is_ok_and(|selector| selector.matches(&labels))
        }
    }
}

/// The listeners of a set: the API gives them the form of a Gateway's.
fn listeners(set: &ListenerSet) -> Vec<ApiListener> {
    let same = |listener| serde_json::to_value(listener).and_then(serde_json::from_value);
    set.spec.listeners.iter().filter_map(|listener| same(listener).ok()).collect()
}

/// What a set is told, once its listeners know what became of their ports. `refused`: why the Gateway isn't accepted.
pub(super) fn judge(member: &Member<'_>, listeners: Vec<Listener>, refused: bool) -> Judged {
    let valid = listeners.iter().filter(|listener| listener.is_valid()).count();
    let both = |reason, why: &str| {
        [ConditionType::Accepted, ConditionType::Programmed]
            .map(|kind| Draft::new(kind, false, reason, why.to_owned()))
    };
    let conditions = if !member.allowed {
        both(
            Reason::NotAllowed,
            "spec.allowedListeners of the Gateway doesn't allow ListenerSets of this namespace",
        )
    } else if refused {
        both(Reason::ParentNotAccepted, "the Gateway is not accepted")
    } else if valid == 0 {
        both(Reason::ListenersNotValid, "no listener is valid; see their conditions")
    } else {
        let (reason, why) = match valid == listeners.len() {
            true => (Reason::Accepted, "the Gateway takes all listeners"),
            false => (Reason::ListenersNotValid, "not all listeners are valid; see their conditions"),
        };
        let programmed = match listeners.iter().any(Listener::is_programmed) {
            true => (true, Reason::Programmed, "at least one listener is served"),
            false => (false, Reason::Pending, "no listener is served yet; see their conditions"),
        };
        [
            Draft::new(ConditionType::Accepted, true, reason, why),
            Draft::new(ConditionType::Programmed, programmed.0, programmed.1, programmed.2),
        ]
    };
    Judged {
        name: member.name.clone(),
        generation: member.set.metadata.generation.unwrap_or_default(),
        conditions: conditions.into(),
        listeners,
    }
}

impl Judged {
    /// Whether the Gateway has listeners of it.
    pub(super) fn is_attached(&self) -> bool {
        self.listeners.iter().any(Listener::is_valid)
    }

    /// The status, given how many routes are attached to each listener.
    pub(super) fn draft(&self, attached: &BTreeMap<ListenerId, i32>) -> ListenerSetDraft {
        ListenerSetDraft {
            generation: self.generation,
            conditions: self.conditions.clone(),
            listeners: listener_drafts(&self.listeners, attached),
        }
    }
}

/// What listeners are told.
pub(super) fn listener_drafts(
    listeners: &[Listener],
    attached: &BTreeMap<ListenerId, i32>,
) -> Vec<ListenerDraft> {
    let draft = |listener: &Listener| ListenerDraft {
        name: listener.view.id.name.to_string(),
        attached_routes: attached.get(&listener.view.id).copied().unwrap_or_default(),
        supported_kinds: listener.supported_kinds.clone(),
        conditions: listener.conditions.clone(),
    };
    listeners.iter().map(draft).collect()
}

/// Whose a listener is, for references that it makes.
pub(super) struct Owner<'a> {
    /// The Gateway that serves it.
    pub(super) gateway: &'a ObjectName,
    /// The set that declares it, if the Gateway doesn't.
    pub(super) set: Option<&'a ObjectName>,
}

impl Owner<'_> {
    /// Kind and namespace, for ReferenceGrants.
    pub(super) fn origin(&self) -> (&'static str, &str) {
        match self.set {
            Some(set) => ("ListenerSet", &set.namespace),
            None => ("Gateway", &self.gateway.namespace),
        }
    }
}
