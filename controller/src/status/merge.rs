//! A draft over the status that is there.
//!
//! Each function returns the whole new status, or `None` when the present one says it all already, so that nothing needs to
//! be written. Pure: the time is given.

use super::{
    ClassDraft, ConditionType, Draft, GatewayDraft, ListenerDraft, ListenerSetDraft, PolicyDraft, RouteDraft,
    ServiceDraft,
};
use crate::api::gateway::{GatewayStatus, ListenerStatus};
use crate::api::gateway_class::{GatewayClassStatus, SupportedFeature};
use crate::api::listener_set::{self, ListenerSetStatus};
use crate::api::policy::{AncestorStatus, PolicyStatus};
use crate::api::route::{ParentStatus, RouteStatus};
use k8s_openapi::api::core::v1::{Service, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Entries that the API lets a policy's status have (GEP-713); those that come late have no place.
const MAX_ANCESTORS: usize = 16;

/// Status of a GatewayClass.
pub fn gateway_class(
    present: Option<&GatewayClassStatus>,
    draft: &ClassDraft,
    now: &Time,
) -> Option<GatewayClassStatus> {
    let old = present.and_then(|present| present.conditions.as_deref()).unwrap_or_default();
    let features = draft.features.iter().map(|name| SupportedFeature { name: name.clone() }).collect();
    let status = GatewayClassStatus {
        conditions: Some(conditions(old, &draft.conditions, draft.generation, now)),
        supported_features: Some(features),
    };
    (present != Some(&status)).then_some(status)
}

/// Status of a Gateway.
pub fn gateway(present: Option<&GatewayStatus>, draft: &GatewayDraft, now: &Time) -> Option<GatewayStatus> {
    let old = present.and_then(|present| present.conditions.as_deref()).unwrap_or_default();
    let old_listeners = present.and_then(|present| present.listeners.as_deref()).unwrap_or_default();
    let listener = |draft_listener: &ListenerDraft| {
        let old = old_listeners.iter().find(|old| old.name == draft_listener.name);
        let old = old.map(|old| &*old.conditions).unwrap_or_default();
        ListenerStatus {
            name: draft_listener.name.clone(),
            supported_kinds: Some(draft_listener.supported_kinds.clone()),
            attached_routes: draft_listener.attached_routes,
            conditions: conditions(old, &draft_listener.conditions, draft.generation, now),
        }
    };
    let status = GatewayStatus {
        addresses: (!draft.addresses.is_empty()).then(|| draft.addresses.clone()),
        attached_listener_sets: Some(draft.attached_sets),
        conditions: Some(conditions(old, &draft.conditions, draft.generation, now)),
        listeners: Some(draft.listeners.iter().map(listener).collect()),
    };
    (present != Some(&status)).then_some(status)
}

/// Status of a ListenerSet.
pub fn listener_set(
    present: Option<&ListenerSetStatus>,
    draft: &ListenerSetDraft,
    now: &Time,
) -> Option<ListenerSetStatus> {
    let old = present.and_then(|present| present.conditions.as_deref()).unwrap_or_default();
    let old_listeners = present.and_then(|present| present.listeners.as_deref()).unwrap_or_default();
    let listener = |draft_listener: &ListenerDraft| {
        let old = old_listeners.iter().find(|old| old.name == draft_listener.name);
        let old = old.map(|old| &*old.conditions).unwrap_or_default();
        let kinds = draft_listener.supported_kinds.iter();
        listener_set::ListenerStatus {
            name: draft_listener.name.clone(),
            supported_kinds: Some(
                kinds
                    .map(|kind| listener_set::SupportedKind {
                        group: kind.group.clone(),
                        kind: kind.kind.clone(),
                    })
                    .collect(),
            ),
            attached_routes: draft_listener.attached_routes,
            conditions: conditions(old, &draft_listener.conditions, draft.generation, now),
        }
    };
    let status = ListenerSetStatus {
        conditions: Some(conditions(old, &draft.conditions, draft.generation, now)),
        listeners: Some(draft.listeners.iter().map(listener).collect()),
    };
    (present != Some(&status)).then_some(status)
}

/// Status of a route of any kind. Entries of other controllers stay where they are.
pub fn route(
    present: Option<&RouteStatus>,
    draft: &RouteDraft,
    controller_name: &str,
    now: &Time,
) -> Option<RouteStatus> {
    let old = present.map(|present| &*present.parents).unwrap_or_default();
    let mut left: Vec<_> = draft.parents.iter().collect();
    let mut parents = Vec::with_capacity(old.len());
    for entry in old {
        if entry.controller_name != controller_name {
            parents.push(entry.clone());
        } else if let Some(at) = left.iter().position(|parent| parent.parent == entry.parent_ref) {
            let parent = left.remove(at);
            let conditions = conditions(&entry.conditions, &parent.conditions, draft.generation, now);
            parents.push(ParentStatus { conditions, ..entry.clone() });
        }
    }
    parents.extend(left.into_iter().map(|parent| ParentStatus {
        conditions: conditions(&[], &parent.conditions, draft.generation, now),
        controller_name: controller_name.to_owned(),
        parent_ref: parent.parent.clone(),
    }));
    (parents != old).then_some(RouteStatus { parents })
}

/// Status of a policy of any kind. Entries of other controllers stay where they are.
pub fn policy(
    present: Option<&PolicyStatus>,
    draft: &PolicyDraft,
    controller_name: &str,
    now: &Time,
) -> Option<PolicyStatus> {
    let old = present.map(|present| &*present.ancestors).unwrap_or_default();
    let mut left: Vec<_> = draft.ancestors.iter().collect();
    let mut ancestors = Vec::with_capacity(old.len());
    for entry in old {
        if entry.controller_name != controller_name {
            ancestors.push(entry.clone());
        } else if let Some(at) = left.iter().position(|ancestor| ancestor.reference == entry.ancestor_ref) {
            let ancestor = left.remove(at);
            let conditions = conditions(&entry.conditions, &ancestor.conditions, draft.generation, now);
            ancestors.push(AncestorStatus { conditions, ..entry.clone() });
        }
    }
    let room = MAX_ANCESTORS.saturating_sub(ancestors.len());
    ancestors.extend(left.into_iter().take(room).map(|ancestor| AncestorStatus {
        ancestor_ref: ancestor.reference.clone(),
        conditions: conditions(&[], &ancestor.conditions, draft.generation, now),
        controller_name: controller_name.to_owned(),
    }));
    (ancestors != old).then_some(PolicyStatus { ancestors })
}

/// Status of a Service: all of its conditions, and nothing else, which stays as it is. Without a draft those of ours go.
pub fn service(present: &Service, draft: Option<&ServiceDraft>, now: &Time) -> Option<ServiceStatus> {
    let old = present.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    // Words of the Gateway API aren't ours here.
    let (ours, others): (Vec<_>, Vec<_>) =
        old.iter().cloned().partition(|condition| condition.type_.starts_with(headgate_crds::GROUP));
    let drafts = draft.map(|draft| &*draft.conditions).unwrap_or_default();
    let mut merged = conditions(&ours, drafts, present.metadata.generation.unwrap_or_default(), now);
    (merged != ours).then(|| {
        merged.extend(others);
        ServiceStatus { conditions: Some(merged), ..ServiceStatus::default() }
    })
}

fn conditions(present: &[Condition], drafts: &[Draft], generation: i64, now: &Time) -> Vec<Condition> {
    let ours =
        |condition: &&Condition| ConditionType::ALL.iter().any(|kind| kind.as_str() == condition.type_);
    let foreign = present.iter().filter(|condition| !ours(condition)).cloned();
    let of_draft = |draft: &Draft| {
        let status = if draft.status { "True" } else { "False" };
        let before = present.iter().find(|condition| condition.type_ == draft.kind.as_str());
        let since =
            before.filter(|before| before.status == status).map(|before| &before.last_transition_time);
        Condition {
            type_: draft.kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: draft.reason.as_str().to_owned(),
            message: draft.message.to_string(),
            observed_generation: Some(generation),
            last_transition_time: since.unwrap_or(now).clone(),
        }
    };
    // As they lie in the object, where they do: another order is no reason to write.
    let mut merged: Vec<Condition> = drafts.iter().map(of_draft).chain(foreign).collect();
    let place = |condition: &Condition| {
        present.iter().position(|before| before.type_ == condition.type_).unwrap_or(usize::MAX)
    };
    merged.sort_by_key(place);
    merged
}

#[cfg(test)]
mod tests;
