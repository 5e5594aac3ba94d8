//! What routes add up to, kept up to date route by route: so that one that changes costs itself.
//!
//! Routes are put in and taken out; what they have in common (backends, numbers of listeners, what became of policies) is
//! counted. Must not know when a route is translated: [`super::Translator`] says what to put in.

use super::destination::{Target, Users};
use super::policy::{Note, Notes};
use super::route::{Routed, Translated};
use super::{Remembered, reuse};
use crate::cluster::{Kind, pack};
use crate::status::RouteDraft;
use headgate_proxy::model::{
    Backend, BackendId, ListenerId, ObjectName, Route, RouteId, Sorted, StreamRoute,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A kind and a name.
pub(super) type Id = (Kind, ObjectName);

/// What routes add up to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    remembered: BTreeMap<Id, Remembered>,
    /// For the model.
    pub(super) routes: Sorted<RouteId, Route>,
    pub(super) stream_routes: Sorted<RouteId, StreamRoute>,
    /// Backends of routes, before policies of their own.
    pub(super) backends: Sorted<BackendId, Backend>,
    /// Routes on each listener.
    pub(super) attached: BTreeMap<ListenerId, i32>,
    /// What the route is told that was translated last.
    pub(super) told_last: Option<Arc<RouteDraft>>,
    /// The listeners that took it.
    pub(super) listeners_last: Option<Arc<[ListenerId]>>,
    /// What became of policies.
    pub(super) told: Notes,
    /// What of it ports have told.
    of_ports: BTreeSet<Note>,
    /// How often routes name each backend.
    named: BTreeMap<BackendId, usize>,
    /// How many routes looked up each Service and Namespace.
    looked_up: BTreeMap<Id, u32>,
    /// How many routes of a Gateway forward to each backend that is told so, or whose policies are.
    users: BTreeMap<Target, BTreeMap<ObjectName, usize>>,
}

impl Tally {
    /// A route that is in it.
    pub(super) fn get(&self, id: &Id) -> Option<&Remembered> {
        self.remembered.get(id)
    }

    /// All routes that are in it.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Id> {
        self.remembered.keys()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.remembered.len()
    }

    /// Takes little room from now on, where many were put in.
    pub(super) fn pack(&mut self) {
        pack(&mut self.remembered);
    }

    /// All routes, translated.
    pub(super) fn translated(&self) -> impl Iterator<Item = (&Id, &Arc<Translated>)> {
        self.remembered.iter().map(|(id, remembered)| (id, &remembered.translated))
    }

    /// Whether a route looked this Service or Namespace up.
    pub(super) fn has_looked_up(&self, id: &Id) -> bool {
        self.looked_up.contains_key(id)
    }

    /// The Gateways that a route is attached to.
    pub(super) fn gateways(&self, id: &Id) -> BTreeSet<ObjectName> {
        let attached = self.remembered.get(id).map(|route| &*route.translated.attached).unwrap_or_default();
        attached.iter().map(|listener| listener.gateway.clone()).collect()
    }

    /// Which Gateways forward to backends that are told so, or whose policies are.
    pub(super) fn users(&self) -> Users {
        let gateways = |users: &BTreeMap<ObjectName, usize>| users.keys().cloned().collect();
        self.users.iter().map(|(backend, users)| (backend.clone(), gateways(users))).collect()
    }

    /// Puts a route in, or takes it out. Returns the Gateways whose numbers of routes are different.
    pub(super) fn put(&mut self, id: &Id, route: Option<Remembered>) -> BTreeSet<ObjectName> {
        let translated = route.as_ref().map(|route| route.translated.clone());
        // The new one first: what both have stays in place.
        if let Some(route) = &route {
            self.add(route);
        }
        let before = match route {
            Some(route) => self.remembered.insert(id.clone(), route),
            None => self.remembered.remove(id),
        };
        if let Some(before) = &before {
            self.subtract(before, translated.as_deref().and_then(|after| after.route.as_ref()));
        }
        let of = |translated: Option<&Arc<Translated>>| {
            translated.map(|translated| translated.attached.clone()).unwrap_or_default()
        };
        let (old, new) = (of(before.as_ref().map(|before| &before.translated)), of(translated.as_ref()));
        if old == new {
            return BTreeSet::new();
        }
        old.iter().chain(&*new).map(|listener| listener.gateway.clone()).collect()
    }

    /// Takes note of what became of policies of ports, in place of what was told before.
    pub(super) fn told_of_ports(&mut self, notes: BTreeSet<Note>) {
        for note in &notes {
            self.told.note(note.clone());
        }
        for note in std::mem::replace(&mut self.of_ports, notes) {
            self.told.take_back(&note);
        }
    }

    fn add(&mut self, route: &Remembered) {
        let Remembered { inputs, translated, .. } = route;
        for id in inputs.looked_up() {
            *self.looked_up.entry(id).or_default() += 1;
        }
        for listener in &*translated.attached {
            *self.attached.entry(listener.clone()).or_default() += 1;
            for backend in inputs.told_backends() {
                let users = self.users.entry(backend).or_default();
                *users.entry(listener.gateway.clone()).or_default() += 1;
            }
        }
        for note in &translated.notes {
            self.told.note(note.clone());
        }
        match &translated.route {
            Some(Routed::Http(route)) => {
                let same = reuse(self.routes.get(&route.id), route.clone());
                self.routes.insert(route.id.clone(), same);
            }
            Some(Routed::Stream(route)) => {
                let same = reuse(self.stream_routes.get(&route.id), route.clone());
                self.stream_routes.insert(route.id.clone(), same);
            }
            // Nobody serves it, nor speaks to its backends.
            None => return,
        }
        for backend in &translated.backends {
            *self.named.entry(backend.id.clone()).or_default() += 1;
            // Made of the same objects by every route that names it.
            if self.backends.get(&backend.id).is_none_or(|before| before != backend) {
                self.backends.insert(backend.id.clone(), backend.clone());
            }
        }
    }

    /// Takes out what only a route had, of which `replaced_by` is there now.
    fn subtract(&mut self, route: &Remembered, replaced_by: Option<&Routed>) {
        let Remembered { inputs, translated, .. } = route;
        for id in inputs.looked_up() {
            count_down(&mut self.looked_up, &id);
        }
        for listener in &*translated.attached {
            count_down(&mut self.attached, listener);
            for backend in inputs.told_backends() {
                if let Some(users) = self.users.get_mut(&backend) {
                    count_down(users, &listener.gateway);
                    if users.is_empty() {
                        self.users.remove(&backend);
                    }
                }
            }
        }
        for note in &translated.notes {
            self.told.take_back(note);
        }
        match &translated.route {
            Some(Routed::Http(route)) if replaced_by.is_none() => drop(self.routes.remove(&route.id)),
            Some(Routed::Stream(route)) if replaced_by.is_none() => {
                self.stream_routes.remove(&route.id);
            }
            Some(Routed::Http(_) | Routed::Stream(_)) => {}
            None => return,
        }
        for backend in &translated.backends {
            count_down(&mut self.named, &backend.id);
            if !self.named.contains_key(&backend.id) {
                self.backends.remove(&backend.id);
            }
        }
    }
}

/// One fewer; with the last it is gone.
fn count_down<K: Ord, N: Copy + PartialEq + std::ops::SubAssign + From<u8>>(
    counts: &mut BTreeMap<K, N>,
    key: &K,
) {
    if let Some(count) = counts.get_mut(key) {
        *count -= N::from(1);
        if *count == N::from(0) {
            counts.remove(key);
        }
    }
}
