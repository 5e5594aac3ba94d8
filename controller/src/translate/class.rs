//! GatewayClasses: which are ours, and what they may promise.

use crate::api::GatewayClass;
use crate::cluster::Cluster;
use crate::settings::{DEFAULT_CLASS, Mode, Settings};
use crate::status::{ClassDraft, ConditionType, Draft, Reason};
use headgate_crds::{GROUP, GatewayParametersSpec};
use headgate_proxy::model::ObjectName;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Features that are claimed: each with a conformance test that passes, or a test of ours where the suite has none. Sorted.
const FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "ClusterTrustBundle",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayAddressRoutability",
    "GatewayAddressRoutabilityCluster",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayListenerFilters",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// The classes that are ours.
#[derive(Debug, Default)]
pub(super) struct Classes {
    /// Those that are accepted.
    accepted: Vec<String>,
    /// What all of them are told.
    pub(super) drafts: BTreeMap<ObjectName, Arc<ClassDraft>>,
}

impl Classes {
    pub(super) fn of(cluster: &Cluster, settings: &Settings) -> Self {
        let mut classes = Self::default();
        let assumed = settings.mode == Mode::Files && cluster.gateway_classes.is_empty();
        classes.accepted.extend(assumed.then(|| DEFAULT_CLASS.to_owned()));
        for (name, class) in &cluster.gateway_classes {
            if *class.spec.controller_name != *settings.controller_name {
                continue;
            }
            let accepted = match parameters(cluster, class) {
                Ok(_) => Draft::new(
                    ConditionType::Accepted,
                    true,
                    Reason::Accepted,
                    "Headgate serves Gateways of this class",
                ),
                Err(why) => Draft::new(ConditionType::Accepted, false, Reason::InvalidParameters, why),
            };
            if accepted.status {
                classes.accepted.push(name.name.to_string());
            }
            let draft = ClassDraft {
                generation: class.metadata.generation.unwrap_or_default(),
                conditions: vec![accepted],
                features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
            };
            classes.drafts.insert(name.clone(), Arc::new(draft));
        }
        classes
    }

    /// Whether Gateways of a class are ours to serve.
    pub(super) fn serve(&self, class: &str) -> bool {
        self.accepted.iter().any(|accepted| accepted == class)
    }
}

/// The parameters that a class names, if it names some.
pub(crate) fn parameters<'a>(
    cluster: &'a Cluster,
    class: &GatewayClass,
) -> Result<Option<&'a GatewayParametersSpec>, String> {
    let Some(reference) = &class.spec.parameters_ref else { return Ok(None) };
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    named(cluster, &reference.group, &reference.kind, namespace, &reference.name)
        .map(Some)
        .map_err(|why| format!("spec.parametersRef: {why}"))
}

/// The GatewayParameters that a reference names.
pub(crate) fn named<'a>(
    cluster: &'a Cluster,
    group: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<&'a GatewayParametersSpec, String> {
    if group != GROUP || kind != "GatewayParameters" {
        return Err(format!("{group}/{kind} is not supported; name a GatewayParameters of group {GROUP}"));
    }
    let name = ObjectName::new(namespace, name);
    match cluster.gateway_parameters.get(&name) {
        Some(parameters) => Ok(&parameters.spec),
        None => Err(format!("GatewayParameters {name} doesn't exist")),
    }
}

#[cfg(test)]
mod tests {
    use super::FEATURES;

    #[test]
    fn features_are_sorted_as_the_api_demands() {
        assert!(FEATURES.is_sorted());
    }
}
