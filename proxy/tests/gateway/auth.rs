//! Who may pass, over real connections: what backends see of clients, and that nobody else reaches one.

mod external;
mod keys;

use crate::harness::{Backend, Client, Gateway, Response, Setup, ok};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use headgate_proxy::model::{
    Algorithm, ApiKeyAuth, Auth, AuthAction, AuthMethod, Authenticator, Authorization, AuthorizationRule,
    BasicAuth, ClaimToHeader, CredentialSource, Exemption, Guard, JwtAuth, JwtKeys, KeyPart, LimitResponse,
    ObjectName, OnMissingKey, Policies, Rate, RateLimit, RateLimits, Redacted, Requirement,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"another secret of thirty-two byt";

pub fn policy() -> ObjectName {
    ObjectName::new("test", "policy")
}

pub fn auth(authenticators: Vec<(&str, AuthMethod)>) -> Auth {
    let authenticator =
        |(name, method): (&str, AuthMethod)| Arc::new(Authenticator { name: name.into(), method });
    Auth {
        policy: policy(),
        requirement: Requirement::Any,
        allow_missing: false,
        authenticators: authenticators.into_iter().map(authenticator).collect(),
        authorization: Authorization::default(),
        unauthenticated_status: 401,
        unauthorized_status: 403,
    }
}

fn key_set(secret: &[u8], kid: &str) -> String {
    json!({"keys": [{"kty": "oct", "kid": kid, "k": URL_SAFE_NO_PAD.encode(secret)}]}).to_string()
}

fn jwt(keys: JwtKeys) -> JwtAuth {
    JwtAuth {
        issuer: Some("https://issuer.example".into()),
        audiences: vec!["shop".into()],
        algorithms: vec![],
        leeway: Duration::from_secs(60),
        keys,
        from: vec![CredentialSource::Header { name: "authorization".into(), scheme: Some("Bearer".into()) }],
        forward: true,
        consumer_claim: "sub".into(),
        claims_to_headers: vec![
            ClaimToHeader { claim: "sub".into(), header: "x-user".into() },
            ClaimToHeader { claim: "realm.roles".into(), header: "x-roles".into() },
        ],
    }
}

fn secret_jwt() -> AuthMethod {
    AuthMethod::Jwt(jwt(JwtKeys::Secret(Redacted::new(key_set(SECRET, "a")))))
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn claims(sub: &str) -> Value {
    json!({"sub": sub, "iss": "https://issuer.example", "aud": "shop", "exp": now() + 600,
        "scope": "read", "realm": {"roles": ["dev", "ops"]}})
}

fn sign(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", text(header), text(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn token(sub: &str) -> String {
    sign(&json!({"alg": "HS256", "kid": "a"}), &claims(sub), SECRET)
}

fn api_keys(from: Vec<CredentialSource>) -> AuthMethod {
    let key = |text: &str| Redacted::new(text.to_owned());
    let keys = vec![
        ("alice".into(), key("alice-has-this-long-key")),
        // Of "bob-has-another-long-key".
        ("bob".into(), key("sha256:83ce14c02e17f72e037e645354ec4c517c5313a18f8a4d7b247b7403403b4ba2")),
    ];
    AuthMethod::ApiKey(ApiKeyAuth { keys, from, consumer_header: Some("x-consumer".into()), forward: false })
}

fn header_key() -> Vec<CredentialSource> {
    vec![CredentialSource::Header { name: "x-api-key".into(), scheme: None }]
}

fn basic() -> AuthMethod {
    let users = "alice:$2y$05$.5sB.BMqIzQA/uYGx2ADi.vbnGmDvKhtHYS5PV7YZ37KUwls98n0K\n";
    AuthMethod::Basic(BasicAuth {
        users: Redacted::new(users.to_owned()),
        realm: "the \"shop\"".into(),
        username_header: Some("x-user".into()),
        forward: false,
    })
}

/// Policies that ask who clients are.
pub fn guarded(auth: Auth) -> Policies {
    Policies { guard: Some(Guard::Auth(Arc::new(auth))), ..Policies::default() }
}

pub struct Guarded {
    backend: Backend,
    /// Requests that came through.
    pub seen: Arc<AtomicUsize>,
    gateway: Gateway,
}

impl Guarded {
    pub async fn by(policies: Policies) -> Self {
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        let backend = Backend::http(move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut text = format!("{}\n", request.start);
            for (name, value) in &request.headers {
                text += &format!("{name}: {value}\n");
            }
            ok(text.as_bytes())
        })
        .await;
        let mut setup = Setup::only(&[backend.address]);
        setup.govern(policies);
        let gateway = setup.start();
        Self { backend, seen, gateway }
    }

    async fn client(&self) -> Client<TcpStream> {
        self.gateway.client().await
    }

    pub async fn ask(&self, path: &str, fields: &str) -> Response {
        ask(&mut self.client().await, path, fields).await
    }

    async fn status(&self, fields: &str) -> u16 {
        self.ask("/", fields).await.status()
    }

    pub async fn outcomes(&self, outcome: &str) -> f64 {
        let series = "headgate_auth_requests_total{namespace=\"test\",policy=\"policy\",outcome=";
        self.gateway.metric(&format!("{series}\"{outcome}\"")).await
    }
}

async fn ask(client: &mut Client<TcpStream>, path: &str, fields: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n")).await;
    client.response().await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn a_token_lets_its_subject_pass_and_tells_the_backend() {
    let guarded = Guarded::by(guarded(auth(vec![("issuer", secret_jwt())]))).await;
    let mut client = guarded.client().await;
    for _ in 0..3 {
        let forged = "X-User: root\r\nX_User: root\r\nx-roles: admin\r\n";
        let answer = ask(&mut client, "/", &format!("{}{forged}", bearer(&token("alice")))).await;
        assert_eq!(answer.status(), 200);
        let seen = answer.text();
        assert!(seen.contains("x-user: alice\n") && seen.contains("x-roles: dev,ops\n"), "{seen}");
        assert!(seen.contains("authorization: Bearer ey"), "{seen}");
        assert!(!seen.contains("root") && !seen.contains("admin"), "{seen}");
    }
    assert_eq!(guarded.outcomes("allowed").await, 3.0);
    // Without a token, forged fields are nothing either.
    assert_eq!(guarded.status("X-User: alice\r\n").await, 401);
    assert_eq!(guarded.seen.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn no_bad_token_reaches_a_backend() {
    let guarded = Guarded::by(guarded(auth(vec![("issuer", secret_jwt())]))).await;
    let header = json!({"alg": "HS256", "kid": "a"});
    let changed = |name: &str, value: Value| {
        let mut claims = claims("alice");
        claims[name] = value;
        sign(&header, &claims, SECRET)
    };
    let unsigned = {
        let good = token("root");
        let (_, claims) = good.rsplit_once('.').unwrap().0.split_once('.').unwrap();
        format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#))
    };
    let bad = [
        ("forged", sign(&header, &claims("root"), OTHER)),
        ("unsigned", unsigned),
        ("of no key", sign(&json!({"alg": "HS256", "kid": "b"}), &claims("root"), SECRET)),
        ("expired", changed("exp", json!(now() - 61))),
        ("from tomorrow", changed("nbf", json!(now() + 86_400))),
        ("without an end", changed("exp", Value::Null)),
        ("for somebody else", changed("aud", json!(["cart"]))),
        ("of somebody else", changed("iss", json!("https://other.example"))),
        ("oversized", changed("fill", json!("x".repeat(9000)))),
        ("malformed", "ey.ey.ey".to_owned()),
        ("empty", String::new()),
    ];
    for (what, token) in &bad {
        let answer = guarded.ask("/", &bearer(token)).await;
        assert_eq!(answer.status(), 401, "{what}");
        let told = answer.header("www-authenticate").unwrap();
        let wanted = match token.is_empty() {
            true => "Bearer realm=\"issuer\"",
            false => "Bearer realm=\"issuer\", error=\"invalid_token\"",
        };
        assert_eq!(told, wanted, "{what}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(!answer.text().contains("expired") && !answer.text().contains("key"), "{}", answer.text());
    }
    // Two that differ: nobody knows which one counts.
    let two = format!("{}{}", bearer(&token("alice")), bearer(&token("bob")));
    assert_eq!(guarded.status(&two).await, 401);
    assert_eq!(guarded.seen.load(Ordering::Relaxed), 0);
    assert_eq!(guarded.backend.connections(), 0);
    assert_eq!(guarded.outcomes("unauthenticated").await, bad.len() as f64 + 1.0);
    assert_eq!(guarded.gateway.metric("headgate_rejections_total{reason=\"unauthenticated\"").await, 12.0);
}

/// What an issuer of asymmetric keys publishes is no secret to sign with, and a token doesn't choose its key.
#[tokio::test]
async fn no_confused_token_reaches_a_backend() {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let pair = |algorithm| EcdsaKeyPair::generate(algorithm).unwrap();
    let (own, other) = (pair(&ECDSA_P256_SHA256_FIXED_SIGNING), pair(&ECDSA_P256_SHA256_FIXED_SIGNING));
    let public = |pair: &EcdsaKeyPair| pair.public_key().as_ref().to_vec();
    let key = |pair: &EcdsaKeyPair| {
        let point = public(pair);
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": x, "y": y})
    };
    let set = json!({"keys": [key(&own)]}).to_string();
    let keys = JwtKeys::Secret(Redacted::new(set.clone()));
    let guarded = Guarded::by(guarded(auth(vec![("issuer", AuthMethod::Jwt(jwt(keys)))]))).await;
    let signed = |pair: &EcdsaKeyPair, header: &Value, claims: &Value| {
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = pair.sign(&random, message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let header = json!({"alg": "ES256", "kid": "ec"});
    let good = signed(&own, &header, &claims("alice"));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let of_root = signed(&other, &header, &claims("root"));
    let confused = |secret: &[u8]| sign(&json!({"alg": "HS256", "kid": "ec"}), &claims("root"), secret);
    let said = |header: Value| signed(&own, &header, &claims("root"));
    for (what, token) in [
        ("a secret that everybody knows: the point", confused(&public(&own))),
        ("the set", confused(set.as_bytes())),
        ("nothing", confused(b"")),
        (
            "a key of its own",
            signed(&other, &json!({"alg": "ES256", "kid": "ec", "jwk": key(&other)}), &claims("root")),
        ),
        (
            "a key from elsewhere",
            signed(&other, &json!({"alg": "ES256", "jku": "https://evil.example/jwks"}), &claims("root")),
        ),
        ("another curve's algorithm", said(json!({"alg": "ES384", "kid": "ec"}))),
        ("another kind of key's", said(json!({"alg": "RS256", "kid": "ec"}))),
        ("an algorithm that there isn't", said(json!({"alg": "nOnE", "kid": "ec"}))),
        ("no algorithm", said(json!({"kid": "ec"}))),
        (
            "something that has to be understood",
            said(json!({"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false})),
        ),
        ("a signature of another token", format!("{}.{signature}", of_root.rsplit_once('.').unwrap().0)),
        ("half a signature", format!("{message}.{}", &signature[..43])),
        ("a signature of zeros (CVE-2022-21449)", format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 64]))),
        ("the other form of base64", good.replace(signature, &format!("{signature}=="))),
        ("a fourth part", format!("{good}.{signature}")),
        ("claims twice", signed(&own, &header, &json!([claims("root"), claims("alice")]))),
    ] {
        let answer = guarded.ask("/", &bearer(&token)).await;
        assert_eq!(answer.status(), 401, "{what}");
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"issuer\", error=\"invalid_token\""),
            "{what}"
        );
    }
    assert_eq!((guarded.seen.load(Ordering::Relaxed), guarded.backend.connections()), (0, 0));
    assert_eq!(guarded.status(&bearer(&good)).await, 200);
}

#[tokio::test]
async fn keys_know_consumers_and_stay_with_us() {
    let mut from = header_key();
    from.push(CredentialSource::Query("key".into()));
    let guarded = Guarded::by(guarded(auth(vec![("keys", api_keys(from))]))).await;
    let answer = guarded.ask("/a?x=1&key=alice-has-this-long-key&y=2", "X-Consumer: root\r\n").await;
    assert_eq!(answer.status(), 200);
    let seen = answer.text();
    assert!(seen.starts_with("GET /a?x=1&y=2 HTTP/1.1\n") && seen.contains("x-consumer: alice\n"), "{seen}");
    assert!(!seen.contains("root"), "{seen}");
    let answer = guarded.ask("/", "X-Api-Key: bob-has-another-long-key\r\n").await;
    let seen = answer.text();
    assert!(seen.contains("x-consumer: bob\n") && !seen.contains("another-long-key"), "{seen}");
    for fields in [
        "X-Api-Key: sha256:83ce14c02e17f72e037e645354ec4c517c5313a18f8a4d7b247b7403403b4ba2\r\n",
        "X-Api-Key: alice-has-this-long-kez\r\n",
        "X-Api-Key: \r\n",
        "",
    ] {
        let answer = guarded.ask("/", fields).await;
        assert_eq!(answer.status(), 401, "{fields}");
        assert_eq!(answer.header("www-authenticate"), Some("ApiKey realm=\"keys\""));
    }
    let both = "X-Api-Key: bob-has-another-long-key\r\n";
    assert_eq!(guarded.ask("/?key=alice-has-this-long-key", both).await.status(), 401);
}

/// Whether or not a policy has to do with fields of ours, the backend gets each of them once.
#[tokio::test]
async fn backends_are_told_once_who_it_is() {
    let ip = "request.headers['x-real-ip'] == '127.0.0.1'".into();
    let by_ip = vec![rule(AuthAction::Allow, |rule| rule.when = vec![ip])];
    let told = |name: &str| {
        let AuthMethod::ApiKey(keys) = api_keys(header_key()) else { unreachable!("they are keys") };
        AuthMethod::ApiKey(ApiKeyAuth { consumer_header: Some(name.into()), ..keys })
    };
    for (name, rules, real_ip) in [
        ("X-Consumer", vec![], "127.0.0.1"),
        ("X-Consumer", by_ip, "127.0.0.1"),
        ("X-Real-IP", vec![], "bob"),
    ] {
        let default = if rules.is_empty() { AuthAction::Allow } else { AuthAction::Deny };
        let authorization = Authorization { rules, default };
        let guarded = Guarded::by(guarded(Auth { authorization, ..auth(vec![("keys", told(name))]) })).await;
        let forged = "X-Real-IP: 192.0.2.1\r\nX_Real_IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n";
        let answer = guarded.ask("/", &format!("X-Api-Key: bob-has-another-long-key\r\n{forged}")).await;
        assert_eq!(answer.status(), 200);
        let seen = answer.text();
        let values = |name: &str| {
            let lines = seen.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(values("x-real-ip"), [real_ip], "{seen}");
        assert_eq!(values("x-forwarded-for"), ["127.0.0.1"], "{seen}");
        assert_eq!(values("x-request-id").len(), 1, "{seen}");
        assert_eq!(
            values(&name.to_ascii_lowercase()),
            [if name == "X-Consumer" { "bob" } else { real_ip }],
            "{seen}"
        );
    }
}

#[tokio::test]
async fn passwords_are_asked_for_as_browsers_know_it() {
    let guarded = Guarded::by(guarded(auth(vec![("users", basic())]))).await;
    let answer = guarded.ask("/", "").await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"the shop\", charset=\"UTF-8\""));
    let with = |pair: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(pair));
    for pair in ["alice:Secret", "bob:secret", "alice:", "alice", ":secret"] {
        assert_eq!(guarded.status(&with(pair)).await, 401, "{pair}");
    }
    assert_eq!(guarded.status("Authorization: Basic !!!\r\n").await, 401);
    for _ in 0..2 {
        let seen = guarded.ask("/", &with("alice:secret")).await.text();
        assert!(seen.contains("x-user: alice\n") && !seen.contains("authorization"), "{seen}");
    }
}

#[tokio::test]
async fn any_of_several_or_all_of_them() {
    let both = || auth(vec![("issuer", secret_jwt()), ("keys", api_keys(header_key()))]);
    let key = "X-Api-Key: alice-has-this-long-key\r\n";
    let any = Guarded::by(guarded(both())).await;
    let answer = any.ask("/", "").await;
    let told: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "www-authenticate").collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(any.status(key).await, 200);
    assert_eq!(any.status(&bearer(&token("bob"))).await, 200);
    assert_eq!(any.status(&format!("{key}{}", bearer("bad"))).await, 200);
    assert_eq!(any.status(&bearer("bad")).await, 401);

    let all = Guarded::by(guarded(Auth { requirement: Requirement::All, ..both() })).await;
    assert_eq!(all.status(key).await, 401);
    assert_eq!(all.status(&format!("{key}{}", bearer("bad"))).await, 401);
    let seen = all.ask("/", &format!("{key}{}", bearer(&token("bob")))).await.text();
    assert!(seen.contains("x-user: bob\n") && seen.contains("x-consumer: alice\n"), "{seen}");

    let open = Guarded::by(guarded(Auth { allow_missing: true, ..both() })).await;
    assert_eq!(open.status("").await, 200);
    assert_eq!(open.status(&bearer("bad")).await, 401);
}

fn rule(action: AuthAction, change: impl FnOnce(&mut AuthorizationRule)) -> AuthorizationRule {
    let mut rule = AuthorizationRule { name: "rule".into(), action, ..AuthorizationRule::default() };
    change(&mut rule);
    rule
}

#[tokio::test]
async fn those_who_are_known_may_do_what_rules_say() {
    let rules = vec![
        rule(AuthAction::Allow, |rule| rule.scopes = vec!["read".into()]),
        rule(AuthAction::Deny, |rule| {
            rule.paths = vec!["/admin*".into()];
            rule.when = vec!["!('ops' in auth.claims.realm.roles) || auth.consumer != 'alice'".into()];
        }),
    ];
    let auth = Auth {
        allow_missing: true,
        authorization: Authorization { rules, default: AuthAction::Deny },
        unauthorized_status: 404,
        ..auth(vec![("issuer", secret_jwt())])
    };
    let guarded = Guarded::by(guarded(auth)).await;
    assert_eq!(guarded.ask("/", &bearer(&token("alice"))).await.status(), 200);
    assert_eq!(guarded.ask("/admin", &bearer(&token("alice"))).await.status(), 200);
    assert_eq!(guarded.ask("/", &bearer(&token("bob"))).await.status(), 200);
    let refused = guarded.ask("/admin", &bearer(&token("bob"))).await;
    assert_eq!((refused.status(), refused.header("www-authenticate")), (404, None));
    assert!(refused.text().contains("\"status\":404"), "{}", refused.text());
    // Somebody unknown may be allowed once known.
    let refused = guarded.ask("/", "").await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"issuer\""));
    assert_eq!(guarded.outcomes("unauthorized").await, 1.0);
}

#[tokio::test]
async fn a_broken_policy_closes_and_one_in_shadow_only_counts() {
    let closed = Policies { guard: Some(Guard::Closed { policy: policy() }), ..Policies::default() };
    let closed = Guarded::by(closed).await;
    assert_eq!(closed.status(&bearer(&token("alice"))).await, 500);
    assert_eq!(closed.gateway.metric("headgate_rejections_total{reason=\"policy_invalid\"").await, 1.0);
    // What can't be compiled closes as well.
    let broken = auth(vec![("keys", AuthMethod::Jwt(jwt(JwtKeys::Public("{}".into()))))]);
    assert_eq!(Guarded::by(guarded(broken)).await.status("").await, 500);
    assert_eq!((closed.seen.load(Ordering::Relaxed), closed.backend.connections()), (0, 0));

    let tried = auth(vec![("issuer", secret_jwt())]);
    let shadow = Guarded::by(Policies { tried_auth: Some(Arc::new(tried)), ..Policies::default() }).await;
    let seen = shadow.ask("/", "X-User: me\r\n").await.text();
    assert!(seen.contains("x-user: me\n"), "{seen}");
    assert_eq!(shadow.status(&bearer(&token("alice"))).await, 200);
    assert_eq!((shadow.outcomes("shadow").await, shadow.outcomes("allowed").await), (1.0, 1.0));
}

#[tokio::test]
async fn limits_count_by_who_the_client_is() {
    let limit = |name: &str, most, key, on_missing_key| RateLimit {
        name: name.into(),
        policy: policy(),
        scope: "all".into(),
        shadow: false,
        when: vec![],
        key,
        on_missing_key,
        rates: vec![Rate { limit: most, window: Duration::from_secs(3600) }],
        burst: None,
        algorithm: Algorithm::TokenBucket,
        concurrency: None,
        cost: None,
        exempt: Exemption::default(),
        overrides: vec![],
    };
    let limits = vec![
        limit("everybody", 7, vec![], OnMissingKey::Skip),
        limit("by-consumer", 2, vec![KeyPart::Consumer], OnMissingKey::Reject),
        limit("by-claim", 3, vec![KeyPart::Claim("realm.roles".into())], OnMissingKey::Skip),
    ];
    let policies = Policies {
        rate_limits: Some(RateLimits { limits, response: LimitResponse::default(), store: None }),
        ..guarded(auth(vec![("issuer", secret_jwt())]))
    };
    let guarded = Guarded::by(policies).await;
    let alice = bearer(&token("alice"));
    let first = guarded.ask("/", &alice).await;
    assert_eq!((first.status(), first.header("x-ratelimit-remaining")), (200, Some("1")));
    assert_eq!(guarded.status(&alice).await, 200);
    assert_eq!(guarded.status(&alice).await, 429);
    assert_eq!(guarded.status(&bearer(&token("bob"))).await, 200);
    // All have the same roles: that limit is used up.
    assert_eq!(guarded.status(&bearer(&token("carol"))).await, 429);
    // Nobody is counted whom nobody knows, except by what needs no identity.
    assert_eq!(guarded.status("").await, 401);
    assert_eq!(guarded.status("").await, 401);
    assert_eq!(guarded.status("").await, 429);
}

pub mod es256 {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use std::sync::LazyLock;

    static KEYS: LazyLock<[EcdsaKeyPair; 2]> =
        LazyLock::new(|| [0, 1].map(|_| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()));

    pub fn set(n: usize) -> String {
        let point = KEYS[n].public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": n.to_string(), "x": x, "y": y}]}).to_string()
    }

    pub fn token(n: usize) -> String {
        sign(n, claims("alice"))
    }

    pub fn sign(n: usize, claims: Value) -> String {
        let text = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES256", "kid": n.to_string()});
        let message = format!("{}.{}", text(header), text(claims));
        let signature = KEYS[n].sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
