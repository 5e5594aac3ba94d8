//! The Gateway API's types, v1.7.0, experimental channel.
//!
//! The only place that knows where a type comes from: the gateway-api crate where it has all fields of that version,
//! else `generated/`, which `hack/gen.sh` writes from the CRDs. When the crate catches up, a kind moves here and nowhere
//! else.

mod generated;

/// `GatewayClass`.
pub mod gateway_class {
    pub use gateway_api::gatewayclasses::{
        GatewayClass, GatewayClassSpec, GatewayClassStatus,
        GatewayClassStatusSupportedFeatures as SupportedFeature,
    };
}

/// `Gateway`.
pub mod gateway {
    pub use super::generated::gateways::{
        Gateway, GatewayAddresses as Address, GatewayInfrastructure as Infrastructure,
        GatewayListeners as Listener, GatewayListenersAllowedRoutes as AllowedRoutes,
        GatewayListenersAllowedRoutesKinds as RouteGroupKind,
        GatewayListenersAllowedRoutesNamespaces as RouteNamespaces,
        GatewayListenersAllowedRoutesNamespacesFrom as NamespacesFrom,
        GatewayListenersAllowedRoutesNamespacesSelector as NamespaceSelector,
        GatewayListenersAllowedRoutesNamespacesSelectorMatchExpressions as SelectorExpression,
        GatewayListenersTls as ListenerTls, GatewayListenersTlsCertificateRefs as CertificateRef,
        GatewayListenersTlsMode as TlsMode, GatewaySpec, GatewayStatus,
        GatewayStatusAddresses as StatusAddress, GatewayStatusListeners as ListenerStatus,
        GatewayStatusListenersSupportedKinds as SupportedKind,
    };
}

/// `HTTPRoute`.
pub mod http_route {
    pub use super::generated::httproutes::{
        HttpRoute, HttpRouteParentRefs as ParentRef, HttpRouteRules as Rule,
        HttpRouteRulesBackendRefs as BackendRef, HttpRouteRulesBackendRefsFilters as BackendFilter,
        HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersRequestHeaderModifier as RequestHeaderModifier,
        HttpRouteRulesFiltersRequestRedirect as RequestRedirect,
        HttpRouteRulesFiltersRequestRedirectPath as RedirectPath,
        HttpRouteRulesFiltersRequestRedirectPathType as RedirectPathType,
        HttpRouteRulesFiltersRequestRedirectScheme as RedirectScheme,
        HttpRouteRulesFiltersResponseHeaderModifier as ResponseHeaderModifier,
        HttpRouteRulesFiltersType as FilterType, HttpRouteRulesFiltersUrlRewrite as UrlRewrite,
        HttpRouteRulesFiltersUrlRewritePath as RewritePath,
        HttpRouteRulesFiltersUrlRewritePathType as RewritePathType, HttpRouteRulesMatches as Match,
        HttpRouteRulesMatchesHeaders as HeaderMatch, HttpRouteRulesMatchesHeadersType as HeaderMatchType,
        HttpRouteRulesMatchesMethod as Method, HttpRouteRulesMatchesPath as PathMatch,
        HttpRouteRulesMatchesPathType as PathMatchType, HttpRouteRulesMatchesQueryParams as QueryMatch,
        HttpRouteRulesMatchesQueryParamsType as QueryMatchType, HttpRouteRulesTimeouts as Timeouts,
        HttpRouteSpec, HttpRouteStatus, HttpRouteStatusParents as ParentStatus,
        HttpRouteStatusParentsParentRef as StatusParentRef,
    };
}

/// `ReferenceGrant`.
pub mod reference_grant {
    pub use gateway_api::referencegrants::{
        ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo,
    };
}

pub use gateway::Gateway;
pub use gateway_class::GatewayClass;
pub use http_route::HttpRoute;
pub use reference_grant::ReferenceGrant;

/// The group of all Gateway API kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";
