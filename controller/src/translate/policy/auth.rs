//! AuthPolicies: to what guards a rule in the model. They fail closed: where one is broken, or names what isn't there, nobody
//! passes (security.md, rule 4).

use super::duration::{self, Bounds};
use super::merge::{Field, Merged, Path, Shape, Source, assemble};
use super::rate_limit::{entry_name, key_part, texts};
use super::resolve::Resolver;
use super::{At, Came, Common, OfRequests, Policy};
use crate::api::http_route::ExternalAuth;
use crate::status::ConditionType;
use crate::translate::filters;
use headgate_crds::AuthPolicy;
use headgate_crds::policy::ServiceRef;
use headgate_crds::policy::auth::{
    Action, Algorithm, ApiKey, Authenticator, Authorization, Basic, ClaimToHeader, ClientCertificate,
    CredentialSource, Denied, External, ExternalCache, FailureMode, Jwks, Jwt, Requirement, Rule,
};
use headgate_crds::policy::oidc::{Oidc, SameSite};
use headgate_proxy::auth;
use headgate_proxy::model::{self, AuthMethod, Guard, JwtKeys, ObjectName, Redacted, RemoteKeys, Text};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(60);
/// How long fetched keys are good for.
const CACHE: Duration = Duration::from_secs(300);
/// How long an authorizer may take.
const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long what an authorizer said is remembered, and how much of it.
const ANSWER_LIFETIME: Duration = Duration::from_secs(60);
const ANSWERS: usize = 10_000;
/// Statuses of clients that nobody knows, and that may not.
const STATUSES: (u16, u16) = (401, 403);
/// The entry of a Secret or ConfigMap that holds a JSON Web Key Set.
const KEY_SET: &str = "jwks";
/// Entries of a Secret that may hold users: what Envoy Gateway and ingress-nginx call it.
const USERS: [&str; 2] = [".htpasswd", "auth"];
/// Where browsers come back to from a login, what keeps their sessions, and how long, unless the policy says otherwise.
const REDIRECT_PATH: &str = "/oauth2/callback";
const SESSION_COOKIE: &str = "headgate-session";
const SESSION: Duration = Duration::from_secs(8 * 3_600);
/// Where an API key is, unless the policy says otherwise.
const KEY_HEADER: &str = "x-api-key";

impl Policy for AuthPolicy {
    const SHAPE: Shape = Shape {
        open: &["authenticators", "authorization", "authorization.rules", "denied"],
        named: &["authenticators", "authorization.rules"],
        // Another way in, or another rule that allows, is a way around those that are there.
        fixed: &[("authenticators", &["requirement", "allowMissing"]), ("authorization", &[])],
    };
    const AFFECTED: ConditionType = ConditionType::AuthPolicyAffected;
    const GUARDS: bool = true;

    fn common(&self) -> Common<'_> {
        let spec = &self.spec;
        Common { target_refs: &spec.target_refs, strategy: spec.strategy, mode: spec.mode }
    }

    fn fields(&self) -> Value {
        let spec = &self.spec;
        json!({
            "requirement": spec.requirement,
            "allowMissing": spec.allow_missing,
            "authenticators": spec.authenticators,
            "authorization": spec.authorization,
            "denied": spec.denied,
        })
    }

    fn check(&self, name: &ObjectName, resolver: &mut Resolver<'_>) -> Vec<(Path, String)> {
        let mut invalid = Vec::new();
        for (key, from) in self.spec.authenticators.iter().flatten() {
            if from.disabled.unwrap_or_default() {
                continue;
            }
            match entry_name(key)
                .map_err(Problem::Invalid)
                .and_then(|()| authenticator(key, name, from, resolver))
            {
                Ok(made) => {
                    drop(resolver.resolved.authenticators.insert(key.as_str().into(), Arc::new(made)))
                }
                Err(Problem::Invalid(why)) => invalid.push((Path::of(&["authenticators", key]), why)),
                Err(Problem::Unresolved(why)) => {
                    resolver.resolved.unresolved.push(format!("spec.authenticators.{key}.{why}"));
                }
            }
        }
        let rules = self.spec.authorization.iter().flat_map(|all| all.rules.iter().flatten());
        for (key, from) in rules {
            let checked = entry_name(key).and_then(|()| {
                let rules = vec![rule(key, from)];
                auth::check_authorization(&model::Authorization { rules, ..model::Authorization::default() })
            });
            if let Err(why) = checked {
                let path = Path::of(&["authorization", "rules", key]);
                let why = why.strip_prefix(&format!("authorization.rules.{key}.")).unwrap_or(&why).to_owned();
                invalid.push((path, why));
            }
        }
        invalid
    }
}

impl OfRequests for AuthPolicy {
    fn put(came: &Came, _: &At<'_>, policies: &mut model::Policies) -> Vec<(ObjectName, String)> {
        let closed = |policy: &ObjectName| Some(Guard::Closed { policy: policy.clone() });
        if let Some(policy) = &came.broken {
            policies.guard = closed(policy);
            return vec![(policy.clone(), "what it is for is closed: requests are answered 500".to_owned())];
        }
        match merged_auth(&came.enforced, &came.sources) {
            Ok(auth) => policies.guard = auth.map(|auth| Guard::Auth(Arc::new(auth))),
            Err((policy, why)) => {
                policies.guard = closed(&policy);
                return vec![(policy, format!("{why}; what it is for is closed: requests are answered 500"))];
            }
        }
        match merged_auth(&came.tried, &came.sources) {
            Ok(tried) => policies.tried_auth = tried.map(Arc::new),
            Err((policy, why)) => return vec![(policy, why)],
        }
        Vec::new()
    }
}

/// Why an authenticator can't be made.
enum Problem {
    /// A field of its own.
    Invalid(String),
    /// What it names: isn't there, or can't be used.
    Unresolved(String),
}

/// What merged policies come to; nothing where they guard nothing.
fn merged_auth(
    merged: &Merged,
    sources: &[Arc<Source>],
) -> Result<Option<model::Auth>, (ObjectName, String)> {
    let Some(most_specific) = merged.fields.values().max_by_key(|field| field.depth) else { return Ok(None) };
    let policy = most_specific.policy.clone();
    let mut authenticators = Vec::new();
    for (name, fields) in merged.entries("authenticators") {
        authenticators.push(merged_authenticator(name, &fields, sources)?);
    }
    let mut rules = Vec::new();
    for (name, fields) in merged.entries("authorization.rules") {
        let whole = assemble(fields.iter().filter(|(path, _)| !path.is_mode()).copied(), 3);
        let from: Rule = read(whole).map_err(|why| (policy.clone(), why))?;
        rules.push(rule(name, &from));
    }
    let member = |why| (policy.clone(), why);
    let of_authorization: Authorization =
        read(json!({"defaultAction": merged.member("authorization")["defaultAction"]})).map_err(member)?;
    let default = match of_authorization.default_action {
        Some(said) => action(said),
        None if rules.iter().any(|rule| rule.action == model::AuthAction::Allow) => model::AuthAction::Deny,
        None => model::AuthAction::Allow,
    };
    if authenticators.is_empty() && rules.is_empty() && default == model::AuthAction::Allow {
        return Ok(None);
    }
    let denied: Denied = read(merged.member("denied")).map_err(member)?;
    let status = |code: Option<i32>, plain| code.and_then(|code| u16::try_from(code).ok()).unwrap_or(plain);
    let requirement: Requirement = read(merged.member("requirement")).map_err(member)?;
    Ok(Some(model::Auth {
        requirement: match requirement {
            Requirement::Any => model::Requirement::Any,
            Requirement::All => model::Requirement::All,
        },
        allow_missing: read(merged.member("allowMissing")).map_err(member)?,
        authenticators,
        authorization: model::Authorization { rules, default },
        unauthenticated_status: status(denied.unauthenticated, STATUSES.0),
        unauthorized_status: status(denied.unauthorized, STATUSES.1),
        policy,
    }))
}

/// What is absent is the default.
fn read<T: DeserializeOwned + Default>(value: Value) -> Result<T, String> {
    serde_json::from_value::<Option<T>>(value)
        .map(Option::unwrap_or_default)
        .map_err(|error| error.to_string())
}

/// The authenticator that a policy has made: the one whose kind is in force.
fn merged_authenticator(
    name: &Text,
    fields: &[(&Path, &Field)],
    sources: &[Arc<Source>],
) -> Result<Arc<model::Authenticator>, (ObjectName, String)> {
    let mut kinds = fields.iter().filter(|(path, _)| path.is_kind());
    let (Some((_, field)), more) = (kinds.next(), kinds.next()) else {
        let policy = fields.first().map(|(_, field)| field.policy.clone());
        let policy = policy.unwrap_or_else(|| ObjectName::new("", ""));
        return Err((policy, format!("spec.authenticators.{name} has no kind")));
    };
    if more.is_some() {
        let why = format!(
            "spec.authenticators.{name} is of another kind in a policy above; choose another name, or disable that one"
        );
        return Err((field.policy.clone(), why));
    }
    let source = sources.iter().find(|source| source.name == field.policy);
    let made = source.and_then(|source| source.resolved.authenticators.get(name));
    made.cloned().ok_or_else(|| (field.policy.clone(), format!("spec.authenticators.{name} can't be used")))
}

fn authenticator(
    name: &str,
    policy: &ObjectName,
    from: &Authenticator,
    resolver: &mut Resolver<'_>,
) -> Result<model::Authenticator, Problem> {
    let Authenticator { disabled: _, jwt, api_key, basic, client_certificate, external, oidc } = from;
    let (kind, method) = match (jwt, api_key, basic, client_certificate, external, oidc) {
        (Some(from), None, None, None, None, None) => {
            ("jwt", AuthMethod::Jwt(of_jwt(policy, from, resolver)?))
        }
        (None, Some(from), None, None, None, None) => {
            ("apiKey", AuthMethod::ApiKey(of_keys(policy, from, resolver)?))
        }
        (None, None, Some(from), None, None, None) => {
            ("basic", AuthMethod::Basic(of_users(name, policy, from, resolver)?))
        }
        (None, None, None, Some(from), None, None) => {
            ("clientCertificate", AuthMethod::ClientCertificate(of_certificates(from)))
        }
        (None, None, None, None, Some(from), None) => {
            ("external", AuthMethod::External(of_external(policy, from)?))
        }
        (None, None, None, None, None, Some(from)) => {
            ("oidc", AuthMethod::Oidc(Box::new(of_oidc(policy, from, resolver)?)))
        }
        _ => {
            let why = "has to have exactly one of jwt, apiKey, basic, clientCertificate, external, oidc";
            return Err(Problem::Invalid(why.to_owned()));
        }
    };
    let made = model::Authenticator { name: name.into(), method };
    auth::check(&made).map_err(|why| {
        let own = [
            "algorithms",
            "cache.",
            "from[",
            "claimsToHeaders",
            "consumerHeader",
            "usernameHeader",
            "fingerprints",
            "signInRedirect",
            "realm",
        ];
        if own.iter().any(|field| why.starts_with(field)) {
            return Problem::Invalid(format!("{kind}.{why}"));
        }
        // What a Secret or ConfigMap holds.
        Problem::Unresolved(if why.starts_with(KEY_SET) || why.starts_with("clientSecretRef") {
            format!("{kind}.{why}")
        } else {
            format!("{kind}: {why}")
        })
    })?;
    Ok(made)
}

fn local(policy: &ObjectName, name: &str) -> ObjectName {
    ObjectName::new(policy.namespace.clone(), name)
}

fn duration(
    field: &str,
    from: Option<&String>,
    plain: Duration,
    bounds: Bounds,
) -> Result<Duration, Problem> {
    let Some(from) = from else { return Ok(plain) };
    duration::within(from, bounds).map_err(|why| Problem::Invalid(format!("{field}: {why}")))
}

fn of_jwt(policy: &ObjectName, from: &Jwt, resolver: &mut Resolver<'_>) -> Result<model::JwtAuth, Problem> {
    let bearer =
        model::CredentialSource::Header { name: "authorization".into(), scheme: Some("Bearer".into()) };
    Ok(model::JwtAuth {
        issuer: from.issuer.as_deref().map(Into::into),
        audiences: texts(from.audiences.as_deref().unwrap_or_default()),
        algorithms: from
            .algorithms
            .iter()
            .flatten()
            .map(|algorithm| algorithm_name(*algorithm).into())
            .collect(),
        leeway: duration("jwt.leeway", from.leeway.as_ref(), LEEWAY, ("0s", "24h"))?,
        keys: of_key_set(policy, &from.jwks, resolver)?,
        from: places(from.from.as_deref(), bearer)?,
        forward: from.forward.unwrap_or(true),
        consumer_claim: from.consumer_claim.as_deref().unwrap_or("sub").into(),
        claims_to_headers: claim_fields(from.claims_to_headers.as_deref()),
    })
}

fn claim_fields(from: Option<&[ClaimToHeader]>) -> Vec<model::ClaimToHeader> {
    let field = |one: &ClaimToHeader| model::ClaimToHeader {
        claim: one.claim.as_str().into(),
        header: one.header.to_ascii_lowercase().into(),
    };
    from.unwrap_or_default().iter().map(field).collect()
}

fn of_key_set(policy: &ObjectName, from: &Jwks, resolver: &mut Resolver<'_>) -> Result<JwtKeys, Problem> {
    let Jwks { uri, discovery, inline, config_map_ref, secret_ref, cache_duration, ca_config_map_ref } = from;
    let unresolved = |field: &str, why: String| Problem::Unresolved(format!("jwt.jwks.{field}: {why}"));
    let cache = duration("jwt.jwks.cacheDuration", cache_duration.as_ref(), CACHE, ("1s", "24h"))?;
    let authorities = resolver
        .authorities(policy, ca_config_map_ref.as_ref())
        .map_err(|why| unresolved("caConfigMapRef", why))?;
    let local_only = resolver.local;
    let remote = |uri: &str, discovery| {
        JwtKeys::Remote(RemoteKeys { uri: uri.into(), discovery, cache, local: local_only, authorities })
    };
    match (uri, discovery, inline, config_map_ref, secret_ref) {
        (Some(uri), None, None, None, None) => Ok(remote(uri, false)),
        (None, Some(issuer), None, None, None) => Ok(remote(issuer, true)),
        (None, None, Some(set), None, None) => Ok(JwtKeys::Public(set.as_str().into())),
        (None, None, None, Some(map), None) => {
            let set = resolver.config_map(&local(policy, &map.name), KEY_SET);
            set.map(JwtKeys::Public).map_err(|why| unresolved("configMapRef", why))
        }
        (None, None, None, None, Some(secret)) => {
            let set = resolver.secret(&local(policy, &secret.name), &[KEY_SET]);
            set.map(JwtKeys::Secret).map_err(|why| unresolved("secretRef", why))
        }
        _ => {
            let why = "jwt.jwks has to have exactly one of uri, discovery, inline, configMapRef, secretRef";
            Err(Problem::Invalid(why.to_owned()))
        }
    }
}

fn algorithm_name(from: Algorithm) -> &'static str {
    match from {
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::ES512 => "ES512",
        Algorithm::EdDSA => "EdDSA",
        Algorithm::HS256 => "HS256",
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
    }
}

fn of_keys(
    policy: &ObjectName,
    from: &ApiKey,
    resolver: &mut Resolver<'_>,
) -> Result<model::ApiKeyAuth, Problem> {
    let unresolved = |field: &str, why: String| Problem::Unresolved(format!("apiKey.{field}: {why}"));
    let keys: Vec<(Text, Redacted<String>)> = match (&from.secret_ref, &from.secret_selector) {
        (Some(secret), None) => {
            resolver.api_keys(&local(policy, &secret.name)).map_err(|why| unresolved("secretRef", why))?
        }
        (None, Some(selector)) => resolver
            .selected_keys(policy, &selector.match_labels)
            .map_err(|why| unresolved("secretSelector", why))?,
        (None, None) | (Some(_), Some(_)) => {
            let why = "apiKey has to have exactly one of secretRef and secretSelector";
            return Err(Problem::Invalid(why.to_owned()));
        }
    };
    let header = model::CredentialSource::Header { name: KEY_HEADER.into(), scheme: None };
    Ok(model::ApiKeyAuth {
        keys,
        from: places(from.from.as_deref(), header)?,
        consumer_header: from.consumer_header.as_deref().map(|name| name.to_ascii_lowercase().into()),
        forward: from.forward.unwrap_or_default(),
    })
}

fn of_users(
    name: &str,
    policy: &ObjectName,
    from: &Basic,
    resolver: &mut Resolver<'_>,
) -> Result<model::BasicAuth, Problem> {
    let users = resolver.secret(&local(policy, &from.secret_ref.name), &USERS);
    Ok(model::BasicAuth {
        users: users.map_err(|why| Problem::Unresolved(format!("basic.secretRef: {why}")))?,
        realm: from.realm.as_deref().unwrap_or(name).into(),
        username_header: from.username_header.as_deref().map(|name| name.to_ascii_lowercase().into()),
        forward: from.forward.unwrap_or_default(),
    })
}

/// The backend isn't looked for here: [`super::scope`] does, for each rule that asks it.
fn of_external(policy: &ObjectName, from: &External) -> Result<model::ExternalAuthenticator, Problem> {
    let invalid = |why: String| Problem::Invalid(format!("external.{why}"));
    let ServiceRef { name, namespace, port } = &from.backend_ref;
    let backend = model::BackendId {
        kind: model::BackendKind::Service,
        name: ObjectName::new(namespace.as_deref().unwrap_or(&policy.namespace), name.as_str()),
        port: u16::try_from(*port).map_err(|_| invalid("backendRef.port: it isn't a port".to_owned()))?,
        transport: model::Transport::Tcp,
    };
    // In the form of a route's filter, alike in every field.
    let same = serde_json::to_value(from).and_then(serde_json::from_value::<ExternalAuth>);
    let same = same.map_err(|error| invalid(error.to_string()))?;
    Ok(model::ExternalAuthenticator {
        policy: policy.clone(),
        ask: filters::authorizer(&same, backend).map_err(invalid)?,
        timeout: duration("external.timeout", from.timeout.as_ref(), EXTERNAL_TIMEOUT, ("10ms", "60s"))?,
        fail_open: match from.failure_mode.unwrap_or_default() {
            FailureMode::Deny => false,
            FailureMode::Allow => true,
        },
        sign_in: from.sign_in_redirect.as_deref().map(Into::into),
        cache: from.cache.as_ref().map(of_cache).transpose()?,
    })
}

fn of_cache(from: &ExternalCache) -> Result<model::AnswerCache, Problem> {
    let part =
        |(n, part)| key_part(part).map_err(|why| Problem::Invalid(format!("external.cache.key[{n}]: {why}")));
    let most = from.max_entries.and_then(|most| usize::try_from(most).ok());
    Ok(model::AnswerCache {
        key: from.key.iter().enumerate().map(part).collect::<Result<_, _>>()?,
        lifetime: duration("external.cache.ttl", from.ttl.as_ref(), ANSWER_LIFETIME, ("1s", "1h"))?,
        max_entries: most.unwrap_or(ANSWERS),
    })
}

fn of_oidc(
    policy: &ObjectName,
    from: &Oidc,
    resolver: &mut Resolver<'_>,
) -> Result<model::OidcAuth, Problem> {
    let secrets = resolver.oidc(&local(policy, &from.client_secret_ref.name));
    let (client_secret, cookie_secrets) =
        secrets.map_err(|why| Problem::Unresolved(format!("oidc.clientSecretRef: {why}")))?;
    let authorities = resolver.authorities(policy, from.ca_config_map_ref.as_ref());
    let authorities =
        authorities.map_err(|why| Problem::Unresolved(format!("oidc.caConfigMapRef: {why}")))?;
    let cookie = from.cookie.clone().unwrap_or_default();
    Ok(model::OidcAuth {
        provider: RemoteKeys {
            uri: from.issuer.as_str().into(),
            discovery: true,
            cache: CACHE,
            local: resolver.local,
            authorities,
        },
        client_id: from.client_id.as_str().into(),
        client_secret,
        cookie_secrets,
        scopes: texts(from.scopes.as_deref().unwrap_or_default()),
        redirect_path: from.redirect_path.as_deref().unwrap_or(REDIRECT_PATH).into(),
        logout_path: from.logout_path.as_deref().map(Into::into),
        cookie: model::OidcCookie {
            name: cookie.name.as_deref().unwrap_or(SESSION_COOKIE).into(),
            domain: cookie.domain.as_deref().map(Into::into),
            same_site: match cookie.same_site.unwrap_or_default() {
                SameSite::Strict => model::SameSite::Strict,
                SameSite::Lax => model::SameSite::Lax,
                SameSite::None => model::SameSite::None,
            },
            lifetime: duration("oidc.cookie.lifetime", cookie.lifetime.as_ref(), SESSION, ("1m", "8784h"))?,
        },
        refresh: from.refresh.unwrap_or(true),
        pkce: from.pkce.unwrap_or(true),
        forward_access_token: from.forward_access_token.unwrap_or_default(),
        consumer_claim: from.consumer_claim.as_deref().unwrap_or("sub").into(),
        claims_to_headers: claim_fields(from.claims_to_headers.as_deref()),
    })
}

fn of_certificates(from: &ClientCertificate) -> model::ClientCertificateAuth {
    model::ClientCertificateAuth {
        sans: texts(from.sans.as_deref().unwrap_or_default()),
        subject: from.subject.as_deref().map(Into::into),
        fingerprints: texts(from.fingerprints.as_deref().unwrap_or_default()),
    }
}

fn places(
    from: Option<&[CredentialSource]>,
    plain: model::CredentialSource,
) -> Result<Vec<model::CredentialSource>, Problem> {
    let place = |(n, from): (usize, &CredentialSource)| {
        let CredentialSource { header, scheme, cookie, query } = from;
        match (header, cookie, query) {
            (Some(name), None, None) => Ok(model::CredentialSource::Header {
                name: name.to_ascii_lowercase().into(),
                scheme: scheme.as_deref().map(Into::into),
            }),
            (None, Some(name), None) => Ok(model::CredentialSource::Cookie(name.as_str().into())),
            (None, None, Some(name)) => Ok(model::CredentialSource::Query(name.as_str().into())),
            _ => Err(Problem::Invalid(format!("from[{n}] has to have exactly one of header, cookie, query"))),
        }
    };
    match from {
        None | Some([]) => Ok(vec![plain]),
        Some(from) => from.iter().enumerate().map(place).collect(),
    }
}

fn action(from: Action) -> model::AuthAction {
    match from {
        Action::Allow => model::AuthAction::Allow,
        Action::Deny => model::AuthAction::Deny,
    }
}

fn rule(name: &str, from: &Rule) -> model::AuthorizationRule {
    let principal = from.principal.clone().unwrap_or_default();
    let operation = from.operation.clone().unwrap_or_default();
    let list = |from: &Option<Vec<String>>| texts(from.as_deref().unwrap_or_default());
    let claims = principal.claims.iter().flatten();
    model::AuthorizationRule {
        name: name.into(),
        action: action(from.action.unwrap_or_default()),
        when: list(&from.when),
        cidrs: list(&principal.cidrs),
        claims: claims.map(|claim| (claim.name.as_str().into(), texts(&claim.values))).collect(),
        scopes: list(&principal.scopes),
        consumers: list(&principal.consumers),
        methods: list(&operation.methods),
        paths: list(&operation.paths),
    }
}
