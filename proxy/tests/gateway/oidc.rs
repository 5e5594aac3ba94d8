//! Logins with a browser, against a provider that is as strict as the specifications, and attackers who aren't.
#![expect(
    clippy::disallowed_types,
    reason = "the provider is a test's own, and no lock is held across an await"
)]

use crate::auth::{Guarded, auth, es256, guarded, now};
use crate::harness::{Backend, Response, ok, soon};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use headgate_proxy::model::{
    AuthMethod, Authorities, ClaimToHeader, OidcAuth, OidcCookie, Policies, Redacted, RemoteKeys, SameSite,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECRET: &str = "the secret of the client, long enough";

/// What the provider does, and what it has seen.
#[derive(Default)]
struct Mind {
    /// Codes that are good for one use each, with what their login asked for.
    codes: BTreeMap<String, BTreeMap<String, String>>,
    /// Refresh tokens that are good for one use each.
    refresh: Vec<String>,
    /// Seconds that its tokens are good for.
    lifetime: u64,
    /// Claims of ID tokens besides, or instead of, those that are right.
    claims: BTreeMap<&'static str, Value>,
    /// By which key they are signed.
    key: usize,
    /// How often tokens were given.
    given: usize,
    is_away: bool,
}

#[derive(Clone)]
struct Provider {
    mind: Arc<Mutex<Mind>>,
    uri: String,
    _backend: Arc<Backend>,
}

fn form(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).unwrap()
}

fn answer(status: &str, value: &Value) -> Vec<u8> {
    let text = value.to_string();
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

impl Mind {
    fn tokens(&mut self, request: &Response) -> Vec<u8> {
        if self.is_away {
            return answer("503 Service Unavailable", &json!({}));
        }
        let basic = format!(
            "Basic {}",
            STANDARD.encode(format!("gateway:{}", SECRET.replace(' ', "+").replace(',', "%2C")))
        );
        if request.header("authorization") != Some(&basic) {
            return answer("401 Unauthorized", &json!({"error": "invalid_client"}));
        }
        let asked = form(std::str::from_utf8(&request.body).unwrap());
        let invalid = answer("400 Bad Request", &json!({"error": "invalid_grant"}));
        let mut claims = json!({"iss": format!("http://{}", request.header("host").unwrap()),
            "aud": "gateway", "sub": "alice", "email": "alice@users.example", "exp": now() + 600});
        match &*asked["grant_type"] {
            "authorization_code" => {
                let Some(login) = self.codes.remove(&asked["code"]) else { return invalid };
                if login["redirect_uri"] != asked["redirect_uri"] {
                    return invalid;
                }
                let proof = digest::digest(&digest::SHA256, asked["code_verifier"].as_bytes());
                if login["code_challenge"] != URL_SAFE_NO_PAD.encode(proof) {
                    return invalid;
                }
                claims["nonce"] = login["nonce"].as_str().into();
            }
            _ => match self.refresh.iter().position(|token| *token == asked["refresh_token"]) {
                Some(n) => drop(self.refresh.remove(n)),
                None => return invalid,
            },
        }
        for (name, value) in &self.claims {
            claims[name] = value.clone();
        }
        self.given += 1;
        let refresh = format!("refresh-{}", self.given);
        self.refresh.push(refresh.clone());
        let access = format!("access-{}", self.given);
        answer(
            "200 OK",
            &json!({"token_type": "Bearer", "id_token": es256::sign(self.key, claims),
            "access_token": access, "refresh_token": refresh, "expires_in": self.lifetime}),
        )
    }
}

impl Provider {
    async fn start() -> Self {
        let mind = Arc::new(Mutex::new(Mind { lifetime: 300, ..Mind::default() }));
        let there = mind.clone();
        let backend = Backend::http(move |request| {
            let uri = format!("http://{}", request.header("host").unwrap());
            match request.start.split(' ').nth(1).unwrap() {
                "/.well-known/openid-configuration" => {
                    ok(json!({"issuer": uri, "jwks_uri": format!("{uri}/keys"),
                    "authorization_endpoint": format!("{uri}/authorize?tenant=1"),
                    "token_endpoint": format!("{uri}/token"), "end_session_endpoint": format!("{uri}/end")})
                    .to_string()
                    .as_bytes())
                }
                "/keys" => ok(es256::set(0).as_bytes()),
                "/token" => there.lock().unwrap().tokens(request),
                other => panic!("{other}"),
            }
        })
        .await;
        Self { mind, uri: format!("http://{}", backend.address), _backend: Arc::new(backend) }
    }

    /// A user agrees to what a login asks for: what their browser comes back with.
    fn agree(&self, location: &str) -> (String, String) {
        let (endpoint, query) = location.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/authorize", self.uri));
        let login = form(query);
        for (name, value) in [
            ("tenant", "1"),
            ("response_type", "code"),
            ("client_id", "gateway"),
            ("redirect_uri", "http://example.com/oauth2/callback"),
            ("scope", "openid email"),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(login[name], value, "{name}");
        }
        let mut mind = self.mind.lock().unwrap();
        let (code, state) = (format!("code-{}", mind.codes.len()), login["state"].clone());
        mind.codes.insert(code.clone(), login);
        (code, state)
    }

    fn method(&self) -> OidcAuth {
        OidcAuth {
            provider: RemoteKeys {
                uri: self.uri.as_str().into(),
                discovery: true,
                cache: Duration::from_secs(300),
                local: true,
                authorities: Authorities::System,
            },
            client_id: "gateway".into(),
            client_secret: Redacted::new(SECRET.to_owned()),
            cookie_secrets: vec![Redacted::new("what cookies are sealed by".to_owned())],
            scopes: vec!["openid".into(), "email".into()],
            redirect_path: "/oauth2/callback".into(),
            logout_path: Some("/oauth2/logout".into()),
            cookie: OidcCookie {
                name: "session".into(),
                domain: None,
                same_site: SameSite::Lax,
                lifetime: Duration::from_secs(3_600),
            },
            refresh: true,
            pkce: true,
            forward_access_token: true,
            consumer_claim: "email".into(),
            claims_to_headers: vec![ClaimToHeader { claim: "sub".into(), header: "x-user".into() }],
        }
    }

    fn policies(&self, change: impl FnOnce(&mut OidcAuth)) -> Policies {
        let mut method = self.method();
        change(&mut method);
        guarded(auth(vec![("login", AuthMethod::Oidc(Box::new(method)))]))
    }

    async fn guarded(&self) -> Guarded {
        Guarded::by(self.policies(|_| {})).await
    }
}

/// Cookies, and what shows pages.
#[derive(Clone, Default)]
struct Browser(BTreeMap<String, String>);

impl Browser {
    async fn get(&mut self, guarded: &Guarded, path: &str) -> Response {
        let cookies: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = match cookies.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}; theirs=1\r\n", cookies.join("; ")),
        };
        let answer = guarded.ask(path, &format!("Accept: text/html\r\n{cookies}")).await;
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")) {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => drop(self.0.remove(name)),
                false => drop(self.0.insert(name.to_owned(), value.to_owned())),
            }
        }
        answer
    }

    async fn log_in(&mut self, guarded: &Guarded, provider: &Provider, path: &str) -> Response {
        let sent = self.get(guarded, path).await;
        assert_eq!(sent.status(), 302, "{}", sent.text());
        let (code, state) = provider.agree(sent.header("location").unwrap());
        self.get(guarded, &format!("/oauth2/callback?code={code}&state={state}")).await
    }
}

#[tokio::test]
async fn a_browser_logs_in_and_comes_back_to_where_it_was() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    let mut browser = Browser::default();
    let back = browser.log_in(&guarded, &provider, "/shop?a=1&b=%2F").await;
    assert_eq!((back.status(), back.header("location")), (302, Some("http://example.com/shop?a=1&b=%2F")));
    assert_eq!(back.header("cache-control"), Some("no-store"));
    // Only the session is left; it says nothing to anybody but us.
    assert_eq!(browser.0.keys().collect::<Vec<_>>(), ["session"]);
    assert!(!browser.0["session"].contains("alice"));
    for _ in 0..3 {
        let seen = browser.get(&guarded, "/shop").await;
        let text = seen.text();
        assert_eq!(seen.status(), 200, "{text}");
        assert!(
            text.contains("x-user: alice\n") && text.contains("authorization: Bearer access-1\n"),
            "{text}"
        );
        assert!(text.contains("cookie: theirs=1\n") && !text.contains("session="), "{text}");
    }
    assert_eq!(guarded.seen.load(Ordering::Relaxed), 3);
    assert_eq!(provider.mind.lock().unwrap().given, 1);

    let out = browser.get(&guarded, "/oauth2/logout").await;
    let (there, asked) = out.header("location").unwrap().split_once('?').unwrap();
    assert_eq!((out.status(), there), (302, &*format!("{}/end", provider.uri)));
    let asked = form(asked);
    assert_eq!(asked["post_logout_redirect_uri"], "http://example.com/");
    assert!(asked["id_token_hint"].starts_with("ey") && browser.0.is_empty());
    assert_eq!(browser.get(&guarded, "/shop").await.status(), 302);
}

#[tokio::test]
async fn what_shows_no_pages_is_refused_and_not_sent_elsewhere() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    for fields in ["", "Accept: application/json\r\n", "Accept: text/html\r\nSec-Fetch-Mode: cors\r\n"] {
        let answer = guarded.ask("/", fields).await;
        assert_eq!((answer.status(), answer.header("location")), (401, None), "{fields}");
        assert_eq!(answer.header("www-authenticate"), Some("Cookie realm=\"login\""));
    }
    assert_eq!(guarded.seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn no_login_is_made_of_what_somebody_else_has_begun() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    let refused = async |browser: &mut Browser, query: String| {
        let answer = browser.get(&guarded, &format!("/oauth2/callback?{query}")).await;
        assert_eq!(answer.status(), 400, "{query}");
        assert!(!browser.0.contains_key("session"), "{query}");
        assert!(answer.text().contains("could not be completed"), "{}", answer.text());
    };
    let mut browser = Browser::default();
    let sent = browser.get(&guarded, "/").await;
    let (code, state) = provider.agree(sent.header("location").unwrap());
    // An attacker's own login, brought to somebody else's browser.
    refused(&mut Browser::default(), format!("code={code}&state={state}")).await;
    let mut attacker = Browser::default();
    let theirs = attacker.get(&guarded, "/").await;
    let (their_code, their_state) = provider.agree(theirs.header("location").unwrap());
    refused(&mut browser, format!("code={their_code}&state={their_state}")).await;
    // Their code with a good state: it has another nonce and another proof.
    refused(&mut browser, format!("code={their_code}&state={state}")).await;
    for query in [
        String::new(),
        format!("code={code}"),
        format!("state={state}"),
        format!("code={code}&state={state}&state={state}"),
        format!("code={code}&state={state}x"),
        format!("code=nonsense&state={state}"),
        format!("error=access_denied&state={state}"),
        format!("code={code}&state={state}&iss=https%3A%2F%2Fother.example"),
        "code=1&state=%00%0d%0a%ff".to_owned(),
    ] {
        refused(&mut browser, query).await;
    }
    // Nothing of it has hurt the login.
    let came = browser.get(&guarded, &format!("/oauth2/callback?code={code}&state={state}")).await;
    assert_eq!(came.status(), 302);
    // The code is used up, and the login forgotten.
    let mut again = Browser::default();
    refused(&mut again, format!("code={code}&state={state}")).await;
    assert_eq!(guarded.seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn id_tokens_are_for_us_and_for_this_login() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    let wrong: [(&str, Value); 6] = [
        ("nonce", json!("another")),
        ("aud", json!("somebody")),
        ("iss", json!("https://other.example")),
        ("exp", json!(now() - 100)),
        ("azp", json!("somebody")),
        ("sub", json!(7)),
    ];
    for (name, value) in wrong {
        provider.mind.lock().unwrap().claims = BTreeMap::from([(name, value)]);
        let came = Browser::default().log_in(&guarded, &provider, "/").await;
        assert_eq!(came.status(), 400, "{name}");
    }
    {
        let mut mind = provider.mind.lock().unwrap();
        (mind.claims, mind.key) = (BTreeMap::new(), 1);
    }
    assert_eq!(Browser::default().log_in(&guarded, &provider, "/").await.status(), 400);
    provider.mind.lock().unwrap().key = 0;
    assert_eq!(Browser::default().log_in(&guarded, &provider, "/").await.status(), 302);
}

#[tokio::test]
async fn nobody_is_sent_to_another_host_after_a_login() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    for path in ["//evil.example/", "/%2F/evil.example", "/\t/evil.example"] {
        let mut browser = Browser::default();
        let sent = browser.get(&guarded, path).await;
        if sent.status() != 302 {
            continue;
        }
        let (code, state) = provider.agree(sent.header("location").unwrap());
        let back = browser.get(&guarded, &format!("/oauth2/callback?code={code}&state={state}")).await;
        assert!(back.header("location").unwrap().starts_with("http://example.com/"), "{path}");
    }
}

#[tokio::test]
async fn forged_and_foreign_sessions_are_nothing() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    let mut browser = Browser::default();
    browser.log_in(&guarded, &provider, "/").await;
    let good = browser.0["session"].clone();
    // A login's cookie isn't a session, nor is a part of one.
    let mut other = Browser::default();
    other.get(&guarded, "/").await;
    let attempt = other.0.values().next().unwrap().clone();
    let flipped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' });
    for text in [&*format!("1.{attempt}"), &good[..40], &flipped, "1.", "2.x", ""] {
        let answer = guarded.ask("/", &format!("Cookie: session={text}\r\n")).await;
        assert_eq!(answer.status(), 401, "{text}");
    }
    // Of another client of the same provider, or sealed by another secret.
    let others = [
        provider.policies(|oidc| oidc.client_id = "another".into()),
        provider.policies(|oidc| {
            oidc.cookie_secrets = vec![Redacted::new("another secret of cookies".to_owned())]
        }),
    ];
    for policies in others {
        let elsewhere = Guarded::by(policies).await;
        assert_eq!(elsewhere.ask("/", &format!("Cookie: session={good}\r\n")).await.status(), 401);
    }
    // The secret was changed, and the one before is still known.
    let rotated = provider.policies(|oidc| {
        oidc.cookie_secrets.insert(0, Redacted::new("another secret of cookies".to_owned()));
    });
    let rotated = Guarded::by(rotated).await;
    assert_eq!(rotated.ask("/", &format!("Cookie: session={good}\r\n")).await.status(), 200);
    assert_eq!(guarded.seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn sessions_are_refreshed_once_and_end_when_the_provider_says_so() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    provider.mind.lock().unwrap().lifetime = 0;
    let mut browser = Browser::default();
    browser.log_in(&guarded, &provider, "/").await;
    provider.mind.lock().unwrap().lifetime = 300;
    // A page's requests come together, with the session from before: one of them refreshes it.
    let before = browser.clone();
    let (mut a, mut b) = (before.clone(), before.clone());
    let (one, two) = tokio::join!(a.get(&guarded, "/"), b.get(&guarded, "/"));
    for answer in [one, two] {
        assert!(answer.text().contains("authorization: Bearer access-2\n"), "{}", answer.text());
    }
    assert_ne!(a.0, before.0);
    assert_eq!(provider.mind.lock().unwrap().given, 2);
    assert_eq!(a.get(&guarded, "/").await.status(), 200);
    assert_eq!(provider.mind.lock().unwrap().given, 2);

    // The provider is away: nobody can say. Then it is back, and knows another user by that token.
    provider.mind.lock().unwrap().lifetime = 0;
    let mut browser = Browser::default();
    browser.log_in(&guarded, &provider, "/").await;
    provider.mind.lock().unwrap().is_away = true;
    assert_eq!(browser.get(&guarded, "/").await.status(), 503);
    {
        let mut mind = provider.mind.lock().unwrap();
        mind.is_away = false;
        mind.claims = BTreeMap::from([("sub", json!("mallory"))]);
    }
    let mut other = browser.clone();
    soon(async { while other.get(&guarded, "/").await.status() != 302 {} }).await;

    // The provider has ended the session.
    {
        let mut mind = provider.mind.lock().unwrap();
        (mind.claims, mind.lifetime) = (BTreeMap::new(), 0);
    }
    let mut browser = Browser::default();
    browser.log_in(&guarded, &provider, "/").await;
    provider.mind.lock().unwrap().refresh.clear();
    assert_eq!(browser.get(&guarded, "/").await.status(), 302);
}

#[tokio::test]
async fn a_session_that_is_too_long_is_told_and_a_long_one_is_kept() {
    let provider = Provider::start().await;
    let guarded = provider.guarded().await;
    let fill = |length: usize| BTreeMap::from([("groups", json!("g".repeat(length)))]);
    provider.mind.lock().unwrap().claims = fill(4_000);
    let mut browser = Browser::default();
    assert_eq!(browser.log_in(&guarded, &provider, "/").await.status(), 302);
    assert!(browser.0.len() > 1, "{:?}", browser.0.keys());
    let seen = browser.get(&guarded, "/").await.text();
    assert!(seen.contains("x-user: alice\n") && seen.contains("cookie: theirs=1\n"), "{seen}");
    // Longer than a token may be.
    provider.mind.lock().unwrap().claims = fill(9_000);
    assert_eq!(Browser::default().log_in(&guarded, &provider, "/").await.status(), 400);
}

#[tokio::test]
async fn without_its_provider_nobody_passes() {
    let provider = Provider::start().await;
    let nobody = crate::harness::nobody().await;
    let guarded =
        Guarded::by(provider.policies(|oidc| oidc.provider.uri = format!("http://{nobody}").into())).await;
    assert_eq!(guarded.ask("/", "Accept: text/html\r\n").await.status(), 503);
    assert_eq!(guarded.ask("/", "").await.status(), 401);
    assert_eq!(guarded.seen.load(Ordering::Relaxed), 0);
}
