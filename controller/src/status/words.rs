//! Condition types and reasons, as the Gateway API spells them.

use std::fmt;

macro_rules! word {
    ($variant:ident) => {
        stringify!($variant)
    };
    ($variant:ident $word:literal) => {
        $word
    };
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $(= $word:literal)?,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word in YAML.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => word!($variant $($word)?),)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Types of condition that we write, on objects of ours; other types are somebody else's.
    ConditionType {
        /// Whether it is well-formed and ours.
        Accepted,
        /// Whether the proxy serves it.
        Programmed,
        /// Whether everything it names exists and may be named.
        ResolvedRefs,
        /// Whether a listener takes what another one has.
        Conflicted,
        /// Whether a part of it was dropped.
        PartiallyInvalid,
        /// Whether a Gateway lets clients in whose certificates aren't valid.
        InsecureFrontendValidationMode,
        /// Whether RateLimitPolicies are attached to it (GEP-713).
        RateLimitPolicyAffected = "headgate.dev/RateLimitPolicyAffected",
        /// Whether CircuitBreakerPolicies are.
        CircuitBreakerPolicyAffected = "headgate.dev/CircuitBreakerPolicyAffected",
        /// Whether AuthPolicies are.
        AuthPolicyAffected = "headgate.dev/AuthPolicyAffected",
        /// Whether ClientPolicies are.
        ClientPolicyAffected = "headgate.dev/ClientPolicyAffected",
    }
}

words! {
    /// Reasons of conditions.
    Reason {
        /// Accepted=True.
        Accepted,
        /// Programmed=True.
        Programmed,
        /// ResolvedRefs=True.
        ResolvedRefs,
        /// Conflicted=False.
        NoConflicts,
        /// Two listeners of a port with one hostname.
        HostnameConflict,
        /// Two protocols on a port.
        ProtocolConflict,
        /// What it describes can't be served.
        Invalid,
        /// Something is on its way.
        Pending,
        /// `parametersRef`.
        InvalidParameters,
        /// A type of address.
        UnsupportedAddress,
        /// A static address that wasn't given.
        AddressNotUsable,
        /// No address yet.
        AddressNotAssigned,
        /// At least one listener isn't valid.
        ListenersNotValid,
        /// A Gateway doesn't want ListenerSets from there.
        NotAllowed,
        /// The Gateway of a ListenerSet.
        ParentNotAccepted,
        /// A listener's protocol.
        UnsupportedProtocol,
        /// A listener's port can't be bound.
        PortUnavailable,
        /// A kind in `allowedRoutes`.
        InvalidRouteKinds,
        /// A certificate.
        InvalidCertificateRef,
        /// The Gateway's certificate for its backends.
        InvalidClientCertificateRef,
        /// A certificate authority.
        InvalidCACertificateRef,
        /// A kind of object that holds a certificate authority.
        InvalidCACertificateKind,
        /// InsecureFrontendValidationMode=True.
        ConfigurationChanged,
        /// No certificate authority is left.
        NoValidCACertificate,
        /// A policy whose target another one has.
        Conflicted,
        /// A part of a policy isn't in force.
        PartiallyProgrammed,
        /// Nothing of a policy is in force: less specific ones don't let it.
        Overridden,
        /// Policies are attached.
        PolicyAttached,
        /// What a policy is for isn't there.
        TargetNotFound,
        /// A Secret or ConfigMap that isn't there, or hasn't what it should have.
        InvalidReference,
        /// A reference into another namespace.
        RefNotPermitted,
        /// No listener is named so.
        NoMatchingParent,
        /// A listener doesn't take this route.
        NotAllowedByListeners,
        /// No hostname in common.
        NoMatchingListenerHostname,
        /// A value that isn't supported.
        UnsupportedValue,
        /// Filters that can't go together.
        IncompatibleFilters,
        /// A Service or its port doesn't exist.
        BackendNotFound,
        /// A kind of backend.
        InvalidKind,
    }
}
