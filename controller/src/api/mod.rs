//! The Gateway API's types, v1.7.0, experimental channel.
//!
//! The only place that knows where a type comes from: the gateway-api crate where it has all fields of that version,
//! else `generated/`, which `hack/gen.sh` writes from the CRDs. When the crate catches up, a kind moves here and nowhere
//! else.

mod generated;
pub mod policy;
pub mod route;

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
        Gateway, GatewayAddresses as Address, GatewayAllowedListenersNamespacesFrom as AllowedListenersFrom,
        GatewayInfrastructure as Infrastructure, GatewayListeners as Listener,
        GatewayListenersAllowedRoutes as AllowedRoutes, GatewayListenersAllowedRoutesKinds as RouteGroupKind,
        GatewayListenersAllowedRoutesNamespaces as RouteNamespaces,
        GatewayListenersAllowedRoutesNamespacesFrom as NamespacesFrom,
        GatewayListenersAllowedRoutesNamespacesSelector as NamespaceSelector,
        GatewayListenersAllowedRoutesNamespacesSelectorMatchExpressions as SelectorExpression,
        GatewayListenersFiltersRequests as ListenerFilter,
        GatewayListenersFiltersRequestsType as ListenerFilterType, GatewayListenersTls as ListenerTls,
        GatewayListenersTlsCertificateRefs as CertificateRef, GatewayListenersTlsMode as TlsMode,
        GatewaySpec, GatewayStatus, GatewayStatusAddresses as StatusAddress,
        GatewayStatusListeners as ListenerStatus, GatewayStatusListenersSupportedKinds as SupportedKind,
        GatewayTlsFrontendDefaultValidation as DefaultValidation,
        GatewayTlsFrontendDefaultValidationMode as DefaultValidationMode,
        GatewayTlsFrontendPerPortTlsValidation as PortValidation,
        GatewayTlsFrontendPerPortTlsValidationMode as PortValidationMode,
    };
}

/// `HTTPRoute`.
pub mod http_route {
    pub use super::generated::httproutes::{
        HttpRoute, HttpRouteRules as Rule, HttpRouteRulesBackendRefs as BackendRef,
        HttpRouteRulesBackendRefsFilters as BackendFilter, HttpRouteRulesFilters as Filter,
        HttpRouteRulesFiltersCors as Cors, HttpRouteRulesFiltersExternalAuth as ExternalAuth,
        HttpRouteRulesFiltersExternalAuthHttp as HttpAuth,
        HttpRouteRulesFiltersExternalAuthProtocol as ExternalAuthProtocol,
        HttpRouteRulesFiltersRequestHeaderModifier as RequestHeaderModifier,
        HttpRouteRulesFiltersRequestMirror as RequestMirror,
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
        HttpRouteRulesMatchesQueryParamsType as QueryMatchType, HttpRouteRulesRetry as Retry,
        HttpRouteRulesSessionPersistence as SessionPersistence,
        HttpRouteRulesSessionPersistenceCookieLifetimeType as CookieLifetimeType,
        HttpRouteRulesSessionPersistenceType as SessionPersistenceType, HttpRouteRulesTimeouts as Timeouts,
        HttpRouteSpec,
    };
}

/// `GRPCRoute`.
pub mod grpc_route {
    pub use super::generated::grpcroutes::{
        GrpcRoute, GrpcRouteRules as Rule, GrpcRouteRulesMatches as Match,
        GrpcRouteRulesMatchesHeaders as HeaderMatch, GrpcRouteRulesMatchesHeadersType as HeaderMatchType,
        GrpcRouteRulesMatchesMethod as MethodMatch, GrpcRouteRulesMatchesMethodType as MethodMatchType,
        GrpcRouteSpec,
    };
}

/// `ListenerSet`.
pub mod listener_set {
    pub use super::generated::listenersets::{
        ListenerSet, ListenerSetSpec, ListenerSetStatus, ListenerSetStatusListeners as ListenerStatus,
        ListenerSetStatusListenersSupportedKinds as SupportedKind,
    };
}

/// `TCPRoute`.
pub mod tcp_route {
    pub use super::generated::tcproutes::{TcpRoute, TcpRouteSpec};
}

/// `TLSRoute`.
pub mod tls_route {
    pub use gateway_api::tlsroutes::{TlsRoute, TlsRouteSpec};
}

/// `UDPRoute`.
pub mod udp_route {
    pub use super::generated::udproutes::{UdpRoute, UdpRouteSpec};
}

/// `BackendTLSPolicy`.
pub mod backend_tls_policy {
    pub use gateway_api::backendtlspolicies::{
        BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsPolicyStatus,
        BackendTlsPolicyStatusAncestors as AncestorStatus,
        BackendTlsPolicyStatusAncestorsAncestorRef as AncestorRef, BackendTlsPolicyTargetRefs as TargetRef,
        BackendTlsPolicyValidation as Validation,
        BackendTlsPolicyValidationCaCertificateRefs as CaCertificateRef,
        BackendTlsPolicyValidationSubjectAltNames as SubjectAltName,
        BackendTlsPolicyValidationSubjectAltNamesType as SubjectAltNameType,
    };
}

/// `ReferenceGrant`.
pub mod reference_grant {
    pub use gateway_api::referencegrants::{
        ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo,
    };
}

/// `XBackend`.
pub mod x_backend {
    pub use super::generated::xbackends::{
        XBackend, XBackendProtocol as Protocol, XBackendSpec, XBackendStatus,
        XBackendStatusAncestors as AncestorStatus, XBackendTls as Tls, XBackendTlsMode as TlsMode,
        XBackendType as Type,
    };
}

/// `XBackendTrafficPolicy`.
pub mod x_backend_traffic_policy {
    pub use super::generated::xbackendtrafficpolicies::{
        XBackendTrafficPolicy, XBackendTrafficPolicyRetryConstraint as RetryConstraint,
        XBackendTrafficPolicySpec, XBackendTrafficPolicyStatus,
    };
}

pub use backend_tls_policy::BackendTlsPolicy;
pub use gateway::Gateway;
pub use gateway_class::GatewayClass;
pub use grpc_route::GrpcRoute;
pub use http_route::HttpRoute;
pub use listener_set::ListenerSet;
pub use reference_grant::ReferenceGrant;
pub use tcp_route::TcpRoute;
pub use tls_route::TlsRoute;
pub use udp_route::UdpRoute;
pub use x_backend::XBackend;
pub use x_backend_traffic_policy::XBackendTrafficPolicy;

/// The group of all Gateway API kinds but the newest.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The group of kinds that may still change much.
pub const X_GROUP: &str = "gateway.networking.x-k8s.io";
