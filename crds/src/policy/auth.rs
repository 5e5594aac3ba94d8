//! AuthPolicy: who may pass, and what they may do.

use super::oidc::Oidc;
use super::rate_limit::{KeyPart, LocalRef};
use super::{
    DURATION, ENTRY_NAMES, ENTRY_NAMES_MESSAGE, Mode, ONE_KIND, ONE_KIND_MESSAGE, PolicyStatus,
    REQUEST_TARGETS, REQUEST_TARGETS_MESSAGE, ServiceRef, Strategy, TargetRef,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who may pass, and what they may do. Attaches to Gateways, ListenerSets (or one of their listeners), HTTPRoutes and
/// GRPCRoutes (or one of their rules). Policies of one request are merged field by field; see `spec.strategy`. A policy that
/// is broken closes what it is for: requests are answered 500 until it is mended.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "AuthPolicy",
    plural = "authpolicies",
    shortname = "ap",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "headgate",
    category = "gateway-api",
    printcolumn = r#"{"name": "Kind", "type": "string", "jsonPath": ".spec.targetRefs[0].kind"}"#,
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRefs[0].name"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string",
        "jsonPath": ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string",
        "jsonPath": ".status.ancestors[0].conditions[?(@.type==\"Programmed\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthPolicySpec {
    /// What the policy is for: 1 to 16 objects of one kind, in its namespace.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-validations" = [
        {"rule": REQUEST_TARGETS, "message": REQUEST_TARGETS_MESSAGE},
        {"rule": ONE_KIND, "message": ONE_KIND_MESSAGE},
    ]))]
    pub target_refs: Vec<TargetRef>,
    /// How this policy meets AuthPolicies on more specific targets. Absent: they win, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Whether the policy acts, or is only watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How many authenticators have to know a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirement: Option<Requirement>,
    /// Whether a client without any credential passes as nobody. A wrong credential never does. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_missing: Option<bool>,
    /// Ways to know a client, by names that you choose. None: nobody is asked who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = [
        {"rule": ENTRY_NAMES, "message": ENTRY_NAMES_MESSAGE},
    ]))]
    pub authenticators: Option<BTreeMap<String, Authenticator>>,
    /// What clients may do. Absent: everything, once they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// How refused requests are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Denied>,
}

/// How many authenticators have to know a client. `Any` (the default): one of them. `All`: each.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Requirement {
    /// One of them.
    #[default]
    Any,
    /// Each.
    All,
}

/// One way to know a client: exactly one of `jwt`, `apiKey`, `basic`, `clientCertificate`, `external` and `oidc`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.disabled) && self.disabled) || [has(self.jwt), has(self.apiKey), has(self.basic), \
        has(self.clientCertificate), has(self.external), has(self.oidc)].exists_one(kind, kind)",
    "message": "an authenticator has exactly one of jwt, apiKey, basic, clientCertificate, external, oidc; write one \
        for each",
}]))]
pub struct Authenticator {
    /// Leaves out an authenticator that a policy on a less specific target has, unless that says `Override`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// By a signed token (JWT, RFC 7519).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// By a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKey>,
    /// By user name and password (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// By the certificate of the connection, on listeners that validate their clients' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// By asking an authorizer, after all others: nginx's `auth_request`, Traefik's ForwardAuth, Envoy's `ext_authz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// By a login with their browser (OpenID Connect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Oidc>,
}

/// Where a credential is: exactly one of `header`, `cookie` and `query`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.header), has(self.cookie), has(self.query)].exists_one(place, place)",
        "message": "a credential is in exactly one of header, cookie, query; write an entry for each",
    },
    {
        "rule": "!has(self.scheme) || has(self.header)",
        "message": "scheme is what stands before a credential in a header; it goes with header",
    },
]))]
pub struct CredentialSource {
    /// A header, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_|~]+$"))]
    pub header: Option<String>,
    /// The scheme before the credential in the header, such as `Bearer`. Absent: the whole value is the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_|~]+$"))]
    pub scheme: Option<String>,
    /// A cookie, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cookie: Option<String>,
    /// A parameter of the query, by its name. Addresses end up in logs and histories: a header is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub query: Option<String>,
}

/// Tokens of one issuer. They need `exp`, and a signature by one of the issuer's keys; `alg: none` is never taken. A token
/// that is verified is remembered until it expires or the keys change.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwt {
    /// What the claim `iss` has to be. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub issuer: Option<String>,
    /// One of which the claim `aud` has to name. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 1024)))]
    pub audiences: Option<Vec<String>>,
    /// Algorithms of signatures that are taken. Absent: all that the keys are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub algorithms: Option<Vec<Algorithm>>,
    /// How far clocks may differ: up to `24h`. Absent: `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) <= duration('24h')",
        "message": "leeway is up to 24h",
    }]))]
    pub leeway: Option<String>,
    /// Where the issuer's keys are.
    pub jwks: Jwks,
    /// Where the token is. Absent: in the header `Authorization`, after `Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub from: Option<Vec<CredentialSource>>,
    /// Whether the backend gets the token, too. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<bool>,
    /// The claim that names the consumer, for rate limits, rules and the access log. Absent: `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub consumer_claim: Option<String>,
    /// Claims that the backend gets as headers. What clients send under these names is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub claims_to_headers: Option<Vec<ClaimToHeader>>,
}

/// Algorithms of signatures (RFC 7518, RFC 8037).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Algorithm {
    /// RSA with SHA-256.
    RS256,
    /// RSA with SHA-384.
    RS384,
    /// RSA with SHA-512.
    RS512,
    /// RSA-PSS with SHA-256.
    PS256,
    /// RSA-PSS with SHA-384.
    PS384,
    /// RSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// ECDSA on P-521.
    ES512,
    /// Ed25519.
    EdDSA,
    /// HMAC with SHA-256, with keys of a Secret.
    HS256,
    /// HMAC with SHA-384, with keys of a Secret.
    HS384,
    /// HMAC with SHA-512, with keys of a Secret.
    HS512,
}

/// Where keys are, as a JSON Web Key Set (RFC 7517): exactly one of the fields, besides `cacheDuration`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.uri), has(self.discovery), has(self.inline), has(self.configMapRef), \
            has(self.secretRef)].exists_one(place, place)",
        "message": "jwks has exactly one of uri, discovery, inline, configMapRef, secretRef",
    },
    {
        "rule": "!has(self.cacheDuration) || has(self.uri) || has(self.discovery)",
        "message": "cacheDuration is for keys that are fetched: it goes with uri or discovery",
    },
    {
        "rule": "!has(self.caConfigMapRef) || has(self.uri) || has(self.discovery)",
        "message": "caConfigMapRef is for keys that are fetched: it goes with uri or discovery",
    },
]))]
pub struct Jwks {
    /// An address, such as `https://issuer.example/.well-known/jwks.json`, that is fetched in the background. The last good
    /// keys stay in use while it can't be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^/?#@]+(/[^?#]*)?(\\?[^#]*)?$"))]
    pub uri: Option<String>,
    /// An issuer of OpenID Connect, such as `https://issuer.example`, whose metadata say where its keys are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^/?#@]+(/[^?#]*)?$"))]
    pub discovery: Option<String>,
    /// The set itself; public keys only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 10, max = 65536))]
    pub inline: Option<String>,
    /// A ConfigMap of the policy's namespace with the set as its entry `jwks`; public keys only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<LocalRef>,
    /// A Secret of the policy's namespace with the set as its entry `jwks`. It may have secret keys (`oct`, for HMAC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// How long fetched keys are good for before they are fetched again, `1s` to `24h`. Absent: `5m`. A token with an unknown
    /// key has them fetched at once, at most every 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "message": "cacheDuration is from 1s to 24h",
    }]))]
    pub cache_duration: Option<String>,
    /// A ConfigMap of the policy's namespace whose entry `ca.crt` has the authorities that may have issued the certificates of these addresses. Absent: the
    /// system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<LocalRef>,
}

/// A claim that the backend gets as a header.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimToHeader {
    /// Name of the claim; members of members by dots, such as `realm_access.roles`. Lists are joined by commas.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
    /// Name of the header.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_|~]+$"))]
    pub header: String,
}

/// Keys of consumers, in Secrets of the policy's namespace of type `headgate.dev/api-keys`: exactly one of `secretRef` and
/// `secretSelector`. Each entry of such a Secret is a consumer: its name, and as its value the key, of 16 characters or more,
/// or `sha256:` and the key's SHA-256 in hexadecimal.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.secretRef) != has(self.secretSelector)",
    "message": "apiKey has exactly one of secretRef and secretSelector",
}]))]
pub struct ApiKey {
    /// One Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// All Secrets with these labels: one for each consumer, or one for each team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_selector: Option<SecretSelector>,
    /// Where the key is. Absent: in the header `X-API-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub from: Option<Vec<CredentialSource>>,
    /// Header by which the backend is told the consumer. What clients send under this name is dropped. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_|~]+$"))]
    pub consumer_header: Option<String>,
    /// Whether the backend gets the key, too. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<bool>,
}

/// Labels of Secrets.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSelector {
    /// Labels that they all have.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 8, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
}

/// Users with passwords.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Basic {
    /// A Secret of the policy's namespace with the entry `.htpasswd` (or `auth`): lines of `user:hash` as Apache's `htpasswd`
    /// writes them, hashed by bcrypt, SHA-crypt, Argon2 or apr1.
    pub secret_ref: LocalRef,
    /// What browsers show. Absent: the authenticator's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub realm: Option<String>,
    /// Header by which the backend is told the user. What clients send under this name is dropped. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_|~]+$"))]
    pub username_header: Option<String>,
    /// Whether the backend gets the password, too. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<bool>,
}

/// Which certificates are wanted, of those that the listener has validated (`spec.tls.frontend` of the Gateway). Each field
/// that is there has to have a match; without any, every valid certificate is wanted.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificate {
    /// Subject alternative names, of which the certificate has one: DNS names, URIs or mail addresses. One `*` stands for
    /// anything within a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 1024)))]
    pub sans: Option<Vec<String>>,
    /// The subject, in the order of the certificate, such as `C=NL, O=Example, CN=alice`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub subject: Option<String>,
    /// SHA-256 of certificates in hexadecimal, with or without colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 64, max = 95)))]
    pub fingerprints: Option<Vec<String>>,
}

/// Somebody who is asked. The fields up to `forwardBody` are those of the filter `ExternalAuth` of HTTPRoutes.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.http) || self.protocol == 'HTTP'",
        "message": "external.http goes with protocol: HTTP",
    },
    {
        "rule": "!has(self.grpc) || self.protocol == 'GRPC'",
        "message": "external.grpc goes with protocol: GRPC",
    },
]))]
pub struct External {
    /// How it is asked: `HTTP`, where 200 lets a request pass, or `GRPC`, Envoy's `ext_authz`, version 3.
    pub protocol: ExternalProtocol,
    /// Who is asked.
    pub backend_ref: ServiceRef,
    /// What goes with `protocol: HTTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<ExternalHttp>,
    /// What goes with `protocol: GRPC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<ExternalGrpc>,
    /// Whether it is told the request's body. Absent: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBody>,
    /// How long it may take, `10ms` to `60s`. Absent: `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('60s')",
        "message": "timeout is from 10ms to 60s",
    }]))]
    pub timeout: Option<String>,
    /// What holds while it has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<FailureMode>,
    /// Where a browser is sent instead of a 401 to a GET: an address or a path, to which `rd=` with the address that was
    /// asked for is added. Absent: it gets the authorizer's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^(https?://|/)[^ #]*$"))]
    pub sign_in_redirect: Option<String>,
    /// What is remembered of its answers. Absent: it is asked about every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<ExternalCache>,
}

/// Answers that are remembered: those that let a request pass, with the headers that they set. Refusals aren't, nor answers that set cookies,
/// nor those about a body. Each replica remembers for itself, and nothing once the policy has changed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalCache {
    /// What its answer depends on: requests that are alike in all of these parts get one answer. Whatever else it looks at has to be here
    /// as well, such as `path: {}` and `method: {}`. A request that has none of the parts is always asked about.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-validations" = [{
        "rule": "self.all(part, !has(part.claim) && !has(part.consumer))",
        "message": "cache.key can't have claim or consumer: who the client is isn't known yet",
    }]))]
    pub key: Vec<KeyPart>,
    /// How long an answer holds, `1s` to `1h`. Absent: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "message": "ttl is from 1s to 1h",
    }]))]
    pub ttl: Option<String>,
    /// So many are remembered at most. Absent: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_entries: Option<i32>,
}

/// How an authorizer is asked.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ExternalProtocol {
    /// By a request like the one that is asked about.
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    /// By Envoy's `ext_authz`.
    #[serde(rename = "GRPC")]
    Grpc,
}

/// How an authorizer is asked over HTTP.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalHttp {
    /// What its path begins with; the request's path follows. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Headers that it is told, besides Host and Authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_headers: Option<Vec<String>>,
    /// Headers of its answer that the backend gets, which clients then can't set. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_response_headers: Option<Vec<String>>,
}

/// How an authorizer is asked over gRPC.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalGrpc {
    /// Headers that it is told. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_headers: Option<Vec<String>>,
}

/// How much of a body an authorizer is told.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardBody {
    /// So many bytes, up to 8 MiB; a request with more is answered 413.
    #[schemars(range(min = 1, max = 8388608))]
    pub max_size: i32,
}

/// What holds while an authorizer has no answer. `Deny` (the default): requests are answered 503. `Allow`: they pass.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FailureMode {
    /// Nobody passes.
    #[default]
    Deny,
    /// Everybody does.
    Allow,
}

/// What clients may do.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorization {
    /// Rules, by names that you choose. A `Deny` beats any `Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = [
        {"rule": ENTRY_NAMES, "message": ENTRY_NAMES_MESSAGE},
    ]))]
    pub rules: Option<BTreeMap<String, Rule>>,
    /// What holds where no rule does. Absent: `Deny` once there is an `Allow` rule, else `Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<Action>,
}

/// Whether somebody may.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Action {
    /// They may.
    #[default]
    Allow,
    /// They may not.
    Deny,
}

/// A rule. It holds when all of its parts do.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Leaves out a rule that a policy on a less specific target has, unless that says `Override`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// What it says. Absent: `Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Up to 8 CEL expressions that must all be true, such as `"admin" in auth.claims.roles`. They may ask for
    /// `request.{method,scheme,host,path,query,headers,cookies}`, `source.{ip,port}` and `auth.{claims,consumer}`. One that
    /// can't be answered doesn't hold for an `Allow`, and holds for a `Deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 1024)))]
    pub when: Option<Vec<String>>,
    /// Who. Absent: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// What they do. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

/// Who: all fields that are there have to hold.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Principal {
    /// Networks, of which one has the client's address, such as `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 2, max = 43)))]
    pub cidrs: Option<Vec<String>>,
    /// Claims of the token, all of which have one of their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub claims: Option<Vec<ClaimValues>>,
    /// Scopes, all of which the token has, in its claim `scope` or `scp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)))]
    pub scopes: Option<Vec<String>>,
    /// Consumers, of which the client is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub consumers: Option<Vec<String>>,
}

/// A claim, and what it may be.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimValues {
    /// Name of the claim; members of members by dots.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Values, of which it has one. Of a list, one of its values counts.
    #[schemars(length(min = 1, max = 64), inner(length(max = 1024)))]
    pub values: Vec<String>,
}

/// What they do: all fields that are there have to hold.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Methods, such as `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 64)))]
    pub methods: Option<Vec<String>>,
    /// Paths, such as `/health`, or with `*` at their end for any end: `/public/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 1024), regex(pattern = "^/[^*?#]*\\*?$"))
    )]
    pub paths: Option<Vec<String>>,
}

/// How refused requests are answered.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Denied {
    /// Status for clients that nobody knows, 400 to 599. Absent: 401. They are told by `WWW-Authenticate` how to be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub unauthenticated: Option<i32>,
    /// Status for clients that may not do what they ask for, 400 to 599. Absent: 403.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub unauthorized: Option<i32>,
}
