//! The cluster as a source: a watch for each kind.
//!
//! Lists come in pages, watches go on from bookmarks, errors back off with jitter; all of that is kube's. An object that
//! can't be read is reported as such and costs nobody else anything. A kind that isn't installed is empty until it is.

use crate::cluster::{Change, Kind, Object, Watched};
use futures_util::{StreamExt, stream};
use headgate_proxy::model::ObjectName;
use k8s_openapi::NamespaceResourceScope;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

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
            Kind::HttpRoute => tasks.spawn(all::<crate::api::HttpRoute>(client, changes)),
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
            // Nothing reads them: not watched, and so known in full.
            Kind::ConfigMap => tasks.spawn(async move {
                let none =
                    Change::Replace { kind: Kind::ConfigMap, objects: Vec::new(), undecodable: Vec::new() };
                // Fails when the loop has ended.
                let _ = changes.send(vec![none]).await;
            }),
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
    parts: Vec<(Api<DeserializeGuard<K>>, Config)>,
    changes: mpsc::Sender<Vec<Change>>,
) {
    let mut state: Vec<Part> = parts.iter().map(|_| Part::default()).collect();
    let streams = parts.into_iter().enumerate().map(|(n, (api, config))| {
        watcher(api, config).default_backoff().map(move |event| (n, event)).boxed()
    });
    let mut events = stream::select_all(streams);
    let mut complained = None;
    while let Some((n, event)) = events.next().await {
        let batch = match event {
            Ok(event) => {
                if complained.take().is_some() {
                    tracing::info!(kind = %K::KIND, "watching again");
                }
                take(&mut state, n, event)
            }
            Err(error) => {
                let why = error.to_string();
                let not_installed = is_not_found(&error);
                if complained.as_ref() != Some(&why) {
                    match not_installed {
                        true => {
                            tracing::warn!(kind = %K::KIND, "the cluster doesn't know this kind; its CRD is not installed")
                        }
                        false => {
                            tracing::warn!(kind = %K::KIND, error = why, "can't watch; what was known stays in force")
                        }
                    }
                    complained = Some(why);
                }
                match not_installed && !state[n].complete {
                    true => finish_list::<K>(&mut state, n),
                    false => Vec::new(),
                }
            }
        };
        if !batch.is_empty() && changes.send(batch).await.is_err() {
            return;
        }
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => false,
    }
}

fn take<K: Watched>(state: &mut [Part], n: usize, event: Event<DeserializeGuard<K>>) -> Vec<Change> {
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

fn read<K: Watched>(object: DeserializeGuard<K>) -> Read {
    match object.0 {
        Ok(mut object) => {
            // Here already: a list of a big cluster isn't kept whole.
            object.trim();
            Ok(Arc::new(object).wrap())
        }
        Err(invalid) => {
            let meta = invalid.metadata;
            let name = ObjectName::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
            Err((name, invalid.error))
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
