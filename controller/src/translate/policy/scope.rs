//! What holds for a rule of a route by each of its listeners, and what became of the policies that have a say in it.

use super::merge::{Level, Path, Refused};
use super::{Attached, Came, KINDS, levels_of};
use crate::api::http_route::BackendRef;
use crate::cluster::Kind;
use crate::translate::backend_ref::resolve;
use crate::translate::lookup::Lookup;
use headgate_proxy::model::{
    self, AuthMethod, Backend, BackendId, Guard, ListenerId, ObjectName, ScopedPolicies, ThinVec,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What became of a policy for one rule: for its status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::translate) struct Note {
    pub(super) policy: (Kind, ObjectName),
    pub(super) gateway: ObjectName,
    pub(super) what: Became,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Became {
    InForce,
    Refused(Path, ObjectName),
    /// A reference to a backend leads nowhere.
    Unresolved(String),
    Incomplete(String),
}

/// The rule that policies are merged for.
pub(super) struct At<'a> {
    pub(super) kind: Kind,
    pub(super) route: &'a ObjectName,
    /// The rule's name, else its position.
    pub(super) rule: &'a str,
}

/// What is attached to a Gateway, and to the ListenerSet that declares the listener.
type OfListener = [Option<Arc<Attached>>; 2];

/// What is attached to the listeners of a route and to itself, by kind of policy.
pub(in crate::translate) struct Above {
    kind: Kind,
    name: ObjectName,
    listeners: Vec<(ListenerId, Vec<OfListener>)>,
    own: Vec<Option<Arc<Attached>>>,
    /// What became of policies.
    pub(in crate::translate) notes: BTreeSet<Note>,
}

impl Above {
    /// Looks up what governs a route by these listeners.
    pub(in crate::translate) fn of(
        lookup: &mut Lookup<'_>,
        kind: Kind,
        name: &ObjectName,
        listeners: &[ListenerId],
    ) -> Self {
        let mut of_listener = |listener: &ListenerId| {
            let of_kind = |policy| {
                let gateway = lookup.attached(policy, (Kind::Gateway, listener.gateway.clone()));
                let set = listener.listener_set.clone().map(|set| (Kind::ListenerSet, set));
                [gateway, set.and_then(|set| lookup.attached(policy, set))]
            };
            (listener.clone(), KINDS.iter().map(|merging| merging.kind).map(of_kind).collect())
        };
        let above = listeners.iter().map(&mut of_listener).collect();
        let own = KINDS.iter().map(|policy| lookup.attached(policy.kind, (kind, name.clone()))).collect();
        Self { kind, name: name.clone(), listeners: above, own, notes: BTreeSet::new() }
    }

    /// Whether there is no policy at all.
    fn is_empty(&self) -> bool {
        let above = self.listeners.iter().flat_map(|(_, kinds)| kinds.iter().flatten());
        above.chain(&self.own).all(Option::is_none)
    }

    /// The policies of a kind that hold for a rule by a listener, the least specific first.
    fn levels(&self, kind: usize, listener: usize, rule: Option<&str>) -> Vec<&Level> {
        let (id, above) = &self.listeners[listener];
        let [gateway, set] = &above[kind];
        // The section of a listener is its declarer's.
        let (of_gateway, of_set) = match id.listener_set {
            None => (Some(&*id.name), None),
            Some(_) => (None, Some(&*id.name)),
        };
        let parts = [(gateway, of_gateway), (set, of_set), (&self.own[kind], rule)];
        levels_of(parts.map(|(attached, section)| (attached.as_deref(), section)))
    }

    /// What holds for the `n`th rule, by listener.
    pub(in crate::translate) fn scoped(
        &mut self,
        lookup: &mut Lookup<'_>,
        backends: &mut Vec<Arc<Backend>>,
        n: usize,
        rule: Option<&str>,
    ) -> ThinVec<ScopedPolicies> {
        let mut scoped = ThinVec::<ScopedPolicies>::new();
        if self.is_empty() {
            return scoped;
        }
        for m in 0..self.listeners.len() {
            let (mut policies, mut notes) = self.of_listener(m, n, rule);
            if let Err((policy, why)) = find_authorizers(lookup, backends, &mut policies) {
                let gateway = self.listeners[m].0.gateway.clone();
                let what = Became::Unresolved(why);
                notes.push(Note { policy: (Kind::AuthPolicy, policy), gateway, what });
            }
            self.notes.extend(notes);
            if policies == model::Policies::default() {
                continue;
            }
            let listener = self.listeners[m].0.clone();
            match scoped.iter_mut().find(|known| *known.policies == policies) {
                Some(known) => known.listeners.push(listener),
                None => {
                    scoped.push(ScopedPolicies { listeners: vec![listener], policies: Arc::new(policies) })
                }
            }
        }
        scoped
    }

    fn of_listener(&self, listener: usize, n: usize, rule: Option<&str>) -> (model::Policies, Vec<Note>) {
        let (mut policies, mut notes) = (model::Policies::default(), Vec::new());
        let position = n.to_string();
        let at = At { kind: self.kind, route: &self.name, rule: rule.unwrap_or(&position) };
        for (k, merging) in KINDS.iter().enumerate() {
            let levels = self.levels(k, listener, rule);
            let came = Came::of(&merging.shape, &levels);
            let sources = levels.iter().flat_map(|level| &level.sources);
            let is_tried =
                |policy: &ObjectName| sources.clone().any(|source| source.shadow && source.name == *policy);
            let mut note = |policy: &ObjectName, what| notes.push(((merging.kind, policy.clone()), what));
            for (policy, why) in (merging.put)(&came, &at, &mut policies) {
                note(&policy, Became::Incomplete(why));
            }
            let tried = came.tried.fields.iter().filter(|(_, field)| is_tried(&field.policy));
            for (_, field) in came.enforced.fields.iter().chain(tried).filter(|(path, _)| !path.is_mode()) {
                note(&field.policy, Became::InForce);
            }
            let tried = came.tried.refused.iter().filter(|refused| is_tried(&refused.loser));
            for Refused { loser, path, winner } in came.enforced.refused.iter().chain(tried) {
                note(loser, Became::Refused(path.clone(), winner.clone()));
            }
        }
        let gateway = &self.listeners[listener].0.gateway;
        let note = |(policy, what)| Note { policy, gateway: gateway.clone(), what };
        let notes = notes.into_iter().map(note).collect();
        (policies, notes)
    }
}

/// Finds those whom authenticators ask. Where one isn't there, nobody passes: whose policy it is, and why.
fn find_authorizers(
    lookup: &mut Lookup<'_>,
    backends: &mut Vec<Arc<Backend>>,
    policies: &mut model::Policies,
) -> Result<(), (ObjectName, String)> {
    let Some(Guard::Auth(auth)) = &policies.guard else { return Ok(()) };
    let mut missing = None;
    for authenticator in &auth.authenticators {
        let external = match &authenticator.method {
            AuthMethod::External(external) => external,
            AuthMethod::Jwt(_)
            | AuthMethod::ApiKey(_)
            | AuthMethod::Basic(_)
            | AuthMethod::ClientCertificate(_)
            | AuthMethod::Oidc(_) => continue,
        };
        let BackendId { name, port, .. } = external.backend();
        let policy = &external.policy;
        let reference = BackendRef {
            name: name.name.to_string(),
            namespace: Some(name.namespace.to_string()),
            port: Some((*port).into()),
            ..BackendRef::default()
        };
        match resolve(lookup, Kind::AuthPolicy.name(), &policy.namespace, &reference) {
            Ok(backend) if backends.iter().any(|known| known.id == backend.id) => {}
            Ok(backend) => backends.push(Arc::new(backend)),
            Err(refused) => {
                let field = format!("spec.authenticators.{}.external.backendRef", authenticator.name);
                let why =
                    format!("{field}: {}; what it is for is closed: requests are answered 500", refused.why);
                missing.get_or_insert((policy.clone(), why));
            }
        }
    }
    let Some(missing) = missing else { return Ok(()) };
    policies.guard = Some(Guard::Closed { policy: missing.0.clone() });
    Err(missing)
}
