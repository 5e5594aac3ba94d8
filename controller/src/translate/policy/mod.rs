//! Policies of Headgate's own that govern requests: what each kind is attached to, and what holds for a rule of a route.
//!
//! The same for all kinds: a kind is a module beside this one that implements [`Policy`]. [`Policies::of`] judges each
//! policy by itself and notes it down at its targets ([`Attached`]); [`scope`] merges what holds for a rule ([`mod@merge`]),
//! which is a part of translating the route; [`status`] says what became of each policy.

mod auth;
mod backends;
mod circuit_breaker;
mod client;
mod duration;
mod merge;
mod ports;
mod rate_limit;
mod resolve;
mod scope;
mod status;

pub(super) use backends::govern;
pub(super) use scope::{Above, Note};
pub(super) use status::Notes;

use crate::api::{GrpcRoute, HttpRoute};
use crate::cluster::{Cluster, Kind, Object, Packed, Store, Watched};
use crate::settings::Mode as Sources;
use crate::status::ConditionType;
use headgate_crds::policy::{Inheritance, Mode, Strategy, TargetRef};
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, ClientPolicy, RateLimitPolicy};
use headgate_proxy::model::{self, ObjectName, Text};
use k8s_openapi::api::core::v1::ServicePort;
use merge::{Level, Merged, Path, Refused, SHADOW, Shape, Source, merge};
use resolve::{Inputs, Resolver};
use scope::At;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A kind of policy.
trait Policy: Watched<Kept = Self> {
    /// How it is cut into fields.
    const SHAPE: Shape;
    /// What its targets are told by.
    const AFFECTED: ConditionType;
    /// Whether Services may be its targets, too.
    const OF_SERVICES: bool = false;
    /// Whether routes may; Gateways and ListenerSets always may.
    const OF_ROUTES: bool = true;
    /// Whether what it is for is closed while it can't be honoured whole.
    const GUARDS: bool = false;

    /// What all kinds have.
    fn common(&self) -> Common<'_>;

    /// What is merged: `spec` without what [`Policy::common`] has.
    fn fields(&self) -> Value;

    /// What of it can't be honoured, whatever it is merged with: which fields aren't taken, and why. What its references
    /// come to stays with the resolver.
    fn check(&self, name: &ObjectName, resolver: &mut Resolver<'_>) -> Vec<(Path, String)>;
}

/// A kind of policy for requests; others are for backends ([`backends`]).
trait OfRequests: Policy {
    /// Puts what policies came to into the model. What isn't in force: whose it is, and why.
    fn put(came: &Came, at: &At<'_>, policies: &mut model::Policies) -> Vec<(ObjectName, String)>;
}

/// What merging needs of a kind.
struct Merging {
    kind: Kind,
    shape: Shape,
    put: fn(&Came, &At<'_>, &mut model::Policies) -> Vec<(ObjectName, String)>,
}

/// What policies of a kind came to for a rule.
struct Came {
    /// Those that act.
    enforced: Merged,
    /// All of them, as if they all acted; nothing when all do. What `Shadow` policies have a hand in is watched beside
    /// what is enforced, and changes nothing of it.
    tried: Merged,
    /// All of them.
    sources: Vec<Arc<Source>>,
    /// One that guards, acts and is broken.
    broken: Option<ObjectName>,
}

impl Came {
    fn of(shape: &Shape, levels: &[&Level]) -> Self {
        let sources: Vec<_> = levels.iter().flat_map(|level| &level.sources).cloned().collect();
        let broken = sources.iter().find(|source| source.broken && !source.shadow);
        let broken = broken.map(|source| source.name.clone());
        let tried = match sources.iter().any(|source| source.shadow) {
            true => merge(shape, levels, |_| true),
            false => Merged::default(),
        };
        Self { enforced: merge(shape, levels, |source| !source.shadow), tried, sources, broken }
    }
}

const fn merging<K: OfRequests>() -> Merging {
    Merging { kind: K::KIND, shape: K::SHAPE, put: K::put }
}

/// All kinds of policy for requests.
const KINDS: [Merging; 3] =
    [merging::<RateLimitPolicy>(), merging::<AuthPolicy>(), merging::<ClientPolicy>()];

/// All kinds, and what their targets are told by.
const AFFECTING: [(Kind, ConditionType); 4] = [
    (AuthPolicy::KIND, AuthPolicy::AFFECTED),
    (RateLimitPolicy::KIND, RateLimitPolicy::AFFECTED),
    (CircuitBreakerPolicy::KIND, CircuitBreakerPolicy::AFFECTED),
    (ClientPolicy::KIND, ClientPolicy::AFFECTED),
];

/// What all kinds of policy have.
struct Common<'a> {
    target_refs: &'a [TargetRef],
    strategy: Option<Strategy>,
    mode: Option<Mode>,
}

/// What policies of a kind are attached to: a whole object.
type TargetId = (Kind, ObjectName);

/// The policies of a kind that are attached to an object: what routes see of them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Attached {
    whole: Option<Level>,
    sections: BTreeMap<Text, Level>,
}

/// A target that can't have policies.
#[derive(Clone, Debug, PartialEq)]
enum Missing {
    /// It isn't there; but the object is, where only its section isn't.
    NotFound(String, Option<TargetId>),
    /// It isn't a kind that has such policies.
    Unsupported(String),
}

/// A policy that was judged.
#[derive(Debug)]
struct Judged {
    generation: i64,
    /// Targets that are there.
    targets: BTreeSet<TargetId>,
    /// Others, by their position.
    missing: Vec<(TargetRef, Missing)>,
    /// Whether it closes what it is for while it can't be honoured whole.
    guards: bool,
    /// What can't be honoured.
    invalid: Vec<String>,
    /// References that can't be followed.
    unresolved: Vec<String>,
    /// What an older policy of the same target says otherwise.
    conflicts: BTreeSet<Refused>,
}

/// What a policy says by itself, remembered as long as it is the same object.
#[derive(Clone, Debug)]
struct Checked {
    object: Object,
    /// What else it depends on.
    inputs: Inputs,
    source: Arc<Source>,
    invalid: Vec<String>,
}

/// All policies of requests.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// By kind of policy and target.
    pub(super) attached: BTreeMap<(Kind, TargetId), Arc<Attached>>,
    judged: BTreeMap<(Kind, ObjectName), Judged>,
    checked: BTreeMap<(Kind, ObjectName), Checked>,
}

impl Policies {
    /// Judges those that exist. Targets whose policies say the same as `before` keep the same object.
    pub(super) fn of(cluster: &Cluster, mode: Sources, before: &Self) -> Self {
        let mut policies = Self::default();
        policies.add(cluster, mode, &cluster.rate_limit_policies, before);
        policies.add(cluster, mode, &cluster.circuit_breaker_policies, before);
        policies.add(cluster, mode, &cluster.auth_policies, before);
        policies.add(cluster, mode, &cluster.client_policies, before);
        for (id, attached) in &mut policies.attached {
            if let Some(same) = before.attached.get(id).filter(|same| *same == attached) {
                *attached = same.clone();
            }
        }
        policies
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.judged.is_empty()
    }

    /// Whether a policy that governs requests is attached to an object.
    pub(super) fn govern(&self, target: &TargetId) -> bool {
        let of = |kind| self.attached.contains_key(&(kind, target.clone()));
        // Most clusters have none.
        !self.attached.is_empty() && KINDS.iter().any(|policy| of(policy.kind))
    }

    /// The targets that have others than `before`.
    pub(super) fn retargeted(&self, before: &Self) -> BTreeSet<TargetId> {
        let all = self.attached.keys().chain(before.attached.keys());
        let same = |id: &(Kind, TargetId)| match (self.attached.get(id), before.attached.get(id)) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (Some(_), None) | (None, Some(_)) | (None, None) => false,
        };
        all.filter(|id| !same(id)).map(|(_, target)| target.clone()).collect()
    }

    fn add<K: Policy>(&mut self, cluster: &Cluster, mode: Sources, store: &Store<K>, before: &Self) {
        // The older first, then by name.
        let mut in_order: Vec<_> = store.iter().collect();
        in_order.sort_by_key(|(_, policy)| policy.meta().creation_timestamp.as_ref().map(|time| time.0));
        let mut attached = BTreeMap::<TargetId, Attached>::new();
        for (name, policy) in in_order {
            let id = (K::KIND, name.clone());
            let object = K::any(policy.clone());
            let known = before.checked.get(&id);
            let known = known.filter(|known| known.object.is(&object) && known.inputs.are_current(cluster));
            let checked = known
                .cloned()
                .unwrap_or_else(|| check(name, &**policy, object, Resolver::new(cluster, mode)));
            let mut judged = Judged {
                generation: policy.meta().generation.unwrap_or_default(),
                targets: BTreeSet::new(),
                missing: Vec::new(),
                guards: K::GUARDS && !checked.source.shadow,
                invalid: checked.invalid.clone(),
                unresolved: checked.source.resolved.unresolved.clone(),
                conflicts: BTreeSet::new(),
            };
            for target in policy.common().target_refs {
                match find::<K>(cluster, &name.namespace, target) {
                    Ok(found) => {
                        let place = attached.entry(found.clone()).or_default();
                        place.add(&found, target.section_name.as_deref(), &checked.source);
                        judged.targets.insert(found);
                    }
                    Err(why) => {
                        // What guarded a section that is gone guards all of the rest, whatever it is called now.
                        if let Missing::NotFound(_, Some(found)) = &why
                            && K::GUARDS
                        {
                            attached.entry(found.clone()).or_default().add(found, None, &checked.source);
                            judged.targets.insert(found.clone());
                        }
                        judged.missing.push((target.clone(), why));
                    }
                }
            }
            self.judged.insert(id.clone(), judged);
            self.checked.insert(id, checked);
        }
        for level in attached.values().flat_map(Attached::levels) {
            for conflict in level.conflicts() {
                if let Some(judged) = self.judged.get_mut(&(K::KIND, conflict.loser.clone())) {
                    judged.conflicts.insert(conflict);
                }
            }
        }
        let attached = attached.into_iter().map(|(target, all)| ((K::KIND, target), Arc::new(all)));
        self.attached.extend(attached);
    }
}

/// What is attached to these objects and their sections, the least specific first.
fn levels_of<'a, 'b>(
    parts: impl IntoIterator<Item = (Option<&'a Attached>, Option<&'b str>)>,
) -> Vec<&'a Level> {
    let levels = parts.into_iter().flat_map(|(attached, section)| {
        let whole = attached.and_then(|attached| attached.whole.as_ref());
        let part = attached.and_then(|attached| attached.sections.get(section?));
        whole.into_iter().chain(part)
    });
    levels.collect()
}

impl Attached {
    fn levels(&self) -> impl Iterator<Item = &Level> {
        self.whole.iter().chain(self.sections.values())
    }

    fn add(&mut self, (kind, name): &TargetId, section: Option<&str>, source: &Arc<Source>) {
        let level = |target: String| Level { target: target.into(), sources: Vec::new() };
        let level = match section {
            None => self.whole.get_or_insert_with(|| level(format!("{kind} {name}"))),
            Some(section) => self
                .sections
                .entry(section.into())
                .or_insert_with(|| level(format!("{kind} {name}/{section}"))),
        };
        // Named twice, it is there once.
        if !level.sources.iter().any(|known| known.name == source.name) {
            level.sources.push(source.clone());
        }
    }

    /// Policies that are attached to a section, or to the whole with all sections.
    pub(super) fn names(&self, section: Option<&str>) -> BTreeSet<&ObjectName> {
        let levels: Vec<&Level> = match section {
            Some(section) => self.sections.get(section).into_iter().collect(),
            None => self.whole.iter().collect(),
        };
        levels.into_iter().flat_map(|level| &level.sources).map(|source| &source.name).collect()
    }

    /// Policies that are attached to anything of it.
    pub(super) fn all_names(&self) -> BTreeSet<&ObjectName> {
        self.levels().flat_map(|level| &level.sources).map(|source| &source.name).collect()
    }
}

fn check<K: Policy>(name: &ObjectName, policy: &K, object: Object, mut resolver: Resolver<'_>) -> Checked {
    let common = policy.common();
    let (mode, shadow) = match common.mode.unwrap_or_default() {
        Mode::Enforce => ("Enforce", false),
        Mode::Shadow => (SHADOW, true),
    };
    let invalid = policy.check(name, &mut resolver);
    let (resolved, inputs) = resolver.finish();
    let broken = K::GUARDS && !(invalid.is_empty() && resolved.unresolved.is_empty());
    let mut fields = K::SHAPE.fields(policy.fields(), mode);
    fields.retain(|path, _| !invalid.iter().any(|(broken, _)| path.starts_with(broken)));
    let overrides = match common.strategy.unwrap_or_default().inheritance {
        Inheritance::Default => false,
        Inheritance::Override => true,
    };
    let source = Arc::new(Source { name: name.clone(), shadow, overrides, fields, resolved, broken });
    let invalid = invalid.into_iter().map(|(path, why)| format!("{path}: {why}")).collect();
    Checked { object, inputs, source, invalid }
}

/// The object that a target names, if it has the section that it names.
fn find<K: Policy>(cluster: &Cluster, namespace: &str, target: &TargetRef) -> Result<TargetId, Missing> {
    let name = ObjectName::new(namespace, target.name.as_str());
    let section = target.section_name.as_deref();
    let judge = |kind: Kind, there: Option<bool>, part: &str| match (there, section) {
        (None, _) => Err(Missing::NotFound(format!("{kind} {name} doesn't exist"), None)),
        (Some(false), Some(section)) => {
            let why = format!("{kind} {name} has no {part} named {section}");
            Err(Missing::NotFound(why, Some((kind, name.clone()))))
        }
        (Some(_), _) => Ok((kind, name.clone())),
    };
    let kind = match (target.group.as_str(), target.kind.as_str()) {
        (crate::api::GROUP, kind @ ("Gateway" | "ListenerSet")) => kind,
        (crate::api::GROUP, kind @ ("HTTPRoute" | "GRPCRoute")) if K::OF_ROUTES => kind,
        ("", "Service") if K::OF_SERVICES => "Service",
        _ => "",
    };
    match kind {
        "Gateway" => {
            let gateway = cluster.gateways.get(&name);
            let has = |section| gateway?.spec.listeners.iter().find(|one| Some(one.name.as_str()) == section);
            judge(Kind::Gateway, gateway.map(|_| has(section).is_some()), "listener")
        }
        "ListenerSet" => {
            let set = cluster.listener_sets.get(&name);
            let has = |section| set?.spec.listeners.iter().find(|one| Some(one.name.as_str()) == section);
            judge(Kind::ListenerSet, set.map(|_| has(section).is_some()), "listener")
        }
        "HTTPRoute" => {
            let route = cluster.http_routes.get(&name);
            let has = |route: &Arc<Packed<HttpRoute>>| {
                let rules = route.unpack().spec.rules;
                rules.iter().flatten().any(|rule| rule.name.as_deref() == section)
            };
            judge(Kind::HttpRoute, route.map(|route| section.is_some() && has(route)), "rule")
        }
        "GRPCRoute" => {
            let route = cluster.grpc_routes.get(&name);
            let has = |route: &Arc<Packed<GrpcRoute>>| {
                let rules = route.unpack().spec.rules;
                rules.iter().flatten().any(|rule| rule.name.as_deref() == section)
            };
            judge(Kind::GrpcRoute, route.map(|route| section.is_some() && has(route)), "rule")
        }
        "Service" => {
            let service = cluster.services.get(&name);
            let ports = service.and_then(|service| service.spec.as_ref()?.ports.as_ref());
            let is = |port: &ServicePort| {
                port.name.as_deref() == section || Some(&*port.port.to_string()) == section
            };
            let has = ports.into_iter().flatten().any(is);
            judge(Kind::Service, service.map(|_| has), "port")
        }
        _ => Err(Missing::Unsupported(format!(
            "{}/{} is not supported; name a {} of group {}{}",
            target.group,
            target.kind,
            if K::OF_ROUTES {
                "Gateway, ListenerSet, HTTPRoute or GRPCRoute"
            } else {
                "Gateway or ListenerSet"
            },
            crate::api::GROUP,
            if K::OF_SERVICES { ", or a Service of group \"\"" } else { "" }
        ))),
    }
}
