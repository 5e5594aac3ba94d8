//! Changes that backends go through by themselves, as Events of their objects: breakers that open and close, endpoints that are
//! ejected and restored.
//!
//! Each replica has breakers of its own, and writes Events of its own. The proxy tells ([`headgate_proxy::notice`]); here
//! the same change of the same thing is one Event, counted as a series, and written once in a while. Events are a help to people: one
//! that can't be written is given up, and the log has all of them.

use crate::writer;
use headgate_proxy::model::BackendId;
use headgate_proxy::notice::{Change, Notice, Subject};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Time between writes: five a second, when all backends of a cluster fail at once.
const PACE: Duration = Duration::from_millis(200);
/// Time between writes of the same Event.
const GAP: Duration = Duration::from_secs(10);
/// After so long without another, the next is an Event of its own. The API server keeps Events for an hour.
const FORGET: Duration = Duration::from_secs(600);
/// Events that are remembered or wait: some hundred bytes each.
const MOST: usize = 4_096;
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// Tries until an Event is given up.
const TRIES: u32 = 5;

/// The same change of the same thing.
type Key = (BackendId, Subject, Change, Shadow);
/// Whether nothing is acted on.
type Shadow = bool;

/// What is written of one change.
#[derive(Debug)]
struct Entry {
    /// The Event, once it is there.
    name: Option<String>,
    first: Timestamp,
    last: Timestamp,
    count: i32,
    /// How many of them the Event has.
    told: i32,
    /// When it may be written, if there is anything to write.
    due: Instant,
    seen: Instant,
    failures: u32,
}

impl Entry {
    fn new() -> Self {
        let (now, at) = (Timestamp::now(), Instant::now());
        Self { name: None, first: now, last: now, count: 0, told: 0, due: at, seen: at, failures: 0 }
    }

    fn waits(&self) -> bool {
        self.count > self.told
    }

    fn is_old(&self) -> bool {
        !self.waits() && self.seen.elapsed() > FORGET
    }

    fn series(&self) -> EventSeries {
        EventSeries { count: self.count, last_observed_time: MicroTime(self.last) }
    }
}

/// Writes Events.
pub struct Events {
    client: Client,
    /// Who says so: the name of the controller, and this replica's.
    controller: String,
    instance: String,
    entries: BTreeMap<Key, Entry>,
    /// When the next may be written.
    next: Instant,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Events {
    /// Of that controller and replica.
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        let (controller, instance) = (controller.to_owned(), instance.chars().take(128).collect());
        Self { client, controller, instance, entries: BTreeMap::new(), next: Instant::now() }
    }

    /// Writes what it hears, until nobody is left to tell.
    pub async fn run(mut self, mut notices: mpsc::Receiver<Notice>) {
        loop {
            let due = self.due();
            tokio::select! {
                notice = notices.recv() => match notice {
                    Some(notice) => self.note(notice),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.write().await,
            }
        }
    }

    fn note(&mut self, Notice { backend, subject, change, shadow }: Notice) {
        let key = (backend, subject, change, shadow);
        if self.entries.get(&key).is_none_or(Entry::is_old) {
            if self.entries.len() >= MOST {
                self.entries.retain(|_, entry| !entry.is_old());
            }
            if self.entries.len() >= MOST {
                tracing::debug!(backend = %key.0, "too many Events: a change isn't told");
                return;
            }
            self.entries.insert(key.clone(), Entry::new());
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.count = entry.count.saturating_add(1);
            (entry.last, entry.seen) = (Timestamp::now(), Instant::now());
        }
    }

    /// When there is something to write.
    fn due(&self) -> Option<Instant> {
        let due = self.entries.values().filter(|entry| entry.waits()).map(|entry| entry.due).min()?;
        Some(due.max(self.next))
    }

    /// Writes what waits longest.
    async fn write(&mut self) {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.waits());
        let longest = waiting.min_by_key(|(_, entry)| entry.due).map(|(key, _)| key.clone());
        let Some((key, mut entry)) = longest.and_then(|key| self.entries.remove_entry(&key)) else { return };
        let written = timeout(REQUEST, self.send(&key, &mut entry)).await;
        self.next = Instant::now() + PACE;
        entry.due = Instant::now() + GAP;
        let stays = match written {
            Ok(Ok(())) => {
                (entry.told, entry.failures) = (entry.count, 0);
                true
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                // Without its Event it gets another one; without its Service there is nobody to tell it of.
                entry.count -= entry.told;
                (entry.told, entry.first, entry.due) = (0, entry.last, Instant::now());
                entry.name.take().is_some()
            }
            Ok(Err(error)) => entry.failed(&key.0, &error.to_string()),
            Err(_) => entry.failed(&key.0, "the API server takes too long"),
        };
        if stays {
            self.entries.insert(key, entry);
        }
    }

    async fn send(&self, key: &Key, entry: &mut Entry) -> kube::Result<()> {
        let namespace = &key.0.name.namespace;
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some(name) = &entry.name {
            let series = json!({"series": entry.series()});
            events.patch(name, &PatchParams::default(), &Patch::Merge(series)).await?;
            return Ok(());
        }
        let resource = writer::resource(key.0.kind.into());
        let backends: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        // `kubectl describe` finds Events by this.
        let uid = backends.get_metadata(&key.0.name.name).await?.metadata.uid;
        let event = self.event(key, entry, uid);
        let name = event.metadata.name.clone();
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            // The answer to an earlier try was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        entry.name = name;
        Ok(())
    }

    fn event(&self, key: &Key, entry: &Entry, uid: Option<String>) -> Event {
        let (BackendId { name, kind, .. }, _, change, _) = key;
        let ApiResource { api_version, kind, .. } = writer::resource((*kind).into());
        let mut hasher = DefaultHasher::new();
        (&self.instance, key, entry.first.as_nanosecond()).hash(&mut hasher);
        let (reason, action, sort) = match change {
            Change::Opened => ("BreakerOpened", "Open", "Warning"),
            Change::HalfOpened => ("BreakerHalfOpen", "Probe", "Normal"),
            Change::Closed => ("BreakerClosed", "Close", "Normal"),
            Change::Ejected => ("EndpointEjected", "Eject", "Warning"),
            Change::Restored => ("EndpointRestored", "Restore", "Normal"),
        };
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:016x}", name.name, hasher.finish())),
                namespace: Some(name.namespace.to_string()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(entry.first)),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            reason: Some(reason.to_owned()),
            action: Some(action.to_owned()),
            type_: Some(sort.to_owned()),
            note: Some(note(key)),
            regarding: Some(ObjectReference {
                api_version: Some(api_version),
                kind: Some(kind),
                namespace: Some(name.namespace.to_string()),
                name: Some(name.name.to_string()),
                uid,
                ..ObjectReference::default()
            }),
            series: (entry.count > 1).then(|| entry.series()),
            ..Event::default()
        }
    }
}

impl Entry {
    /// A write failed. Says whether it is worth another try.
    fn failed(&mut self, backend: &BackendId, why: &str) -> bool {
        self.failures += 1;
        tracing::warn!(%backend, why, failures = self.failures, "can't write an Event");
        self.failures < TRIES
    }
}

/// The sentence of an Event: the same for the same change, because Events can't change it.
fn note((backend, subject, change, shadow): &Key) -> String {
    let port = backend.port;
    let breaker = match subject {
        Subject::Backend => format!("the circuit breaker of port {port}"),
        Subject::Route(route) => {
            format!("the circuit breaker of port {port} for {} {}", route.kind, route.name)
        }
        Subject::Endpoint(socket) => format!("the circuit breaker of endpoint {socket} of port {port}"),
    };
    let endpoint = match subject {
        Subject::Endpoint(socket) => format!("endpoint {socket} of port {port}"),
        Subject::Backend | Subject::Route(_) => format!("an endpoint of port {port}"),
    };
    let sentence = match change {
        Change::Opened => format!("{breaker} opened: too many requests failed"),
        Change::HalfOpened => format!("{breaker} is half open: probes pass"),
        Change::Closed => format!("{breaker} closed: probes were answered"),
        Change::Ejected => format!("{endpoint} is ejected: it fails, and gets no requests for a while"),
        Change::Restored => format!("{endpoint} is restored: it answers again"),
    };
    let rest = if *shadow { " (in shadow: nothing is kept away)" } else { "" };
    // The API server takes 1 kB; names of routes are far shorter.
    format!("{sentence}{rest}").chars().take(1_000).collect()
}

#[cfg(test)]
mod tests;
