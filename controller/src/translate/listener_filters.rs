//! Filters of listeners: who is asked about every request before it is routed.
//!
//! A filter whose backend can't be had makes the listener answer 500: nobody to ask is no reason to let anybody pass. One that
//! isn't supported makes it not accepted.

use super::backend_ref::resolve;
use super::filters;
use super::gateway::Context;
use super::listener_set::Owner;
use super::lookup::{Around, Lookup, Views};
use super::policy;
use crate::api::gateway::{Listener, ListenerFilter as ApiFilter, ListenerFilterType as FilterType};
use crate::api::http_route::{BackendRef, ExternalAuth};
use crate::status::Reason;
use headgate_proxy::model::{Backend, ListenerFilter};
use std::sync::Arc;

/// What a listener's filters come to.
pub(super) struct Filtered {
    pub(super) filters: Vec<ListenerFilter>,
    /// Whom they ask.
    pub(super) backends: Vec<Arc<Backend>>,
    /// What is wrong with the first that can't be honoured.
    pub(super) refused: Option<(Reason, String)>,
    /// What is wrong with the first whose backend can't be had.
    pub(super) resolved: Result<(), (Reason, String)>,
}

/// Translates the filters of a listener, in their order.
pub(super) fn translate(context: &Context<'_>, owner: &Owner<'_>, listener: &Listener) -> Filtered {
    let mut filtered =
        Filtered { filters: Vec::new(), backends: Vec::new(), refused: None, resolved: Ok(()) };
    let requests = listener.filters.as_ref().and_then(|filters| filters.requests.as_deref());
    let (views, governing) = (Views::new(), policy::Policies::default());
    let around = Around {
        cluster: context.cluster,
        views: &views,
        grants: context.grants,
        policies: context.policies,
        destinations: context.destinations,
        governing: &governing,
    };
    for (n, filter) in requests.unwrap_or_default().iter().enumerate() {
        let field = |why: String| format!("filters.requests[{n}].{why}");
        let from = match external_auth(filter) {
            Ok(from) => from,
            Err(why) => {
                filtered.refused.get_or_insert((Reason::Invalid, field(why)));
                continue;
            }
        };
        let reference = BackendRef {
            group: from.backend_ref.group.clone(),
            kind: from.backend_ref.kind.clone(),
            name: from.backend_ref.name.clone(),
            namespace: from.backend_ref.namespace.clone(),
            port: from.backend_ref.port,
            ..BackendRef::default()
        };
        let (kind, namespace) = owner.origin();
        match resolve(&mut Lookup::new(&around), kind, namespace, &reference) {
            Ok(backend) => match filters::authorizer(&from, backend.id.clone()) {
                Ok(auth) => {
                    filtered.filters.push(ListenerFilter::ExternalAuth(auth));
                    filtered.backends.push(Arc::new(backend));
                }
                Err(why) => {
                    let why = field(format!("externalAuth.{why}"));
                    filtered.refused.get_or_insert((Reason::Invalid, why));
                }
            },
            Err(refused) => {
                filtered.filters.push(ListenerFilter::Fail(refused.failure));
                let why = field(format!("externalAuth.backendRef: {}", refused.why));
                filtered.resolved = filtered.resolved.and(Err((refused.reason, why)));
            }
        }
    }
    filtered
}

/// A filter in the form of a route's: types of their own in the API, alike in every field.
fn external_auth(filter: &ApiFilter) -> Result<ExternalAuth, String> {
    match filter.r#type {
        FilterType::ExtensionRef => {
            Err("extensionRef: there is no kind of filter that could be named; remove it".to_owned())
        }
        FilterType::ExternalAuth => {
            let from =
                filter.external_auth.as_ref().ok_or("externalAuth is missing; the filter's type needs it")?;
            let same = serde_json::to_value(from).and_then(serde_json::from_value);
            same.map_err(|error| format!("externalAuth: {error}"))
        }
    }
}
