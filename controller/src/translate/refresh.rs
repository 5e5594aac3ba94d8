//! Which routes are translated again: those that changed, and those that looked at something that did.

use super::lookup::{Around, Lookup};
use super::route::Translated;
use super::tally::{Id, Tally};
use super::{Remembered, Touched, reuse};
use crate::api::route::Route;
use crate::cluster::{Packed, Store};
use headgate_proxy::model::ObjectName;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Brings a tally up to date.
pub(super) struct Refresh<'a> {
    /// What routes may look at.
    pub(super) around: Around<'a>,
    /// Nothing but these routes is different; `None`: anything may be.
    pub(super) only: Option<&'a BTreeSet<Id>>,
    pub(super) tally: &'a mut Tally,
    /// Gets what is different then.
    pub(super) touched: &'a mut Touched,
}

impl Refresh<'_> {
    /// Brings routes of a kind up to date.
    pub(super) fn of<K: Route>(
        &mut self,
        store: &Store<Packed<K>>,
        translate: impl Fn(&mut Lookup<'_>, &ObjectName, &K) -> Translated,
    ) {
        if let Some(only) = self.only {
            for id in only.iter().filter(|(kind, _)| *kind == K::KIND) {
                self.one(id, store.get(&id.1), &translate);
            }
            return;
        }
        let known = self.tally.ids().filter(|(kind, _)| *kind == K::KIND);
        let gone: Vec<Id> = known.filter(|(_, name)| !store.contains_key(name)).cloned().collect();
        for id in &gone {
            self.one(id, None, &translate);
        }
        let before = self.tally.len();
        for (name, route) in store {
            self.one(&(K::KIND, name.clone()), Some(route), &translate);
        }
        if self.tally.len() > 2 * before {
            self.tally.pack();
        }
    }

    fn one<K: Route>(
        &mut self,
        id: &Id,
        route: Option<&Arc<Packed<K>>>,
        translate: impl Fn(&mut Lookup<'_>, &ObjectName, &K) -> Translated,
    ) {
        let Self { around, tally, touched, .. } = self;
        let mut remembered = None;
        if let Some(route) = route {
            let known = tally.get(id);
            if known.is_some_and(|known| {
                Arc::ptr_eq(&known.route, route.body()) && known.inputs.are_current(around)
            }) {
                return;
            }
            let mut lookup = Lookup::new(around).after(tally.listeners_last.clone());
            let mut translated = translate(&mut lookup, &id.1, &route.unpack());
            // Made of the same objects by every route that names it: kept once.
            for backend in &mut translated.backends {
                *backend = reuse(tally.backends.get(&backend.id), backend.clone());
            }
            translated.backends.shrink_to_fit();
            // Most of a Gateway's routes are told the same.
            translated.draft = reuse(tally.told_last.as_ref(), translated.draft);
            tally.told_last = Some(translated.draft.clone());
            tally.listeners_last = Some(translated.attached.clone());
            let translated = Arc::new(translated);
            remembered =
                Some(Remembered { route: route.body().clone(), inputs: lookup.into_inputs(), translated });
        }
        touched.gateways.extend(tally.put(id, remembered));
        touched.routes.insert(id.clone());
    }
}
