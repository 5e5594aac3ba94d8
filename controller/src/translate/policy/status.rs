//! What policies are told, and what their targets are told of them.
//!
//! An ancestor is a Gateway that a target belongs to; a target that isn't there is its own.

use super::merge::Refused;
use super::scope::Became;
use super::{AFFECTING, Judged, Missing, Note, Policies, TargetId};
use crate::api::policy::AncestorRef;
use crate::cluster::Kind;
use crate::status::{AncestorDraft, ConditionType, Draft, GatewayDraft, ListenerDraft, ListenerSetDraft};
use crate::status::{PolicyDraft, Reason, RouteDraft, ServiceDraft};
use crate::translate::attach::ParentName;
use crate::translate::lookup::Views;
use crate::translate::tally::Tally;
use headgate_proxy::model::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What holds while a policy that guards can't be honoured.
const CLOSED: &str = "what it is for is closed until then: requests are answered 500";

/// What routes tell of policies.
#[derive(Clone, Debug, Default)]
pub(in crate::translate) struct Notes {
    /// The Gateways that forward to each Service that policies may be for.
    gateways: BTreeMap<TargetId, BTreeSet<ObjectName>>,
    /// What became of each policy by each Gateway, and how many said so.
    became: BTreeMap<((Kind, ObjectName), ObjectName), BTreeMap<Became, usize>>,
}

impl Notes {
    /// Takes note of the Gateways that a target belongs to.
    pub(super) fn belongs<'a>(&mut self, target: TargetId, gateways: impl Iterator<Item = &'a ObjectName>) {
        self.gateways.entry(target).or_default().extend(gateways.cloned());
    }

    /// Takes note of what became of a policy.
    pub(in crate::translate) fn note(&mut self, note: Note) {
        let Note { policy, gateway, what } = note;
        *self.became.entry((policy, gateway)).or_default().entry(what).or_default() += 1;
    }

    /// Takes one back.
    pub(in crate::translate) fn take_back(&mut self, note: &Note) {
        let id = (note.policy.clone(), note.gateway.clone());
        let Some(became) = self.became.get_mut(&id) else { return };
        if let Some(count) = became.get_mut(&note.what) {
            *count -= 1;
            if *count == 0 {
                became.remove(&note.what);
            }
        }
        if became.is_empty() {
            self.became.remove(&id);
        }
    }
}

impl Policies {
    /// What each policy is told. `routes` has the Gateways of routes.
    pub(in crate::translate) fn drafts(
        &self,
        views: &Views,
        routes: &Tally,
        told: &Notes,
    ) -> BTreeMap<(Kind, ObjectName), Arc<PolicyDraft>> {
        let draft = |(id, judged): (&(Kind, ObjectName), &Judged)| {
            let gateways: BTreeSet<ObjectName> =
                judged.targets.iter().flat_map(|target| gateways(views, routes, told, target)).collect();
            let missing = judged.missing.iter().map(|(target, why)| {
                let (reason, why) = match why {
                    Missing::NotFound(why, _) => (Reason::TargetNotFound, why),
                    Missing::Unsupported(why) => (Reason::Invalid, why),
                };
                let reference = AncestorRef {
                    group: Some(target.group.clone()),
                    kind: Some(target.kind.clone()),
                    namespace: Some(id.1.namespace.to_string()),
                    name: target.name.clone(),
                    section_name: target.section_name.clone(),
                    ..AncestorRef::default()
                };
                let accepted = Draft::new(ConditionType::Accepted, false, reason, why.clone());
                AncestorDraft { reference, conditions: vec![accepted] }
            });
            let found = gateways.iter().map(|gateway| {
                let became = told.became.get(&(id.clone(), gateway.clone()));
                let conditions = vec![judged.accepted(), judged.resolved(became), judged.programmed(became)];
                AncestorDraft::of_gateway(gateway, conditions)
            });
            let ancestors = found.chain(missing).collect();
            (id.clone(), Arc::new(PolicyDraft { generation: judged.generation, ancestors }))
        };
        self.judged.iter().map(draft).collect()
    }

    /// Tells a Gateway and its listeners which policies they have.
    pub(in crate::translate) fn affect_gateway(&self, name: &ObjectName, draft: &mut GatewayDraft) {
        let target = (Kind::Gateway, name.clone());
        draft.conditions.extend(self.affected(&target, None));
        self.affect_listeners(&target, &mut draft.listeners);
    }

    /// Tells a ListenerSet and its listeners.
    pub(in crate::translate) fn affect_set(&self, name: &ObjectName, draft: &mut ListenerSetDraft) {
        let target = (Kind::ListenerSet, name.clone());
        draft.conditions.extend(self.affected(&target, None));
        self.affect_listeners(&target, &mut draft.listeners);
    }

    fn affect_listeners(&self, target: &TargetId, listeners: &mut [ListenerDraft]) {
        for listener in listeners {
            let affected = self.affected(target, Some(&listener.name));
            listener.conditions.extend(affected);
        }
    }

    /// Tells a route, through each parent, of its policies and those of its rules.
    pub(in crate::translate) fn affect_route(&self, target: &TargetId, draft: &mut Arc<RouteDraft>) {
        for (kind, affected) in AFFECTING {
            if let Some(attached) = self.attached.get(&(kind, target.clone()))
                && let Some(affected) = condition(kind, affected, attached.all_names())
            {
                for parent in &mut Arc::make_mut(draft).parents {
                    parent.conditions.push(affected.clone());
                }
            }
        }
    }

    /// What Services are told of their policies and those of their ports, whoever forwards to them: all who install this say
    /// the same of a Service.
    pub(in crate::translate) fn affected_services(&self) -> BTreeMap<ObjectName, Arc<ServiceDraft>> {
        let mut services = BTreeMap::<ObjectName, ServiceDraft>::new();
        for (kind, affected) in AFFECTING {
            for ((of, (target, name)), attached) in &self.attached {
                if (*of, *target) == (kind, Kind::Service) {
                    let told = condition(kind, affected, attached.all_names());
                    services.entry(name.clone()).or_default().conditions.extend(told);
                }
            }
        }
        services.into_iter().map(|(name, draft)| (name, Arc::new(draft))).collect()
    }

    fn affected(&self, target: &TargetId, section: Option<&str>) -> Vec<Draft> {
        let of_kind = |(kind, affected)| {
            let attached = self.attached.get(&(kind, target.clone()))?;
            condition(kind, affected, attached.names(section))
        };
        AFFECTING.into_iter().filter_map(of_kind).collect()
    }
}

fn condition(kind: Kind, affected: ConditionType, policies: BTreeSet<&ObjectName>) -> Option<Draft> {
    let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
    let said = format!("{kind} {}", names.join(", "));
    (!names.is_empty()).then(|| Draft::new(affected, true, Reason::PolicyAttached, said))
}

/// The Gateways of ours that a target belongs to.
fn gateways(views: &Views, routes: &Tally, told: &Notes, target: &TargetId) -> BTreeSet<ObjectName> {
    let (kind, name) = target;
    let found = match kind {
        Kind::Gateway => views.get(&ParentName::Gateway(name.clone())).map(|_| [name.clone()].into()),
        Kind::ListenerSet => views
            .get(&ParentName::ListenerSet(name.clone()))
            .map(|view| view.listeners.iter().map(|listener| listener.id.gateway.clone()).collect()),
        Kind::HttpRoute | Kind::GrpcRoute => Some(routes.gateways(target)),
        Kind::Service => told.gateways.get(target).cloned(),
        Kind::GatewayClass
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::UdpRoute
        | Kind::BackendTlsPolicy
        | Kind::RateLimitPolicy
        | Kind::CircuitBreakerPolicy
        | Kind::AuthPolicy
        | Kind::XBackend
        | Kind::XBackendTrafficPolicy
        | Kind::ClientPolicy
        | Kind::ReferenceGrant
        | Kind::Namespace
        | Kind::EndpointSlice
        | Kind::Secret
        | Kind::ConfigMap
        | Kind::ClusterTrustBundle
        | Kind::GatewayParameters
        | Kind::Pod
        | Kind::Node => None,
    };
    found.unwrap_or_default()
}

impl Judged {
    fn accepted(&self) -> Draft {
        const REST: &str = "the rest of it is in force";
        let no = |reason, why: String| Draft::new(ConditionType::Accepted, false, reason, why);
        if !self.invalid.is_empty() {
            let rest = if self.guards { CLOSED } else { REST };
            return no(Reason::Invalid, format!("{}; {rest}", self.invalid.join("; ")));
        }
        if !self.conflicts.is_empty() {
            let of =
                |conflict: &Refused| format!("{} is as {} has it", conflict.path.said(), conflict.winner);
            let conflicts: Vec<String> = self.conflicts.iter().map(of).collect();
            let why = "an older policy, or one that is first by name, has the same target";
            return no(Reason::Conflicted, format!("{why}: {}; {REST}", conflicts.join("; ")));
        }
        Draft::new(ConditionType::Accepted, true, Reason::Accepted, "the policy is attached")
    }

    fn resolved(&self, became: Option<&BTreeMap<Became, usize>>) -> Draft {
        let no = |why| Draft::new(ConditionType::ResolvedRefs, false, Reason::InvalidReference, why);
        if !self.unresolved.is_empty() {
            let rest = if self.guards { format!("; {CLOSED}") } else { String::new() };
            return no(format!("{}{rest}", self.unresolved.join("; ")));
        }
        let of = |note: &Became| match note {
            Became::Unresolved(why) => Some(why.clone()),
            Became::InForce | Became::Refused(..) | Became::Incomplete(_) => None,
        };
        let backends: Vec<String> = became.into_iter().flat_map(BTreeMap::keys).filter_map(of).collect();
        if !backends.is_empty() {
            return no(backends.join("; "));
        }
        let why = "all references are resolved";
        Draft::new(ConditionType::ResolvedRefs, true, Reason::ResolvedRefs, why)
    }

    fn programmed(&self, became: Option<&BTreeMap<Became, usize>>) -> Draft {
        let in_force = became.is_some_and(|became| became.contains_key(&Became::InForce));
        let missing: Vec<String> = became
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter_map(|note| match note {
                Became::InForce => None,
                Became::Refused(path, _) if path.is_mode() => None,
                Became::Refused(path, winner) => {
                    Some(format!("{path} is as {winner} has it, whose strategy is Override"))
                }
                Became::Unresolved(why) | Became::Incomplete(why) => Some(why.clone()),
            })
            .collect();
        let not = |reason, why: String| Draft::new(ConditionType::Programmed, false, reason, why);
        if self.guards && !(self.invalid.is_empty() && self.unresolved.is_empty()) {
            return not(Reason::Invalid, CLOSED.to_owned());
        }
        if !missing.is_empty() {
            let reason = if in_force { Reason::PartiallyProgrammed } else { Reason::Overridden };
            return not(reason, missing.join("; "));
        }
        if !self.invalid.is_empty() || !self.conflicts.is_empty() {
            return not(Reason::PartiallyProgrammed, "a part isn't accepted".to_owned());
        }
        let why = if in_force {
            "in force"
        } else {
            "in force, but no route has anything of it: none is there, or more specific policies replace it"
        };
        Draft::new(ConditionType::Programmed, true, Reason::Programmed, why)
    }
}
