//! What is written to the cluster: the newest of each object, a few at a time, again when it fails.
//!
//! A queue without a task of its own: [`crate::reconcile`] submits what should be and waits for [`Writer::finished`].
//! Statuses are written on top of the version that they were made from (`resourceVersion`), so that nobody else's entry is lost: a
//! conflict is no error, because the newer version is on its way and will be looked at. Services and EndpointSlices are
//! applied by the server, which leaves fields of others alone.

use crate::cluster::Kind;
use headgate_proxy::model::ObjectName;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Our name in `managedFields`.
const FIELD_MANAGER: &str = "headgate";
/// Requests at a time.
const AT_ONCE: usize = 16;
/// How long one may take.
const REQUEST: Duration = Duration::from_secs(15);
/// Wait before a write that failed is tried again: doubled each time, with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Something to be written.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Write {
    /// A status, made from this version of its object.
    Status {
        /// `metadata.resourceVersion` of the version that was looked at.
        resource_version: String,
        /// The whole status.
        status: Value,
    },
    /// An object, to be as far as this says.
    Apply {
        /// The version that isn't like this; absent when the object isn't there.
        observed: Option<String>,
        /// All that we want of it.
        body: Value,
    },
    /// An object that shouldn't be there.
    Delete,
}

/// What a write is about. Only one is on its way for each.
pub type Target = (Kind, ObjectName);

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Done, or no longer to be done.
    Done,
    /// To be tried again.
    Failed,
}

/// The queue.
pub struct Writer {
    client: Client,
    pending: BTreeMap<Target, (Write, Instant)>,
    busy: HashMap<Target, Write>,
    tasks: JoinSet<(Target, Outcome)>,
    /// What was written last, as a hash: the same isn't written again. All statuses of a cluster would be many bytes.
    written: HashMap<Target, u64>,
    failures: HashMap<Target, u32>,
    random: RandomState,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Writer {
    /// An empty queue.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            pending: BTreeMap::new(),
            busy: HashMap::new(),
            tasks: JoinSet::new(),
            written: HashMap::new(),
            failures: HashMap::new(),
            random: RandomState::new(),
        }
    }

    /// Has something written, unless it was already or is on its way. Replaces what waits for the same object.
    pub fn submit(&mut self, target: Target, write: Write) {
        let latest = match self.busy.get(&target) {
            Some(busy) => *busy == write,
            None => self.written.get(&target) == Some(&self.random.hash_one(&write)),
        };
        if latest {
            self.pending.remove(&target);
            return;
        }
        let due = match self.pending.get(&target) {
            // It failed before: a new version doesn't make the server better.
            Some((_, due)) => *due,
            None => Instant::now(),
        };
        self.pending.insert(target, (write, due));
        self.start();
    }

    /// Nothing needs to be written for an object any more.
    pub fn withdraw(&mut self, target: &Target) {
        self.pending.remove(target);
        self.written.remove(target);
        if self.written.is_empty() {
            // After a start it had room for all.
            self.written.shrink_to_fit();
        }
    }

    /// Forgets everything of some kinds: what isn't on its way won't be.
    pub fn withdraw_all(&mut self, of: impl Fn(Kind) -> bool) {
        self.pending.retain(|(kind, _), _| !of(*kind));
        self.written.retain(|(kind, _), _| !of(*kind));
    }

    /// Waits until a write has ended or is due again; never returns while there is nothing to do.
    pub async fn finished(&mut self) {
        self.start();
        // Only where there is room for one: after a start thousands wait, and each that ends would look at all.
        let idle = self.pending.iter().filter(|(target, _)| !self.busy.contains_key(target));
        let due = (self.busy.len() < AT_ONCE).then(|| idle.map(|(_, (_, due))| *due).min()).flatten();
        tokio::select! {
            Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                if let Ok((target, outcome)) = ended {
                    self.note(&target, outcome);
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            else => std::future::pending().await,
        }
        self.start();
    }

    fn note(&mut self, target: &Target, outcome: Outcome) {
        let Some(write) = self.busy.remove(target) else { return };
        match outcome {
            Outcome::Done => {
                self.failures.remove(target);
                self.written.insert(target.clone(), self.random.hash_one(write));
            }
            Outcome::Failed => {
                let failures = self.failures.entry(target.clone()).or_default();
                *failures = failures.saturating_add(1);
                let wait = FIRST_WAIT.saturating_mul(1 << (*failures - 1).min(10)).min(LONGEST_WAIT);
                let jitter =
                    0.5 + f64::from(self.random.hash_one(failures) as u32) / f64::from(u32::MAX) / 2.0;
                let due = Instant::now() + wait.mul_f64(jitter);
                self.pending.entry(target.clone()).or_insert((write, due)).1 = due;
            }
        }
    }

    fn start(&mut self) {
        let now = Instant::now();
        let ready: Vec<Target> = self
            .pending
            .iter()
            .filter(|(target, (_, due))| *due <= now && !self.busy.contains_key(target))
            .map(|(target, _)| target.clone())
            .take(AT_ONCE.saturating_sub(self.busy.len()))
            .collect();
        for target in ready {
            let Some((write, _)) = self.pending.remove(&target) else { continue };
            self.busy.insert(target.clone(), write.clone());
            let client = self.client.clone();
            self.tasks.spawn(async move {
                let outcome = match tokio::time::timeout(REQUEST, send(client, &target, &write)).await {
                    Ok(Ok(())) => Outcome::Done,
                    Ok(Err(error)) => judge(&target, &error),
                    Err(_) => {
                        tracing::warn!(kind = %target.0, object = %target.1, "the API server takes too long to write; trying again");
                        Outcome::Failed
                    }
                };
                (target, outcome)
            });
        }
    }
}

fn judge(target: &Target, error: &kube::Error) -> Outcome {
    if let kube::Error::Api(status) = error
        // Conflict: a newer version is on its way, and will be looked at. Not found: nothing to write to.
        && (status.code == 409 || status.code == 404)
    {
        tracing::debug!(kind = %target.0, object = %target.1, %error, "a write was overtaken");
        return Outcome::Done;
    }
    tracing::warn!(kind = %target.0, object = %target.1, %error, "can't write to the cluster; trying again");
    Outcome::Failed
}

async fn send(client: Client, (kind, name): &Target, write: &Write) -> kube::Result<()> {
    let api = api(client, *kind, &name.namespace);
    match write {
        Write::Status { resource_version, status } => {
            let patch = json!({"metadata": {"resourceVersion": resource_version}, "status": status});
            let parameters =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let written = api.patch_status(&name.name, &parameters, &Patch::Merge(patch)).await?;
            tracing::debug!(%kind, object = %name, version = ?written.resource_version(), "wrote a status");
        }
        Write::Apply { body, .. } => {
            api.patch(&name.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body)).await?;
            tracing::debug!(%kind, object = %name, "applied");
        }
        Write::Delete => {
            api.delete(&name.name, &DeleteParams::default()).await?;
            tracing::info!(%kind, object = %name, "deleted");
        }
    }
    Ok(())
}

fn api(client: Client, kind: Kind, namespace: &str) -> Api<DynamicObject> {
    let resource = resource(kind);
    match namespace {
        "" => Api::all_with(client, &resource),
        namespace => Api::namespaced_with(client, namespace, &resource),
    }
}

/// Where a kind is in the API.
pub(crate) fn resource(kind: Kind) -> ApiResource {
    let (group, version, plural) = match kind {
        Kind::GatewayClass => (crate::api::GROUP, "v1", "gatewayclasses"),
        Kind::Gateway => (crate::api::GROUP, "v1", "gateways"),
        Kind::ListenerSet => (crate::api::GROUP, "v1", "listenersets"),
        Kind::HttpRoute => (crate::api::GROUP, "v1", "httproutes"),
        Kind::GrpcRoute => (crate::api::GROUP, "v1", "grpcroutes"),
        Kind::TlsRoute => (crate::api::GROUP, "v1", "tlsroutes"),
        Kind::TcpRoute => (crate::api::GROUP, "v1", "tcproutes"),
        Kind::UdpRoute => (crate::api::GROUP, "v1", "udproutes"),
        Kind::BackendTlsPolicy => (crate::api::GROUP, "v1", "backendtlspolicies"),
        Kind::ReferenceGrant => (crate::api::GROUP, "v1", "referencegrants"),
        Kind::XBackend => (crate::api::X_GROUP, "v1alpha1", "xbackends"),
        Kind::XBackendTrafficPolicy => (crate::api::X_GROUP, "v1alpha1", "xbackendtrafficpolicies"),
        Kind::AuthPolicy => (headgate_crds::GROUP, "v1alpha1", "authpolicies"),
        Kind::ClientPolicy => (headgate_crds::GROUP, "v1alpha1", "clientpolicies"),
        Kind::CircuitBreakerPolicy => (headgate_crds::GROUP, "v1alpha1", "circuitbreakerpolicies"),
        Kind::RateLimitPolicy => (headgate_crds::GROUP, "v1alpha1", "ratelimitpolicies"),
        Kind::GatewayParameters => (headgate_crds::GROUP, "v1alpha1", "gatewayparameters"),
        Kind::EndpointSlice => ("discovery.k8s.io", "v1", "endpointslices"),
        Kind::Namespace => ("", "v1", "namespaces"),
        Kind::Service => ("", "v1", "services"),
        Kind::Secret => ("", "v1", "secrets"),
        Kind::ConfigMap => ("", "v1", "configmaps"),
        Kind::ClusterTrustBundle => ("certificates.k8s.io", "v1beta1", "clustertrustbundles"),
        Kind::Pod => ("", "v1", "pods"),
        Kind::Node => ("", "v1", "nodes"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.name()), plural)
}

#[cfg(test)]
mod tests;
