//! Who may pass, and what they may do: AuthPolicies as they came out of merging. Secrets are in here; none of them is ever
//! printed.

use super::{Authorities, BackendId, ExternalAuth, KeyPart, ObjectName, Redacted, Text};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What guards a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Guard {
    /// Nobody passes: a policy is broken, and nobody knows whom it would have let pass. Answers 500.
    Closed {
        /// The policy.
        policy: ObjectName,
    },
    /// Those pass whom this lets.
    Auth(Arc<Auth>),
}

/// Authentication and authorization.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Auth {
    /// The most specific policy: for metrics and logs.
    pub policy: ObjectName,
    /// How many authenticators have to know a client.
    pub requirement: Requirement,
    /// Whether a client without any credential passes as nobody. A wrong credential never does.
    pub allow_missing: bool,
    /// In the order of their names. None: everybody passes as nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authenticators: Vec<Arc<Authenticator>>,
    /// What they may do.
    pub authorization: Authorization,
    /// Status for clients that nobody knows, 401 by default.
    pub unauthenticated_status: u16,
    /// Status for clients that may not, 403 by default.
    pub unauthorized_status: u16,
}

/// How many authenticators have to know a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Requirement {
    /// One of them.
    #[default]
    Any,
    /// Each.
    All,
}

/// One way to know a client.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Authenticator {
    /// The user's name for it.
    pub name: Text,
    /// How.
    pub method: AuthMethod,
}

/// How a client is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum AuthMethod {
    /// By a signed token (RFC 7519).
    Jwt(JwtAuth),
    /// By a key.
    ApiKey(ApiKeyAuth),
    /// By user name and password (RFC 7617).
    Basic(BasicAuth),
    /// By the certificate of its connection.
    ClientCertificate(ClientCertificateAuth),
    /// By asking somebody.
    External(ExternalAuthenticator),
    /// By a login with its browser.
    Oidc(Box<OidcAuth>),
}

/// Where a credential is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum CredentialSource {
    /// A field.
    Header {
        /// Its name.
        name: Text,
        /// The scheme before the credential, such as `Bearer`; absent: the whole field is the credential.
        #[serde(skip_serializing_if = "Option::is_none")]
        scheme: Option<Text>,
    },
    /// A cookie.
    Cookie(Text),
    /// A parameter of the query.
    Query(Text),
}

/// Tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JwtAuth {
    /// What `iss` has to be; absent: anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Text>,
    /// One of which `aud` has to name; empty: anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<Text>,
    /// Algorithms (RFC 7518 §3.1) that are taken; empty: all that the keys are for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<Text>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// What tokens are verified by.
    pub keys: JwtKeys,
    /// Where the token is; never empty.
    pub from: Vec<CredentialSource>,
    /// Whether the backend gets the token, too.
    pub forward: bool,
    /// The claim that names the consumer.
    pub consumer_claim: Text,
    /// Claims that the backend gets as fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims_to_headers: Vec<ClaimToHeader>,
}

/// Where the keys of tokens come from: all as JSON Web Key Sets (RFC 7517 §5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum JwtKeys {
    /// Anybody may know them: public keys only.
    Public(Text),
    /// Nobody may: `oct` keys (HMAC) are taken, too.
    Secret(Redacted<String>),
    /// Fetched.
    Remote(RemoteKeys),
}

/// Keys that are fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RemoteKeys {
    /// `https://…` or `http://…`.
    pub uri: Text,
    /// Whether the address is an issuer's, whose metadata say where its keys are (OpenID Connect Discovery 1.0 §4).
    pub discovery: bool,
    /// How long they are good for before they are fetched again.
    pub cache: Duration,
    /// Whether they may come from loopback and link-local addresses: not in a cluster (security.md §7).
    pub local: bool,
    /// Who may have issued the certificates of those addresses.
    pub authorities: Authorities,
}

/// A claim as a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimToHeader {
    /// Its name; members of members by dots.
    pub claim: Text,
    /// Name of the field.
    pub header: Text,
}

/// Users of an OpenID provider, who log in with their browser (OpenID Connect Core 1.0 §3.1).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OidcAuth {
    /// The provider: always by discovery.
    pub provider: RemoteKeys,
    /// Who we are to it.
    pub client_id: Text,
    /// And how we prove it.
    pub client_secret: Redacted<String>,
    /// What cookies are sealed by: the first seals, each opens; never empty.
    pub cookie_secrets: Vec<Redacted<String>>,
    /// What is asked for, besides `openid`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Text>,
    /// Path to which browsers come back.
    pub redirect_path: Text,
    /// Path that ends a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_path: Option<Text>,
    /// How sessions are kept.
    pub cookie: OidcCookie,
    /// Whether sessions go on by refresh tokens, where the provider gives them.
    pub refresh: bool,
    /// Whether the login is bound to the browser by a proof key, too (RFC 7636).
    pub pkce: bool,
    /// Whether the backend gets the access token as `Authorization: Bearer`.
    pub forward_access_token: bool,
    /// The claim of the ID token that names the consumer.
    pub consumer_claim: Text,
    /// Claims that the backend gets as fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims_to_headers: Vec<ClaimToHeader>,
}

/// How browsers keep sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OidcCookie {
    /// Name of the cookie; over HTTPS with a prefix before it.
    pub name: Text,
    /// Hosts of a domain that all get it; absent: the one that has set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Text>,
    /// On whose requests it is sent.
    pub same_site: SameSite,
    /// How long a session may last from its login, however often it is refreshed.
    pub lifetime: Duration,
}

/// On whose requests a cookie is sent (RFC 6265bis §5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum SameSite {
    /// On those of its own site.
    Strict,
    /// And when a user follows a link from elsewhere.
    #[default]
    Lax,
    /// On all.
    None,
}

/// Keys of consumers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ApiKeyAuth {
    /// By consumer: the key, or `sha256:` and the hash of it in hexadecimal.
    pub keys: Vec<(Text, Redacted<String>)>,
    /// Where the key is; never empty.
    pub from: Vec<CredentialSource>,
    /// Field by which the backend is told the consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_header: Option<Text>,
    /// Whether the backend gets the key, too.
    pub forward: bool,
}

/// Users with passwords.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BasicAuth {
    /// Lines of `user:hash`, as Apache's `htpasswd` writes them.
    pub users: Redacted<String>,
    /// What browsers show.
    pub realm: Text,
    /// Field by which the backend is told the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_header: Option<Text>,
    /// Whether the backend gets the password, too.
    pub forward: bool,
}

/// Certificates of clients, of those that the listener has validated. Each list that isn't empty has to have a match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientCertificateAuth {
    /// Subject alternative names: DNS names, URIs or mail addresses; `*` stands for anything within one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sans: Vec<Text>,
    /// The subject as RFC 4514 writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Text>,
    /// SHA-256 of the certificate, in hexadecimal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<Text>,
}

/// Somebody who is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExternalAuthenticator {
    /// Whose it is: what its namespace may refer to, it may.
    #[serde(skip)]
    pub policy: ObjectName,
    /// Who, and how.
    pub ask: ExternalAuth,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether clients pass while it has no answer.
    pub fail_open: bool,
    /// Where a browser is sent whom it doesn't know: `rd=` with the address that was asked for is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<Text>,
    /// What is remembered of its answers; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<AnswerCache>,
}

/// Answers of an authorizer that are remembered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerCache {
    /// What tells requests apart that are answered alike.
    pub key: Vec<KeyPart>,
    /// How long an answer holds.
    pub lifetime: Duration,
    /// So many at most, in this process.
    pub max_entries: usize,
}

impl ExternalAuthenticator {
    /// Who is asked: a backend of the model.
    pub fn backend(&self) -> &BackendId {
        &self.ask.backend
    }
}

/// What clients may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Authorization {
    /// In the order of their names. A `Deny` beats any `Allow`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AuthorizationRule>,
    /// What holds where no rule does.
    pub default: AuthAction,
}

/// Whether somebody may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum AuthAction {
    /// They may.
    #[default]
    Allow,
    /// They may not.
    Deny,
}

/// A rule. It holds when all of its parts do; lists of values hold by one of them, unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AuthorizationRule {
    /// The user's name for it.
    pub name: Text,
    /// What it says.
    pub action: AuthAction,
    /// Expressions that must all hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Text>,
    /// Networks of clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<Text>,
    /// Claims and the values of which each must have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<(Text, Vec<Text>)>,
    /// Scopes, all of which a token must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Text>,
    /// Consumers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<Text>,
    /// Methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Text>,
    /// Paths; a final `*` stands for any end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Text>,
}
