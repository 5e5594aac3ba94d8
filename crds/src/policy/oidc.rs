//! AuthPolicy's browser login.

use super::DURATION;
use super::auth::ClaimToHeader;
use super::rate_limit::LocalRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Users of an OpenID provider, who log in with their browser: OpenID Connect's authorization code flow. A browser that asks for a
/// page and has no session is sent to the provider, and comes back to `redirectPath`; what isn't a browser gets 401. The
/// session is in a cookie that only the gateway can read; all replicas can.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.logoutPath) || self.logoutPath != (has(self.redirectPath) ? self.redirectPath : '/oauth2/callback')",
    "message": "logoutPath and redirectPath have to differ",
}]))]
pub struct Oidc {
    /// The provider's issuer, such as `https://accounts.example`. Its metadata, below `/.well-known/openid-configuration`, say where
    /// everything else is.
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^/?#@]+(/[^?#]*)?$"))]
    pub issuer: String,
    /// A ConfigMap of the policy's namespace whose entry `ca.crt` has the authorities that may have issued the certificates of the provider's addresses. Absent: the
    /// system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<LocalRef>,
    /// The name by which the provider knows the gateway.
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1, max = 1024))]
    pub client_id: String,
    /// A Secret of the policy's namespace, of type `headgate.dev/oidc`. Its entry `client-secret` is what the provider gave. Cookies are
    /// sealed by `cookie-secret`, where it is there, else by the client's secret: 16 characters or more. To change it without ending
    /// sessions, put the one before into `previous-cookie-secret`.
    pub client_secret_ref: LocalRef,
    /// What is asked for, besides `openid`, such as `email`, `profile`, or `offline_access` for a refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256), regex(pattern = "^[!#-\\[\\]-~]+$")))]
    pub scopes: Option<Vec<String>>,
    /// Path to which the provider sends browsers back. It has to be one that the policy's routes take; no backend sees it. The
    /// provider has to know it, with scheme and host, as a redirect URI. Absent: `/oauth2/callback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/[A-Za-z0-9._~/-]+$"))]
    pub redirect_path: Option<String>,
    /// Path that ends a session, here and, where the provider has an address for it, there. It has to be one that the policy's routes
    /// take; no backend sees it. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/[A-Za-z0-9._~/-]+$"))]
    pub logout_path: Option<String>,
    /// How browsers keep the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<SessionCookie>,
    /// Whether a session goes on by the provider's refresh token when its tokens have run out. Absent: true. Else, and without a
    /// refresh token, browsers are sent to the provider again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<bool>,
    /// Whether the login has a proof key (PKCE, RFC 7636, S256). Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkce: Option<bool>,
    /// Whether the backend gets the access token, as `Authorization: Bearer`. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_access_token: Option<bool>,
    /// The claim of the ID token that names the consumer, for rate limits, rules and the access log. Absent: `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub consumer_claim: Option<String>,
    /// Claims of the ID token that the backend gets as headers. What clients send under these names is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub claims_to_headers: Option<Vec<ClaimToHeader>>,
}

/// How browsers keep a session. The cookie is `HttpOnly`, and over HTTPS `Secure`; the backend doesn't get it. A long session is
/// in up to four cookies.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionCookie {
    /// Its name, before which there is `__Host-` over HTTPS, or `__Secure-` where it has a domain. Absent: `headgate-session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub name: Option<String>,
    /// A domain whose hosts all get it. Absent: the host that has set it, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub domain: Option<String>,
    /// On whose requests it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// How long a session may last from its login, however often it is refreshed, `1m` to `8784h`. Absent: `8h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1m') && duration(self) <= duration('8784h')",
        "message": "lifetime is from 1m to 8784h",
    }]))]
    pub lifetime: Option<String>,
}

/// On whose requests a cookie is sent. `Lax` (the default): on those of its own site, and when a user follows a link from
/// elsewhere. `Strict`: not then, so that every visit from elsewhere begins with a login. `None`: on all.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum SameSite {
    /// On those of its own site only.
    Strict,
    /// And when a user follows a link from elsewhere.
    #[default]
    Lax,
    /// On all.
    None,
}
