//! The cluster as a source: a watch for each kind.
//!
//! Lists come in pages, watches go on from bookmarks and list anew when they have lost track; all of that is kube's. An
//! object that can't be read is reported as such and costs nobody else anything. A kind that isn't installed is empty until
//! it is. Whatever else fails is tried again ([`Retry`]), and what was known stays in force meanwhile.

mod guarded;

use self::guarded::Guarded;
use crate::cluster::{Change, Kind, Object, Watched};
use futures_util::{StreamExt, TryStreamExt, stream};
use headgate_proxy::model::ObjectName;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Wait after an error; doubled while errors go on.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Wait at most: two seconds after an API server is back we know what it knows. A dozen requests a second of each replica
/// are little to it, compared to the watches that it serves.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Wait after errors that somebody has to cure: a kind that isn't installed, a right that we don't have.
const CURE: Duration = Duration::from_secs(5);
/// Errors further apart are not the same trouble.
const CALM: Duration = Duration::from_secs(30);

/// Which part of a cluster is watched.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Namespaces whose Secrets are watched; empty: all.
    pub secret_namespaces: Vec<String>,
    /// Namespace of Headgate's own pods.
    pub pod_namespace: String,
    /// Their labels.
    pub pod_selector: String,
}

/// Starts the watches. They end with the set.
pub fn watch(client: &Client, scope: &Scope, changes: &mpsc::Sender<Vec<Change>>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for kind in Kind::ALL {
        let (client, changes) = (client.clone(), changes.clone());
        match kind {
            Kind::GatewayClass => tasks.spawn(all::<crate::api::GatewayClass>(client, changes)),
            Kind::Gateway => tasks.spawn(all::<crate::api::Gateway>(client, changes)),
            Kind::ListenerSet => tasks.spawn(all::<crate::api::ListenerSet>(client, changes)),
            Kind::HttpRoute => tasks.spawn(all::<crate::api::HttpRoute>(client, changes)),
            Kind::GrpcRoute => tasks.spawn(all::<crate::api::GrpcRoute>(client, changes)),
            Kind::TlsRoute => tasks.spawn(all::<crate::api::TlsRoute>(client, changes)),
            Kind::TcpRoute => tasks.spawn(all::<crate::api::TcpRoute>(client, changes)),
            Kind::UdpRoute => tasks.spawn(all::<crate::api::UdpRoute>(client, changes)),
            Kind::BackendTlsPolicy => tasks.spawn(all::<crate::api::BackendTlsPolicy>(client, changes)),
            Kind::XBackend => tasks.spawn(all::<crate::api::XBackend>(client, changes)),
            Kind::XBackendTrafficPolicy => {
                tasks.spawn(all::<crate::api::XBackendTrafficPolicy>(client, changes))
            }
            Kind::AuthPolicy => tasks.spawn(all::<headgate_crds::AuthPolicy>(client, changes)),
            Kind::ClientPolicy => tasks.spawn(all::<headgate_crds::ClientPolicy>(client, changes)),
            Kind::CircuitBreakerPolicy => {
                tasks.spawn(all::<headgate_crds::CircuitBreakerPolicy>(client, changes))
            }
            Kind::RateLimitPolicy => tasks.spawn(all::<headgate_crds::RateLimitPolicy>(client, changes)),
            Kind::ReferenceGrant => tasks.spawn(all::<crate::api::ReferenceGrant>(client, changes)),
            Kind::Namespace => tasks.spawn(all::<k8s_openapi::api::core::v1::Namespace>(client, changes)),
            Kind::Service => tasks.spawn(all::<k8s_openapi::api::core::v1::Service>(client, changes)),
            Kind::EndpointSlice => {
                tasks.spawn(all::<k8s_openapi::api::discovery::v1::EndpointSlice>(client, changes))
            }
            Kind::GatewayParameters => tasks.spawn(all::<headgate_crds::GatewayParameters>(client, changes)),
            Kind::Node => tasks.spawn(all::<k8s_openapi::api::core::v1::Node>(client, changes)),
            Kind::Secret => {
                let namespaces = scope.secret_namespaces.clone();
                tasks.spawn(within::<k8s_openapi::api::core::v1::Secret>(
                    client,
                    namespaces,
                    Config::default(),
                    changes,
                ))
            }
            Kind::Pod => {
                let (namespaces, config) =
                    (vec![scope.pod_namespace.clone()], Config::default().labels(&scope.pod_selector));
                tasks.spawn(within::<k8s_openapi::api::core::v1::Pod>(client, namespaces, config, changes))
            }
            Kind::ClusterTrustBundle => tasks
                .spawn(all::<k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle>(client, changes)),
            Kind::ConfigMap => tasks.spawn(all::<k8s_openapi::api::core::v1::ConfigMap>(client, changes)),
        };
    }
    tasks
}

async fn all<K: Watched + DeserializeOwned>(client: Client, changes: mpsc::Sender<Vec<Change>>) {
    follow::<K>(vec![(Api::all(client), Config::default())], changes).await;
}

async fn within<K>(
    client: Client,
    namespaces: Vec<String>,
    config: Config,
    changes: mpsc::Sender<Vec<Change>>,
) where
    K: Watched + DeserializeOwned + Resource<Scope = NamespaceResourceScope>,
{
    let api = |namespace: &String| (Api::namespaced(client.clone(), namespace), config.clone());
    let mut parts: Vec<_> = namespaces.iter().map(api).collect();
    if parts.is_empty() {
        parts.push((Api::all(client.clone()), config.clone()));
    }
    follow::<K>(parts, changes).await;
}

/// One part of a kind: all of it, or a namespace.
#[derive(Default)]
struct Part {
    /// Objects of a list that isn't whole yet.
    listing: Vec<Read>,
    /// Names that were reported.
    known: BTreeSet<ObjectName>,
    complete: bool,
}

type Read = Result<Object, (ObjectName, String)>;

/// Follows one kind to the end of the program.
async fn follow<K: Watched + DeserializeOwned>(
    parts: Vec<(Api<Guarded<K>>, Config)>,
    changes: mpsc::Sender<Vec<Change>>,
) {
    let mut state: Vec<Part> = parts.iter().map(|_| Part::default()).collect();
    let mut complaints = Complaints { kind: K::KIND, last: None };
    loop {
        let streams = parts.iter().cloned().enumerate().map(|(n, (api, config))| {
            let (retry, note) = Retry::new();
            let events = watcher(api, config).inspect_err(move |error| note.take(error));
            events.backoff(retry).map(move |event| (n, event)).boxed()
        });
        let mut events = stream::select_all(streams);
        while let Some((n, event)) = events.next().await {
            let (batch, code) = match event {
                Ok(event) => {
                    complaints.cured_by(&event);
                    (take(&mut state, n, event), None)
                }
                Err(error) => {
                    let code = code(&error);
                    complaints.about(&error);
                    let absent = code == Some(NOT_FOUND) && !state[n].complete;
                    (if absent { finish_list::<K>(&mut state, n) } else { Vec::new() }, code)
                }
            };
            if !batch.is_empty() && changes.send(batch).await.is_err() {
                return;
            }
            // kube lists anew when a watch says so, but not when one can't begin for it.
            if code == Some(GONE) {
                break;
            }
        }
    }
}

const NOT_FOUND: u16 = 404;
const FORBIDDEN: u16 = 403;
const GONE: u16 = 410;

/// The status that the API server answered with.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    }
}

/// What the log says of errors: each trouble once, and when it has passed.
struct Complaints {
    kind: Kind,
    last: Option<String>,
}

impl Complaints {
    fn about(&mut self, error: &watcher::Error) {
        let why = error.to_string();
        if self.last.as_ref() == Some(&why) {
            return;
        }
        match code(error) {
            // Kubernetes' own, where its API server is told to have it.
            Some(NOT_FOUND) if self.kind == Kind::ClusterTrustBundle => {
                tracing::debug!(kind = %self.kind, "the cluster doesn't have this kind");
            }
            Some(NOT_FOUND) => {
                tracing::warn!(kind = %self.kind, "the cluster doesn't know this kind; its CRD is not installed");
            }
            // No trouble: an API server forgets what is long past.
            Some(GONE) => {
                tracing::debug!(kind = %self.kind, "listing anew");
                return;
            }
            Some(_) | None => {
                tracing::warn!(kind = %self.kind, error = why, "can't watch; what was known stays in force");
            }
        }
        self.last = Some(why);
    }

    fn cured_by<K>(&mut self, event: &Event<K>) {
        // That one only says that a list is asked for.
        if !matches!(event, Event::Init) && self.last.take().is_some() {
            tracing::info!(kind = %self.kind, "watching again");
        }
    }
}

/// How long to wait after an error, with jitter, so that replicas don't come all at once.
struct Retry {
    random: RandomState,
    wait: Duration,
    last: Option<Instant>,
    needs_cure: Arc<AtomicBool>,
}

/// Tells a [`Retry`] what kind of error it is about.
struct Note(Arc<AtomicBool>);

impl Note {
    fn take(&self, error: &watcher::Error) {
        self.0.store(matches!(code(error), Some(NOT_FOUND | FORBIDDEN)), Ordering::Relaxed);
    }
}

impl Retry {
    fn new() -> (Self, Note) {
        let needs_cure = Arc::new(AtomicBool::new(false));
        let note = Note(Arc::clone(&needs_cure));
        (Self { random: RandomState::new(), wait: FIRST_WAIT, last: None, needs_cure }, note)
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.replace(now).is_none_or(|last| now - last > CALM) {
            self.wait = FIRST_WAIT;
        }
        let wait = if self.needs_cure.load(Ordering::Relaxed) { CURE } else { self.wait };
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        let part = f64::from(self.random.hash_one(now) as u32) / f64::from(u32::MAX);
        Some(wait.mul_f64(0.5 + part / 2.0))
    }
}

impl Backoff for Retry {
    // Before each list there is an event that isn't an error, so it takes more than one to show that all is well: time.
    fn reset(&mut self) {}
}

fn take<K: Watched>(state: &mut [Part], n: usize, event: Event<Guarded<K>>) -> Vec<Change> {
    let all_complete = state.iter().all(|part| part.complete);
    let part = &mut state[n];
    match event {
        Event::Init => {
            part.listing.clear();
            Vec::new()
        }
        Event::InitApply(object) => {
            part.listing.push(read(object));
            Vec::new()
        }
        Event::InitDone => finish_list::<K>(state, n),
        Event::Apply(object) => {
            let object = read(object);
            part.known.insert(name(&object));
            match all_complete {
                true => vec![change::<K>(object)],
                // The other parts are still being listed: it goes with them.
                false => {
                    part.listing.push(object);
                    Vec::new()
                }
            }
        }
        Event::Delete(object) => {
            let name = name(&read(object));
            part.known.remove(&name);
            match all_complete {
                true => vec![Change::Delete(K::KIND, name)],
                false => {
                    part.listing.retain(|read| self::name(read) != name);
                    Vec::new()
                }
            }
        }
    }
}

/// A list is whole. The first of all parts are reported together; a later one by what differs.
fn finish_list<K: Watched>(state: &mut [Part], n: usize) -> Vec<Change> {
    let again = state.iter().all(|part| part.complete);
    let part = &mut state[n];
    part.complete = true;
    let listed: BTreeSet<ObjectName> = part.listing.iter().map(name).collect();
    let gone: Vec<_> = part.known.difference(&listed).cloned().collect();
    part.known = listed;
    if again {
        let gone = gone.into_iter().map(|name| Change::Delete(K::KIND, name));
        return part.listing.drain(..).map(change::<K>).chain(gone).collect();
    }
    if !state.iter().all(|part| part.complete) {
        return Vec::new();
    }
    let (mut objects, mut undecodable) = (Vec::new(), Vec::new());
    for read in state.iter_mut().flat_map(|part| part.listing.drain(..)) {
        match read {
            Ok(object) => objects.push(object),
            Err(broken) => undecodable.push(broken),
        }
    }
    vec![Change::Replace { kind: K::KIND, objects, undecodable }]
}

fn read<K: Watched>(object: Guarded<K>) -> Read {
    match object.0 {
        // Here already: a list of a big cluster isn't kept whole.
        Ok(object) => Ok(object.wrap()),
        Err(broken) => {
            let meta = broken.metadata;
            let name = ObjectName::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
            // The text may quote the value.
            let why = if K::KIND == Kind::Secret { "it can't be decoded".to_owned() } else { broken.why };
            Err((name, why))
        }
    }
}

fn change<K: Watched>(read: Read) -> Change {
    match read {
        Ok(object) => Change::Upsert(object),
        Err((name, why)) => Change::Undecodable(K::KIND, name, why),
    }
}

fn name(read: &Read) -> ObjectName {
    match read {
        Ok(object) => object.name(),
        Err((name, _)) => name.clone(),
    }
}

#[cfg(test)]
mod tests;
