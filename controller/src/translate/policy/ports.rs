//! What ClientPolicies say of a port's connections: of clients there is no request yet by which one of its listeners could be
//! chosen, so that all of them have to say the same. Where they don't, what the Gateway's own policies say holds.

use super::client::{Sections, clients, is_of_requests, trial};
use super::merge::{Field, Merged, Refused};
use super::scope::Became;
use super::{Attached, Came, Note, Policies, Policy, levels_of};
use crate::cluster::Kind;
use headgate_crds::ClientPolicy;
use headgate_proxy::check_clients;
use headgate_proxy::model::{self, Listener, Port};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Policies {
    /// How clients may talk to a port, where it isn't as usual; and what became of policies.
    pub(in crate::translate) fn clients(
        &self,
        port: &Port,
        notes: &mut BTreeSet<Note>,
    ) -> Option<Arc<model::Clients>> {
        let first = port.listeners.first()?;
        let all: Vec<_> = port.listeners.iter().map(|listener| self.at_listener(listener)).collect();
        let own = self.at(Kind::Gateway, &first.id.gateway);
        let otherwise = Came::of(&ClientPolicy::SHAPE, &levels_of([(own, None)]));
        let enforced = Agreed::of(all.iter().map(|came| &came.enforced), &otherwise.enforced, clients);
        let tried = Agreed::of(all.iter().map(|came| &came.tried), &otherwise.tried, trial);
        let mut note = |policy: &model::ObjectName, what| {
            let policy = (Kind::ClientPolicy, policy.clone());
            notes.insert(Note { policy, gateway: first.id.gateway.clone(), what });
        };
        enforced.tell(port, |_| true, &mut note);
        let shadows = all.iter().flat_map(|came| &came.sources).filter(|source| source.shadow);
        let shadows: BTreeSet<_> = shadows.map(|source| &source.name).collect();
        tried.tell(port, |policy| shadows.contains(policy), &mut note);
        if let Err(why) = check_clients(&enforced.says) {
            // Each by itself was right: together they aren't, and nobody is believed.
            for field in of_connections(enforced.merged) {
                note(&field.policy, Became::Incomplete(format!("together with others: {why}")));
            }
            return None;
        }
        let trial = (!tried.merged.fields.is_empty()).then_some(tried.says);
        let clients = model::Clients { trial, ..enforced.says };
        (clients != model::Clients::default()).then(|| Arc::new(clients))
    }

    fn at(&self, kind: Kind, name: &model::ObjectName) -> Option<&Attached> {
        self.attached.get(&(Kind::ClientPolicy, (kind, name.clone()))).map(|attached| &**attached)
    }

    /// What policies come to for a listener.
    fn at_listener(&self, listener: &Listener) -> Came {
        let (id, name) = (&listener.id, &*listener.id.name);
        let gateway = self.at(Kind::Gateway, &id.gateway);
        let parts = match &id.listener_set {
            None => [(gateway, Some(name)), (None, None)],
            Some(set) => [(gateway, None), (self.at(Kind::ListenerSet, set), Some(name))],
        };
        Came::of(&ClientPolicy::SHAPE, &levels_of(parts))
    }
}

/// What holds for a port.
struct Agreed<'m, T> {
    /// What all listeners come to, else what the Gateway's own policies do.
    merged: &'m Merged,
    /// What that says.
    says: T,
    /// What each listener comes to, where that says something else.
    others: Vec<Option<&'m Merged>>,
}

impl<'m, T: PartialEq> Agreed<'m, T> {
    fn of(
        listeners: impl Iterator<Item = &'m Merged>,
        otherwise: &'m Merged,
        read: fn(&Sections) -> T,
    ) -> Self {
        let each: Vec<(&Merged, T)> = listeners.map(|merged| (merged, read(&sections(merged)))).collect();
        let agreed = each.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let merged = each.first().filter(|_| agreed).map_or(otherwise, |(merged, _)| merged);
        let says = read(&sections(merged));
        let others = each.iter().map(|(own, said)| (*said != says).then_some(*own)).collect();
        Self { merged, says, others }
    }

    /// Tells what became of policies, of those that it is about.
    fn tell(
        &self,
        port: &Port,
        is_about: impl Fn(&model::ObjectName) -> bool,
        note: &mut impl FnMut(&model::ObjectName, Became),
    ) {
        let in_force: BTreeSet<_> = of_connections(self.merged).map(|field| &field.policy).collect();
        let others = port.listeners.iter().zip(&self.others);
        for (listener, own) in others.filter_map(|(listener, own)| Some((listener, (*own)?))) {
            let why = format!(
                "listener {} shares port {} with others that say otherwise of connections and heads: what \
                 the Gateway's own policies say holds",
                listener.id.name, port.id.port
            );
            let left_out = of_connections(own).filter(|field| !in_force.contains(&field.policy));
            for field in left_out.filter(|field| is_about(&field.policy)) {
                note(&field.policy, Became::Incomplete(why.clone()));
            }
        }
        for policy in in_force.into_iter().filter(|policy| is_about(policy)) {
            note(policy, Became::InForce);
        }
        for Refused { loser, path, winner } in self.merged.refused.iter().filter(|one| is_about(&one.loser)) {
            note(loser, Became::Refused(path.clone(), winner.clone()));
        }
    }
}

/// The fields that aren't of requests.
fn of_connections(merged: &Merged) -> impl Iterator<Item = &Field> {
    merged.fields.iter().filter(|(path, _)| !is_of_requests(path)).map(|(_, field)| field)
}

fn sections(merged: &Merged) -> Sections {
    fn part<T: DeserializeOwned>(merged: &Merged, name: &str) -> Option<T> {
        serde_json::from_value(merged.member(name)).ok()
    }
    Sections {
        limits: part(merged, "limits"),
        timeouts: part(merged, "timeouts"),
        client_ip: part(merged, "clientIP"),
        http2: part(merged, "http2"),
        headers: part(merged, "headers"),
        path: part(merged, "path"),
        tls: part(merged, "tls"),
    }
}
