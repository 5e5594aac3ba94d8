//! Which routes are translated again: those that changed, and those that looked at something that did.

use super::lookup::{Around, Lookup};
use super::route::Translated;
use super::tally::{Id, Tally};
use super::{Remembered, Touched};
use crate::cluster::{Store, Watched};
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
    pub(super) fn of<K: Watched>(
        &mut self,
        store: &Store<K>,
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
        for (name, route) in store {
            self.one(&(K::KIND, name.clone()), Some(route), &translate);
        }
    }

    fn one<K: Watched>(
        &mut self,
        id: &Id,
        route: Option<&Arc<K>>,
        translate: impl Fn(&mut Lookup<'_>, &ObjectName, &K) -> Translated,
    ) {
        let Self { around, tally, touched, .. } = self;
        let mut remembered = None;
        if let Some(route) = route {
            let object = route.clone().wrap();
            let known = tally.get(id);
            if known.is_some_and(|known| known.route.is(&object) && known.inputs.are_current(around)) {
                return;
            }
            let mut lookup = Lookup::new(around);
            let translated = Arc::new(translate(&mut lookup, &id.1, route));
            remembered = Some(Remembered { route: object, inputs: lookup.into_inputs(), translated });
        }
        touched.gateways.extend(tally.put(id, remembered));
        touched.routes.insert(id.clone());
    }
}
