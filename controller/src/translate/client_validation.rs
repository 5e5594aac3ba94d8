//! Validation of clients' certificates: `spec.tls.frontend` of a Gateway, for its HTTPS listeners (GEP-91).
//!
//! A port's own setting takes the place of the default, even when it is empty. Where authorities are named and none can be
//! had, the listener isn't served: nobody is let in without the validation that was asked for.

use super::bundle::BundleRef;
use super::gateway::Context;
use super::grants::Reference;
use crate::api::Gateway;
use crate::api::gateway::{DefaultValidation, DefaultValidationMode, PortValidation, PortValidationMode};
use crate::status::{ConditionType, Draft, Reason};
use headgate_proxy::model::{ClientValidation, ClientValidationMode, ObjectName};
use std::sync::Arc;

/// A setting, whichever type of the API it is of.
struct Setting<'a> {
    field: String,
    mode: ClientValidationMode,
    references: Vec<BundleRef<'a>>,
}

/// Types of their own in the API, alike in every field.
macro_rules! setting {
    ($name:ident, $validation:ty, $mode:ident) => {
        fn $name<'a>(field: String, namespace: &'a str, from: &'a $validation) -> Setting<'a> {
            let mode = match from.mode {
                Some($mode::AllowInsecureFallback) => ClientValidationMode::InsecureFallback,
                Some($mode::AllowValidOnly) | None => ClientValidationMode::ValidOnly,
            };
            let references = from.ca_certificate_refs.iter().map(|reference| BundleRef {
                group: &reference.group,
                kind: &reference.kind,
                namespace: reference.namespace.as_deref().unwrap_or(namespace),
                name: &reference.name,
            });
            Setting { field, mode, references: references.collect() }
        }
    };
}

setting!(of_default, DefaultValidation, DefaultValidationMode);
setting!(of_one_port, PortValidation, PortValidationMode);

fn setting<'a>(namespace: &'a str, gateway: &'a Gateway, port: i32) -> Option<Setting<'a>> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let mut ports = frontend.per_port.iter().flatten().enumerate();
    match ports.find(|(_, own)| own.port == port) {
        Some((n, own)) => {
            let field = format!("spec.tls.frontend.perPort[{n}].tls.validation");
            own.tls.validation.as_ref().map(|from| of_one_port(field, namespace, from))
        }
        None => {
            let field = "spec.tls.frontend.default.validation".to_owned();
            frontend.default.validation.as_ref().map(|from| of_default(field, namespace, from))
        }
    }
}

/// What clients of a listener must show, or why that can't be honoured.
type Validation = Result<Option<Arc<ClientValidation>>, String>;

/// What holds on a port: the setting, or why none can be honoured; and the first reference that can't be followed.
pub(super) fn of_port(
    context: &mut Context<'_>,
    name: &ObjectName,
    gateway: &Gateway,
    port: i32,
) -> (Validation, Result<(), (Reason, String)>) {
    let Some(setting) = setting(&name.namespace, gateway, port) else { return (Ok(None), Ok(())) };
    let (mut bundles, mut resolved) = (Vec::new(), Ok(()));
    for (n, reference) in setting.references.iter().enumerate() {
        match resolve(context, &name.namespace, reference) {
            Ok(bundle) => bundles.push(bundle),
            Err((reason, why)) if resolved.is_ok() => {
                resolved = Err((reason, format!("{}.caCertificateRefs[{n}]: {why}", setting.field)));
            }
            Err(_) => {}
        }
    }
    if bundles.is_empty() {
        let why = format!("{}: no client can be validated; name a bundle of authorities", setting.field);
        return (Err(why), resolved);
    }
    (Ok(Some(Arc::new(ClientValidation { mode: setting.mode, bundles }))), resolved)
}

fn resolve(
    context: &mut Context<'_>,
    namespace: &str,
    reference: &BundleRef<'_>,
) -> Result<headgate_proxy::model::Text, (Reason, String)> {
    let to = ObjectName::new(reference.namespace, reference.name);
    let (to_group, to_kind) = (reference.group, reference.kind);
    let wanted = Reference { from_kind: "Gateway", from_namespace: namespace, to_group, to_kind, to: &to };
    if !context.grants.permit(&wanted) {
        let why = format!(
            "{to_kind} {to} is in another namespace, and no ReferenceGrant there lets Gateways of {namespace} use it"
        );
        return Err((Reason::RefNotPermitted, why));
    }
    context.bundles.resolve(context.cluster, reference).map_err(|(reason, why)| {
        (if reason == Reason::InvalidKind { Reason::InvalidCACertificateKind } else { reason }, why)
    })
}

/// Says that clients are let in whose certificates aren't valid, where they are.
pub(super) fn insecure(gateway: &Gateway) -> Option<Draft> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let by_default = frontend.default.validation.as_ref().and_then(|validation| validation.mode.as_ref());
    let mut ports = frontend.per_port.iter().flatten();
    let fallback = by_default == Some(&DefaultValidationMode::AllowInsecureFallback)
        || ports.any(|port| {
            let mode = port.tls.validation.as_ref().and_then(|validation| validation.mode.as_ref());
            mode == Some(&PortValidationMode::AllowInsecureFallback)
        });
    fallback.then(|| {
        let why = "spec.tls.frontend: AllowInsecureFallback lets clients in whose certificates aren't valid";
        let kind = ConditionType::InsecureFrontendValidationMode;
        Draft::new(kind, true, Reason::ConfigurationChanged, why)
    })
}
