//! What objects are told about themselves.
//!
//! Translation says it as drafts: conditions without times, and without what others wrote. [`merge`] puts a draft over the
//! status that is there, so that entries and condition types of others stay as they are, and times change only with the
//! condition. The words are those of the Gateway API.

pub mod merge;
mod render;
mod words;

pub use render::render;
pub use words::{ConditionType, Reason};

use crate::api::gateway::{StatusAddress, SupportedKind};
use crate::api::policy::AncestorRef;
use crate::api::route::ParentRef;
use crate::cluster::Kind;
use headgate_proxy::model::{ObjectName, Sorted};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A condition without times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its type.
    pub kind: ConditionType,
    /// `True` or `False`.
    pub status: bool,
    /// A word of the specification.
    pub reason: Reason,
    /// For people: what is wrong, in which field, and the cure.
    pub message: Cow<'static, str>,
}

impl Draft {
    /// A condition.
    pub fn new(
        kind: ConditionType,
        status: bool,
        reason: Reason,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// What all objects of ours are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses {
    /// GatewayClasses that are ours.
    pub gateway_classes: BTreeMap<ObjectName, Arc<ClassDraft>>,
    /// Gateways of those.
    pub gateways: BTreeMap<ObjectName, Arc<GatewayDraft>>,
    /// ListenerSets of those.
    pub listener_sets: BTreeMap<ObjectName, Arc<ListenerSetDraft>>,
    /// All routes, of every kind: one that left us has no parents of ours, and an old status that says so.
    pub routes: Sorted<(Kind, ObjectName), RouteDraft>,
    /// All policies, of every kind: one that no Gateway of ours uses has no ancestors of ours.
    pub policies: Sorted<(Kind, ObjectName), PolicyDraft>,
    /// Services that policies are for: others are told nothing.
    pub services: BTreeMap<ObjectName, Arc<ServiceDraft>>,
}

impl Statuses {
    /// The objects that `new` tells something else, something at all, or nothing any more.
    pub fn changes(&self, new: &Self) -> BTreeSet<(Kind, ObjectName)> {
        fn of<T: PartialEq>(
            kind: Kind,
            old: &BTreeMap<ObjectName, Arc<T>>,
            new: &BTreeMap<ObjectName, Arc<T>>,
        ) -> Vec<(Kind, ObjectName)> {
            let differ = old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name));
            differ.map(|name| (kind, name.clone())).collect()
        }
        of(Kind::GatewayClass, &self.gateway_classes, &new.gateway_classes)
            .into_iter()
            .chain(of(Kind::Gateway, &self.gateways, &new.gateways))
            .chain(of(Kind::ListenerSet, &self.listener_sets, &new.listener_sets))
            .chain(of(Kind::Service, &self.services, &new.services))
            .chain(self.routes.changes(&new.routes).map(|(id, ..)| id.clone()))
            .chain(self.policies.changes(&new.policies).map(|(id, ..)| id.clone()))
            .collect()
    }
}

/// Status of a GatewayClass.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassDraft {
    /// The generation that it describes.
    pub generation: i64,
    /// Its conditions.
    pub conditions: Vec<Draft>,
    /// Sorted.
    pub features: Vec<String>,
}

/// Status of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayDraft {
    /// The generation that it describes.
    pub generation: i64,
    /// Its conditions.
    pub conditions: Vec<Draft>,
    /// Where clients reach it.
    pub addresses: Vec<StatusAddress>,
    /// In the order of the specification.
    pub listeners: Vec<ListenerDraft>,
    /// ListenerSets with a valid listener.
    pub attached_sets: i32,
}

/// Status of a ListenerSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSetDraft {
    /// The generation that it describes.
    pub generation: i64,
    /// Its conditions.
    pub conditions: Vec<Draft>,
    /// In the order of the specification.
    pub listeners: Vec<ListenerDraft>,
}

/// Status of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerDraft {
    /// Its name.
    pub name: String,
    /// Kinds of route that may attach.
    pub supported_kinds: Vec<SupportedKind>,
    /// Routes that did.
    pub attached_routes: i32,
    /// Its conditions.
    pub conditions: Vec<Draft>,
}

/// Status of a route: one entry per `parentRef` that names a Gateway of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteDraft {
    /// The generation that it describes.
    pub generation: i64,
    /// Entries of ours.
    pub parents: Vec<ParentDraft>,
}

/// What a route is told about one parent.
#[derive(Clone, Debug, PartialEq)]
pub struct ParentDraft {
    /// As the route has it.
    pub parent: ParentRef,
    /// Its conditions.
    pub conditions: Vec<Draft>,
}

/// Status of a policy: one entry per Gateway of ours that it has an effect on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyDraft {
    /// The generation that it describes.
    pub generation: i64,
    /// Entries of ours, by what they are about.
    pub ancestors: Vec<AncestorDraft>,
}

/// Status of a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceDraft {
    /// Which policies it has.
    pub conditions: Vec<Draft>,
}

impl AncestorDraft {
    /// About a Gateway.
    pub fn of_gateway(gateway: &ObjectName, conditions: Vec<Draft>) -> Self {
        let reference = AncestorRef {
            group: Some(crate::api::GROUP.to_owned()),
            kind: Some("Gateway".to_owned()),
            namespace: Some(gateway.namespace.to_string()),
            name: gateway.name.to_string(),
            ..AncestorRef::default()
        };
        Self { reference, conditions }
    }
}

/// What a policy is told about one Gateway, or about a target that isn't there.
#[derive(Clone, Debug, PartialEq)]
pub struct AncestorDraft {
    /// The Gateway or target.
    pub reference: AncestorRef,
    /// The policy's conditions.
    pub conditions: Vec<Draft>,
}
