//! The loop of the control plane: changes in, a model out, and what the cluster is to be told.
//!
//! One task owns the [`Cluster`]. It takes all changes that are there, translates once, publishes, and only then says so in
//! statuses, so that `Programmed=True` is true when somebody reads it. Nothing is published before everything was read
//! once: half a configuration would be 404s. Endpoints go past translation. A panic costs one translation, not the process.

use crate::cluster::{Change, Cluster, Effect, Kept, Kind, Object};
use crate::infra::{self, Infrastructure, Ports};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::status::{Draft, Statuses, merge};
use crate::translate::{Needs, Translator};
use crate::writer::{Write, Writer};
use headgate_proxy::Publisher;
use headgate_proxy::model::{ObjectName, PortId, Text};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

/// Changes that may wait for the loop; a source waits beyond that.
pub const CHANGES: usize = 1024;
/// Between two publications, at least. A change that comes after a pause is acted on at once, together with those that are
/// there; a rollout comes as many, and they are gathered for so long.
const PACE: Duration = Duration::from_millis(5);
/// How often ports that could not be opened are tried again.
const RETRY_PORTS: Duration = Duration::from_secs(5);

/// What the loop needs.
#[derive(Debug)]
pub struct Reconciler {
    cluster: Cluster,
    translator: Translator,
    publisher: Publisher,
    metrics: Metrics,
    /// What was not acted on yet.
    due: Effect,
    published: bool,
    failed_ports: BTreeMap<PortId, String>,
    statuses: Statuses,
    needs: Needs,
    hosts: watch::Sender<BTreeSet<Text>>,
    outside: Outside,
}

/// Who is told about objects.
#[derive(Debug)]
enum Outside {
    /// The log, what is wrong.
    Log(BTreeSet<String>),
    /// The cluster.
    Cluster(Box<Telling>),
}

/// What telling the cluster needs.
#[derive(Debug)]
struct Telling {
    writer: Writer,
    infrastructure: Infrastructure,
    ports: Ports,
    leads: watch::Receiver<bool>,
    led: bool,
    /// What statuses were last made of.
    told: Statuses,
    /// Hashes of the versions that a status was made for with the status: until the version changes there is nothing to add.
    offered: HashMap<(Kind, ObjectName), u64>,
    random: RandomState,
    /// What we last wanted of Services.
    applied: BTreeMap<ObjectName, Value>,
    without_port: Vec<PortId>,
}

impl Reconciler {
    /// For files: what is wrong with objects goes to the log.
    pub fn for_files(settings: Settings, publisher: Publisher, metrics: Metrics) -> Self {
        Self::new(settings, publisher, metrics, Outside::Log(BTreeSet::new()))
    }

    /// For a cluster: statuses, Services and EndpointSlices are written, as far as this replica leads.
    pub fn for_cluster(
        settings: Settings,
        publisher: Publisher,
        metrics: Metrics,
        writer: Writer,
        infrastructure: Infrastructure,
        leads: watch::Receiver<bool>,
    ) -> Self {
        let telling = Telling {
            writer,
            ports: Ports::new(infrastructure.ports.clone()),
            infrastructure,
            leads,
            led: false,
            told: Statuses::default(),
            offered: HashMap::new(),
            random: RandomState::new(),
            applied: BTreeMap::new(),
            without_port: Vec::new(),
        };
        Self::new(settings, publisher, metrics, Outside::Cluster(Box::new(telling)))
    }

    fn new(settings: Settings, publisher: Publisher, metrics: Metrics, outside: Outside) -> Self {
        Self {
            cluster: Cluster::default(),
            translator: Translator::new(settings),
            publisher,
            metrics,
            due: Effect { routing: true, ..Effect::default() },
            published: false,
            failed_ports: BTreeMap::new(),
            statuses: Statuses::default(),
            needs: Needs::default(),
            hosts: watch::Sender::default(),
            outside,
        }
    }

    /// Hosts whose addresses the loop wants to hear of, as [`Change::Host`].
    pub fn hosts(&self) -> watch::Receiver<BTreeSet<Text>> {
        self.hosts.subscribe()
    }

    /// Runs until the source ends or `stop` says so.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Vec<Change>>, mut stop: watch::Receiver<bool>) {
        let mut retry = tokio::time::interval(RETRY_PORTS);
        let mut next = Instant::now();
        loop {
            let mut since = None;
            tokio::select! {
                batch = changes.recv() => match batch {
                    Some(batch) => {
                        since = Some(Instant::now());
                        self.take(batch);
                        self.gather(&mut changes, next).await;
                    }
                    None => return,
                },
                () = self.outside.progress() => {}
                _ = retry.tick(), if !self.failed_ports.is_empty() => self.due.routing = true,
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if self.step(since) {
                next = Instant::now() + PACE;
            }
        }
    }

    fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Change::Undecodable(kind, name, why) = &change {
                tracing::warn!(%kind, object = %name, why, "an object can't be read; its last good version stays in force");
            }
            self.due.merge(self.cluster.apply(change));
        }
    }

    /// Takes what is there, and what comes until `end`.
    async fn gather(&mut self, changes: &mut mpsc::Receiver<Vec<Change>>, end: Instant) {
        while let Ok(Some(batch)) = timeout_at(end, changes.recv()).await {
            self.take(batch);
        }
    }

    /// Acts on what is due, and says whether that meant to publish. `since`: when the first change of it came.
    fn step(&mut self, since: Option<Instant>) -> bool {
        if !self.cluster.is_complete(Kind::ALL) {
            return false;
        }
        let effect = std::mem::take(&mut self.due);
        self.metrics.undecodable.set(i64::try_from(self.cluster.undecodable.len()).unwrap_or(i64::MAX));
        let routes = effect.routing || !effect.routes.is_empty();
        if routes {
            self.route(&effect);
        } else {
            let changed = self.translator.endpoints(&self.cluster, &effect.endpoints, &effect.hosts);
            for (id, endpoints) in changed {
                self.publisher.publish_endpoints(&id, endpoints);
            }
        }
        if let Some(since) = since {
            self.metrics.publish_delay.observe(since.elapsed().as_secs_f64());
        }
        match &mut self.outside {
            Outside::Log(known) => log_problems(known, &self.statuses),
            Outside::Cluster(telling) => {
                telling.tell(
                    &self.cluster,
                    self.translator.settings(),
                    &self.statuses,
                    &self.needs.selectors,
                    &effect,
                    &self.metrics,
                );
            }
        }
        routes
    }

    /// Translates and publishes. What could not be bound is known only then, and is a part of the statuses.
    fn route(&mut self, effect: &Effect) {
        let Some(model) = self.translate(effect) else { return };
        let ports: Vec<_> =
            model.ports.values().map(|port| format!("{} on {}", port.id, port.bind)).collect();
        let ports = ports.join(", ");
        let published = self.publisher.publish(model);
        let failed = published.failed_ports.into_iter().collect();
        self.metrics.failed_ports.set(i64::try_from(BTreeMap::len(&failed)).unwrap_or(i64::MAX));
        if self.failed_ports != failed {
            for (port, why) in &failed {
                tracing::error!(%port, why, "a port can't be opened; trying again");
            }
            self.failed_ports = failed;
            self.translate(&Effect { routing: true, ..Effect::default() });
        }
        if !std::mem::replace(&mut self.published, true) {
            tracing::info!(ports, "serving");
        }
    }

    fn translate(&mut self, effect: &Effect) -> Option<headgate_proxy::model::Model> {
        self.metrics.translations.inc();
        let (translator, cluster, failed) = (&mut self.translator, &self.cluster, &self.failed_ports);
        match catch_unwind(AssertUnwindSafe(|| translator.update(cluster, failed, effect))) {
            Ok(translation) => {
                self.statuses = translation.statuses;
                self.needs = translation.needs;
                self.hosts.send_if_modified(|hosts| {
                    let differ = *hosts != self.needs.hosts;
                    hosts.clone_from(&self.needs.hosts);
                    differ
                });
                Some(translation.model)
            }
            Err(_) => {
                tracing::error!("translation panicked; the model before stays in force");
                self.metrics.panics.inc();
                // What it remembers may be half of something.
                self.translator = Translator::new(self.translator.settings().clone());
                None
            }
        }
    }
}

impl Outside {
    /// Waits until something outside has happened that may need to be acted on.
    async fn progress(&mut self) {
        match self {
            Self::Log(_) => std::future::pending().await,
            Self::Cluster(telling) => {
                let Telling { writer, leads, .. } = &mut **telling;
                tokio::select! {
                    () = writer.finished() => {}
                    changed = leads.changed() => if changed.is_err() {
                        // The election is over, and so are we.
                        std::future::pending().await
                    },
                }
            }
        }
    }
}

impl Telling {
    fn tell(
        &mut self,
        cluster: &Cluster,
        settings: &Settings,
        statuses: &Statuses,
        selectors: &BTreeSet<ObjectName>,
        effect: &Effect,
        metrics: &Metrics,
    ) {
        let leads = *self.leads.borrow_and_update();
        metrics.leads.set(i64::from(leads));
        let newly = leads && !self.led;
        if !leads && self.led {
            // EndpointSlices are every replica's; all else is the leader's.
            self.writer.withdraw_all(|kind| kind != Kind::EndpointSlice);
            self.offered.clear();
            self.applied.clear();
        }
        self.led = leads;
        let around = effect.routing || effect.infrastructure || newly;
        if leads && around {
            self.services(cluster, settings, selectors);
        }
        if around || !effect.endpoints.is_empty() {
            self.endpoint_slices(cluster, settings);
        }
        if newly {
            self.told = Statuses::default();
        }
        if leads {
            let mut different = self.told.changes(statuses);
            if newly {
                // Who led before may have told Services that have no policy any more.
                different.extend(cluster.names(Kind::Service).map(|name| (Kind::Service, name)));
            }
            different.extend(effect.status.iter().cloned());
            self.statuses(cluster, settings, statuses, &different);
            self.told = statuses.clone();
        }
    }

    fn services(&mut self, cluster: &Cluster, settings: &Settings, selectors: &BTreeSet<ObjectName>) {
        let plan = infra::services(cluster, settings, &self.infrastructure, selectors, &mut self.ports);
        for (name, body) in &plan.wanted {
            let present = cluster.services.get(name);
            // Applied once by us even when it looks right: only that drops what an earlier version of us wanted.
            if self.applied.get(name) == Some(body)
                && present.is_some_and(|present| infra::says(&value(&**present), body))
            {
                continue;
            }
            let observed = present.and_then(|present| present.resource_version());
            self.writer.submit((Kind::Service, name.clone()), Write::Apply { observed, body: body.clone() });
        }
        for name in &plan.unwanted {
            self.writer.submit((Kind::Service, name.clone()), Write::Delete);
        }
        if self.without_port != plan.without_port {
            for port in &plan.without_port {
                tracing::error!(%port, "no port is left in the range; raise portRange in the chart's values");
            }
            self.without_port = plan.without_port;
        }
        self.applied = plan.wanted;
    }

    fn endpoint_slices(&mut self, cluster: &Cluster, settings: &Settings) {
        for (name, body) in infra::endpoint_slices(cluster, settings) {
            let present = cluster.endpoint_slices.get(&name);
            let target = (Kind::EndpointSlice, name);
            if present.is_some_and(|present| infra::says(&value(present.unpack()), &body)) {
                self.writer.withdraw(&target);
                continue;
            }
            let observed = present.and_then(|present| present.version()).map(ToOwned::to_owned);
            self.writer.submit(target, Write::Apply { observed, body });
        }
    }

    /// Has the statuses of objects written, where they aren't there yet.
    fn statuses(
        &mut self,
        cluster: &Cluster,
        settings: &Settings,
        statuses: &Statuses,
        different: &BTreeSet<(Kind, ObjectName)>,
    ) {
        // Seconds, as metav1.Time has them.
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let now = Time(now);
        let controller = &*settings.controller_name;
        for id in different {
            let (kind, name) = id;
            let Some(present) = cluster.object(*kind, name) else {
                self.offered.remove(id);
                continue;
            };
            let version = present.resource_version().map(ToOwned::to_owned);
            if let Some(draft) = statuses.routes.get(id) {
                let status = cluster.route_status(*kind, name);
                let status = merge::route(status.as_ref(), draft, controller, &now);
                self.offer(*kind, name, version, status);
            } else if let Some(draft) = statuses.policies.get(id) {
                let status = cluster.policy_status(*kind, name);
                let status = merge::policy(status.as_ref(), draft, controller, &now);
                self.offer(*kind, name, version, status);
            } else if let (Object::GatewayClass(class), Some(draft)) =
                (&present, statuses.gateway_classes.get(name))
            {
                let status = merge::gateway_class(class.status.as_ref(), draft, &now);
                self.offer(*kind, name, version, status);
            } else if let (Object::Gateway(gateway), Some(draft)) = (&present, statuses.gateways.get(name)) {
                let status = merge::gateway(gateway.status.as_ref(), draft, &now);
                self.offer(*kind, name, version, status);
            } else if let (Object::ListenerSet(set), Some(draft)) =
                (&present, statuses.listener_sets.get(name))
            {
                let status = merge::listener_set(set.status.as_ref(), draft, &now);
                self.offer(*kind, name, version, status);
            } else if let Object::Service(service) = &present
                && !self.applied.contains_key(name)
            {
                let draft = statuses.services.get(name).map(|draft| &**draft);
                self.offer(*kind, name, version, merge::service(service, draft, &now));
            }
        }
        if self.offered.is_empty() {
            // After a start it had room for all.
            self.offered.shrink_to_fit();
        }
    }

    fn offer(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        version: Option<String>,
        status: Option<impl Serialize>,
    ) {
        let target = (kind, name.clone());
        let Some(status) = status.as_ref().map(value) else {
            self.offered.remove(&target);
            self.writer.withdraw(&target);
            return;
        };
        let offer = self.random.hash_one((&version, without_times(status.clone())));
        if self.offered.get(&target) == Some(&offer) {
            return;
        }
        if let Some(resource_version) = version {
            self.writer.submit(target.clone(), Write::Status { resource_version, status });
        }
        self.offered.insert(target, offer);
    }
}

fn value(object: impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// A status as it is whenever it is made.
fn without_times(mut status: Value) -> Value {
    match &mut status {
        Value::Object(fields) => {
            fields.remove("lastTransitionTime");
            fields.values_mut().for_each(|field| *field = without_times(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    status
}

/// Where there is no cluster to tell, people read the log: each problem once, as long as it lasts.
fn log_problems(known: &mut BTreeSet<String>, statuses: &Statuses) {
    let problems: BTreeSet<String> = problems(statuses).into_iter().collect();
    for problem in problems.difference(known) {
        tracing::warn!("{problem}");
    }
    *known = problems;
}

/// What is wrong with objects, one line each.
pub fn problems(statuses: &Statuses) -> Vec<String> {
    use crate::status::ConditionType as Type;
    let mut problems = Vec::new();
    let mut note = |what: &str, conditions: &[Draft]| {
        for draft in conditions {
            let bad = match draft.kind {
                Type::Accepted | Type::ResolvedRefs | Type::Programmed => !draft.status,
                Type::Conflicted | Type::PartiallyInvalid | Type::InsecureFrontendValidationMode => {
                    draft.status
                }
                Type::RateLimitPolicyAffected
                | Type::CircuitBreakerPolicyAffected
                | Type::AuthPolicyAffected
                | Type::ClientPolicyAffected => false,
            };
            if bad {
                let status = if draft.status { "True" } else { "False" };
                problems.push(format!("{what}: {}={status} {}: {}", draft.kind, draft.reason, draft.message));
            }
        }
    };
    for (name, draft) in &statuses.gateway_classes {
        note(&format!("GatewayClass {}", name.name), &draft.conditions);
    }
    for (name, draft) in &statuses.gateways {
        note(&format!("Gateway {name}"), &draft.conditions);
        for listener in &draft.listeners {
            note(&format!("Gateway {name}, listener {}", listener.name), &listener.conditions);
        }
    }
    for (name, draft) in &statuses.listener_sets {
        note(&format!("ListenerSet {name}"), &draft.conditions);
        for listener in &draft.listeners {
            note(&format!("ListenerSet {name}, listener {}", listener.name), &listener.conditions);
        }
    }
    for ((kind, name), draft) in &statuses.routes {
        for parent in &draft.parents {
            note(&format!("{kind} {name}, parent {}", parent.parent.name), &parent.conditions);
        }
    }
    for ((kind, name), draft) in &statuses.policies {
        for ancestor in &draft.ancestors {
            let at = &ancestor.reference;
            let (of, namespace) = (at.kind.as_deref(), at.namespace.as_deref());
            let of = of.unwrap_or("Gateway");
            let what = format!("{kind} {name}, {of} {}/{}", namespace.unwrap_or_default(), at.name);
            note(&what, &ancestor.conditions);
        }
    }
    problems
}

#[cfg(test)]
mod tests;
