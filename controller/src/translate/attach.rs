//! Which listeners a route attaches to, and why not to others.

use super::gateway::View as GatewayView;
use super::listener::{Namespaces, View};
use super::lookup::Lookup;
use crate::api::GROUP;
use crate::api::route::ParentRef;
use crate::status::Reason;
use headgate_proxy::model::{HostPattern, ListenerId, ObjectName};
use kube::core::{Selector, SelectorExt};

/// The route that wants to attach.
pub(super) struct Wanting<'a> {
    pub(super) kind: &'static str,
    pub(super) namespace: &'a str,
    pub(super) hostnames: &'a [HostPattern],
}

/// Who may have listeners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ParentName {
    Gateway(ObjectName),
    ListenerSet(ObjectName),
}

/// What a reference names, if it is a kind that has listeners.
pub(super) fn parent_name(parent: &ParentRef, namespace: &str) -> Option<ParentName> {
    let kind = match parent.kind.as_deref() {
        _ if parent.group.as_deref().unwrap_or(GROUP) != GROUP => return None,
        None | Some("Gateway") => ParentName::Gateway,
        Some("ListenerSet") => ParentName::ListenerSet,
        Some(_) => return None,
    };
    Some(kind(ObjectName::new(parent.namespace.as_deref().unwrap_or(namespace), parent.name.as_str())))
}

/// The listeners of a Gateway that take a route, by one of its `parentRefs`; at least one.
pub(super) fn attach(
    lookup: &mut Lookup<'_>,
    gateway: &GatewayView,
    parent: &ParentRef,
    route: &Wanting<'_>,
) -> Result<Vec<ListenerId>, (Reason, String)> {
    let named = |listener: &&View| {
        parent.section_name.as_deref().is_none_or(|name| *name == *listener.id.name)
            && parent.port.is_none_or(|port| port == i32::from(listener.port))
    };
    let candidates: Vec<&View> = gateway.listeners.iter().filter(named).collect();
    if candidates.is_empty() {
        return Err((Reason::NoMatchingParent, nowhere(gateway, parent)));
    }
    let mut refusal = None;
    let mut allowed = Vec::with_capacity(candidates.len());
    for listener in candidates {
        let name = &listener.id.name;
        let why = if !listener.kinds.contains(&route.kind) {
            format!("listener {name} doesn't take {}s", route.kind)
        } else if !allows(lookup, listener, route.namespace) {
            format!(
                "listener {name} doesn't take routes from namespace {} (allowedRoutes.namespaces)",
                route.namespace
            )
        } else {
            allowed.push(listener);
            continue;
        };
        refusal.get_or_insert(why);
    }
    if allowed.is_empty() {
        return Err((Reason::NotAllowedByListeners, refusal.unwrap_or_default()));
    }
    let meets =
        |listener: &&View| route.hostnames.iter().any(|hostname| hostname.intersects(&listener.hostname));
    let taken: Vec<_> = allowed.into_iter().filter(meets).map(|listener| listener.id.clone()).collect();
    if taken.is_empty() {
        let why = "spec.hostnames has none that a listener of the Gateway serves".to_owned();
        return Err((Reason::NoMatchingListenerHostname, why));
    }
    Ok(taken)
}

/// Says what a reference asks for, and what there is.
fn nowhere(gateway: &GatewayView, parent: &ParentRef) -> String {
    let asked = match (parent.section_name.as_deref(), parent.port) {
        (Some(name), Some(port)) => format!("sectionName {name} and port {port}"),
        (Some(name), None) => format!("sectionName {name}"),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => return "the Gateway has no listener".to_owned(),
    };
    let listener = |listener: &View| format!("{} ({})", listener.id.name, listener.port);
    let there: Vec<_> = gateway.listeners.iter().map(listener).collect();
    format!("no listener of the Gateway has {asked}; it has {}", there.join(", "))
}

fn allows(lookup: &mut Lookup<'_>, listener: &View, namespace: &str) -> bool {
    match &listener.namespaces {
        Namespaces::All => true,
        Namespaces::None => false,
        Namespaces::Same => {
            let owner = listener.id.listener_set.as_ref().unwrap_or(&listener.id.gateway);
            *owner.namespace == *namespace
        }
        Namespaces::Selector(selector) => {
            let labels = lookup.namespace_labels(namespace);
            // It was compiled when the listener was judged.
            Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels))
        }
    }
}
