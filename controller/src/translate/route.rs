//! What translating is for routes of every kind: parents, conditions, and what becomes of both.
//!
//! A kind of route is a module beside this one: it turns rules into the model's, and notes what is wrong in [`Problems`].

use super::attach::{Wanting, attach, parent_name};
use super::lookup::Lookup;
use super::policy::Note;
use crate::api::route::{ParentRef, Route};
use crate::status::{ConditionType, Draft, ParentDraft, Reason, RouteDraft};
use headgate_proxy::model::{self, Backend, HostPattern, ListenerId, ObjectName, ThinVec};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a route comes to.
#[derive(Debug)]
pub(super) struct Translated {
    /// For the proxy; `None` when no listener takes it.
    pub(super) route: Option<Routed>,
    /// Backends that it forwards to.
    pub(super) backends: Vec<Arc<Backend>>,
    /// Listeners that accepted it.
    pub(super) attached: Arc<[ListenerId]>,
    /// What its parents say.
    pub(super) draft: Arc<RouteDraft>,
    /// What became of the policies that govern it.
    pub(super) notes: BTreeSet<Note>,
}

/// A route for the proxy.
#[derive(Clone, Debug)]
pub(super) enum Routed {
    /// Request by request.
    Http(Arc<model::Route>),
    /// As a whole.
    Stream(Arc<model::StreamRoute>),
}

/// What is wrong with the route itself, whatever its parents say.
#[derive(Default)]
pub(super) struct Problems {
    /// Rules that can't be honoured.
    pub(super) dropped: Vec<(Reason, String)>,
    /// Fields that are passed over.
    pub(super) ignored: Vec<String>,
    /// References that can't be followed.
    pub(super) unresolved: Vec<(Reason, String)>,
}

/// Whether a parent takes the route, or why not.
type Outcome = Result<(), (Reason, String)>;

/// What the parents of a route say.
pub(super) struct Parents {
    outcomes: Vec<(ParentRef, Outcome)>,
    /// Listeners that take it, sorted.
    pub(super) attached: Arc<[ListenerId]>,
    /// As written; never empty.
    pub(super) hostnames: ThinVec<HostPattern>,
    generation: i64,
}

impl Parents {
    /// Asks all parents of ours.
    pub(super) fn of<K: Route>(lookup: &mut Lookup<'_>, name: &ObjectName, route: &K) -> Self {
        let mut hostnames: ThinVec<_> =
            route.hostnames().iter().map(|hostname| HostPattern::parse(hostname)).collect();
        if hostnames.is_empty() {
            hostnames.push(HostPattern::Any);
        }
        let (mut attached, mut outcomes) = (Vec::new(), Vec::new());
        for parent in route.parent_refs() {
            let found = parent_name(&parent, &name.namespace).and_then(|parent| lookup.parent(&parent));
            let Some(found) = found else { continue };
            let wanting = Wanting { kind: K::KIND.name(), namespace: &name.namespace, hostnames: &hostnames };
            let outcome = attach(lookup, found, &parent, &wanting);
            attached.extend(outcome.iter().flatten().cloned());
            outcomes.push((parent, outcome.map(drop)));
        }
        attached.sort();
        attached.dedup();
        let generation = route.meta().generation.unwrap_or_default();
        Self { outcomes, attached: lookup.shared(attached), hostnames, generation }
    }

    /// Whether none is ours.
    pub(super) fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// What the route is told. `none_left`: nothing of it can be honoured.
    pub(super) fn draft(self, none_left: bool, problems: &Problems) -> RouteDraft {
        let parents = self.outcomes.into_iter().map(|(parent, outcome)| ParentDraft {
            parent,
            conditions: conditions(outcome, none_left, problems),
        });
        let mut parents: Vec<_> = parents.collect();
        // Made in the place of the outcomes, which are larger.
        parents.shrink_to_fit();
        RouteDraft { generation: self.generation, parents }
    }
}

impl Translated {
    /// A route without parents of ours: nobody here serves it or speaks to it.
    pub(super) fn nothing(parents: Parents) -> Self {
        let draft = Arc::new(parents.draft(false, &Problems::default()));
        Self { route: None, backends: Vec::new(), attached: Arc::default(), draft, notes: BTreeSet::new() }
    }
}

/// When an object was made, in seconds since the Unix epoch.
pub(super) fn created<K: Route>(route: &K) -> i64 {
    route.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

fn conditions(attached: Outcome, none_left: bool, problems: &Problems) -> Vec<Draft> {
    let accepted = match (attached, problems.dropped.first()) {
        (Err((reason, why)), _) => Draft::new(ConditionType::Accepted, false, reason, why),
        (Ok(()), Some((reason, why))) if none_left => {
            Draft::new(ConditionType::Accepted, false, *reason, why.clone())
        }
        (Ok(()), _) => Draft::new(ConditionType::Accepted, true, Reason::Accepted, "the route is attached"),
    };
    let resolved = match problems.unresolved.first() {
        None => {
            Draft::new(ConditionType::ResolvedRefs, true, Reason::ResolvedRefs, "all references are resolved")
        }
        Some((reason, _)) => {
            let all: Vec<_> = problems.unresolved.iter().map(|(_, why)| why.as_str()).collect();
            Draft::new(ConditionType::ResolvedRefs, false, *reason, all.join("; "))
        }
    };
    let mut conditions = vec![accepted, resolved];
    // The wording is the API's (PartiallyInvalid): which rules are dropped, and what is done instead.
    if !none_left && (!problems.dropped.is_empty() || !problems.ignored.is_empty()) {
        let dropped = problems.dropped.iter().map(|(_, why)| format!("Dropped Rule: {why}"));
        let ignored = problems.ignored.iter().map(|why| format!("Fall Back: {why}"));
        let all: Vec<_> = dropped.chain(ignored).collect();
        let reason = problems.dropped.first().map_or(Reason::UnsupportedValue, |(reason, _)| *reason);
        conditions.push(Draft::new(ConditionType::PartiallyInvalid, true, reason, all.join("; ")));
    }
    conditions
}
