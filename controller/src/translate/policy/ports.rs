//! What ClientPolicies say of a port's connections: of clients there is no request yet by which one of its listeners could be
//! chosen, so that all of them have to say the same. Where they don't, what the Gateway's own policies say holds.

use super::client::{Sections, clients, is_of_requests};
use super::merge::{Field, Merged, Refused};
use super::scope::Became;
use super::{Attached, Came, Level, Note, Policies, Policy, levels_of};
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
        let all: Vec<_> = port.listeners.iter().map(|listener| self.of_connections(listener)).collect();
        let agreed = all.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let (merged, clients) = match agreed {
            true => self.of_connections(first),
            false => connections(&levels_of([(self.at(Kind::Gateway, &first.id.gateway), None)])),
        };
        let mut note = |policy: &model::ObjectName, what| {
            let policy = (Kind::ClientPolicy, policy.clone());
            notes.insert(Note { policy, gateway: first.id.gateway.clone(), what });
        };
        let in_force: BTreeSet<_> = of_connections(&merged).map(|field| field.policy.clone()).collect();
        let differ = port.listeners.iter().zip(&all).filter(|(_, (_, own))| *own != clients);
        for (listener, (own, _)) in differ {
            let why = format!(
                "listener {} shares port {} with others that say otherwise of connections and heads: what \
                 the Gateway's own policies say holds",
                listener.id.name, port.id.port
            );
            let left_out = of_connections(own).filter(|field| !in_force.contains(&field.policy));
            for field in left_out {
                note(&field.policy, Became::Incomplete(why.clone()));
            }
        }
        for field in of_connections(&merged) {
            note(&field.policy, Became::InForce);
        }
        for Refused { loser, path, winner } in &merged.refused {
            note(loser, Became::Refused(path.clone(), winner.clone()));
        }
        if let Err(why) = check_clients(&clients) {
            // Each by itself was right: together they aren't, and nobody is believed.
            for field in of_connections(&merged) {
                note(&field.policy, Became::Incomplete(format!("together with others: {why}")));
            }
            return None;
        }
        (clients != model::Clients::default()).then(|| Arc::new(clients))
    }

    fn at(&self, kind: Kind, name: &model::ObjectName) -> Option<&Attached> {
        self.attached.get(&(Kind::ClientPolicy, (kind, name.clone()))).map(|attached| &**attached)
    }

    fn of_connections(&self, listener: &Listener) -> (Merged, model::Clients) {
        let (id, name) = (&listener.id, &*listener.id.name);
        let gateway = self.at(Kind::Gateway, &id.gateway);
        let parts = match &id.listener_set {
            None => [(gateway, Some(name)), (None, None)],
            Some(set) => [(gateway, None), (self.at(Kind::ListenerSet, set), Some(name))],
        };
        connections(&levels_of(parts))
    }
}

/// The fields that aren't of requests.
fn of_connections(merged: &Merged) -> impl Iterator<Item = &Field> {
    merged.fields.iter().filter(|(path, _)| !is_of_requests(path)).map(|(_, field)| field)
}

fn connections(levels: &[&Level]) -> (Merged, model::Clients) {
    let merged = Came::of(&ClientPolicy::SHAPE, levels).enforced;
    fn part<T: DeserializeOwned>(merged: &Merged, name: &str) -> Option<T> {
        serde_json::from_value(merged.member(name)).ok()
    }
    let clients = clients(&Sections {
        limits: part(&merged, "limits"),
        timeouts: part(&merged, "timeouts"),
        client_ip: part(&merged, "clientIP"),
        http2: part(&merged, "http2"),
        headers: part(&merged, "headers"),
        path: part(&merged, "path"),
        tls: part(&merged, "tls"),
    });
    (merged, clients)
}
