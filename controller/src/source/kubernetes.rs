//! The cluster as a source: a watch for each kind.
//!
//! Lists come in pages, watches go on from bookmarks and list anew when they have lost track; all of that is kube's. An
//! object that can't be read is reported as such and costs nobody else anything. A kind that isn't installed is empty until
//! it is. Whatever else fails is tried again ([`Retry`]), and what was known stays in force meanwhile.

mod untyped;

use self::untyped::Untyped;
use crate::cluster::{Change, Kind, Object};
use futures_util::{StreamExt, TryStreamExt, stream};
use headgate_proxy::model::ObjectName;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
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
    for &kind in Kind::ALL {
        tasks.spawn(follow(kind, parts(kind, client, scope), changes.clone()));
    }
    tasks
}

/// What is watched of a kind: all of it, unless the scope says less.
fn parts(kind: Kind, client: &Client, scope: &Scope) -> Vec<(Api<Untyped>, Config)> {
    let resource = crate::writer::resource(kind);
    let within = |namespace: &String| Api::namespaced_with(client.clone(), namespace, &resource);
    if kind == Kind::Secret && !scope.secret_namespaces.is_empty() {
        scope.secret_namespaces.iter().map(|namespace| (within(namespace), Config::default())).collect()
    } else if kind == Kind::Pod {
        vec![(within(&scope.pod_namespace), Config::default().labels(&scope.pod_selector))]
    } else {
        vec![(Api::all_with(client.clone(), &resource), Config::default())]
    }
}

/// One part of a kind: all of it, or a namespace.
#[derive(Default)]
struct Part {
    /// Objects of a list that isn't whole yet; without room for any once it is.
    listing: Vec<Read>,
    /// Names that were reported.
    known: BTreeSet<ObjectName>,
    complete: bool,
}

type Read = Result<Object, (ObjectName, String)>;

/// Follows one kind to the end of the program.
async fn follow(kind: Kind, parts: Vec<(Api<Untyped>, Config)>, changes: mpsc::Sender<Vec<Change>>) {
    let mut state: Vec<Part> = parts.iter().map(|_| Part::default()).collect();
    let mut complaints = Complaints { kind, last: None };
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
                    (take(kind, &mut state, n, event), None)
                }
                Err(error) => {
                    let code = code(&error);
                    complaints.about(&error);
                    let absent = code == Some(NOT_FOUND) && !state[n].complete;
                    (if absent { finish_list(kind, &mut state, n) } else { Vec::new() }, code)
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

fn take(kind: Kind, state: &mut [Part], n: usize, event: Event<Untyped>) -> Vec<Change> {
    let all_complete = state.iter().all(|part| part.complete);
    let part = &mut state[n];
    match event {
        Event::Init => {
            part.listing.clear();
            Vec::new()
        }
        Event::InitApply(object) => {
            part.listing.push(read(kind, object));
            Vec::new()
        }
        Event::InitDone => finish_list(kind, state, n),
        Event::Apply(object) => {
            let object = read(kind, object);
            part.known.insert(name(&object));
            match all_complete {
                true => vec![change(kind, object)],
                // The other parts are still being listed: it goes with them.
                false => {
                    part.listing.push(object);
                    Vec::new()
                }
            }
        }
        Event::Delete(object) => {
            let name = object.name();
            part.known.remove(&name);
            match all_complete {
                true => vec![Change::Delete(kind, name)],
                false => {
                    part.listing.retain(|read| self::name(read) != name);
                    Vec::new()
                }
            }
        }
    }
}

/// A list is whole. The first of all parts are reported together; a later one by what differs.
fn finish_list(kind: Kind, state: &mut [Part], n: usize) -> Vec<Change> {
    let again = state.iter().all(|part| part.complete);
    let part = &mut state[n];
    part.complete = true;
    let listed: BTreeSet<ObjectName> = part.listing.iter().map(name).collect();
    let gone: Vec<_> = part.known.difference(&listed).cloned().collect();
    part.known = listed;
    if again {
        let gone = gone.into_iter().map(|name| Change::Delete(kind, name));
        let listed = std::mem::take(&mut part.listing).into_iter().map(|read| change(kind, read));
        return listed.chain(gone).collect();
    }
    if !state.iter().all(|part| part.complete) {
        return Vec::new();
    }
    let (mut objects, mut undecodable) = (Vec::new(), Vec::new());
    for read in state.iter_mut().flat_map(|part| std::mem::take(&mut part.listing)) {
        match read {
            Ok(object) => objects.push(object),
            Err(broken) => undecodable.push(broken),
        }
    }
    vec![Change::Replace { kind, objects, undecodable }]
}

fn read(kind: Kind, object: Untyped) -> Read {
    let name = object.name();
    // Here already: a list of a big cluster isn't kept whole.
    kind.decode(&object.json).map_err(|why| {
        // It may quote the value.
        (name, if kind == Kind::Secret { "it can't be decoded".to_owned() } else { why })
    })
}

fn change(kind: Kind, read: Read) -> Change {
    match read {
        Ok(object) => Change::Upsert(object),
        Err((name, why)) => Change::Undecodable(kind, name, why),
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
