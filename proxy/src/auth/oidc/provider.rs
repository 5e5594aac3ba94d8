//! What is asked of a provider: tokens for a code, and for a refresh token.

use super::seconds;
use crate::auth::fetch::{Form, Trust, post};
use crate::auth::json::{Object, object};
use crate::auth::remote::{Provider, Remote};
use crate::auth::token::{Demands, Token, now};
use crate::model::{OidcAuth, Redacted, RemoteKeys, Text};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OnceCell};

/// How far clocks may differ, in seconds.
const LEEWAY: f64 = 60.0;
/// How long the outcome of a refresh is remembered: for requests that a browser has sent with the session from before.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Bytes of a token that isn't a JWT.
const LENGTH: usize = 8 * 1024;

/// Us, as the provider knows us.
pub(super) struct Client {
    id: Text,
    secret: Redacted<String>,
    /// None: nothing is fetched, only whether the rest is right is wanted.
    remote: Option<Arc<Remote>>,
    /// Where it is.
    source: RemoteKeys,
}

/// What the provider has given.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    /// Verified.
    pub(super) id_token: Option<String>,
    /// Of the ID token.
    pub(super) claims: Option<Object>,
    pub(super) access_token: Option<String>,
    pub(super) refresh_token: Option<String>,
    /// When they run out, in seconds since the Unix epoch.
    pub(super) until: u64,
}

/// Why there are no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The provider says no, or something that can't be believed.
    Refused,
    /// It doesn't say anything.
    Unavailable,
}

/// What a token endpoint answers (OpenID Connect Core 1.0 §3.1.3.3).
#[derive(Deserialize)]
struct Answer {
    id_token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<Value>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.id).field(&self.remote).finish()
    }
}

impl Client {
    pub(super) fn new(from: &OidcAuth, remote: Option<Arc<Remote>>) -> Self {
        let (id, secret) = (from.client_id.clone(), from.client_secret.clone());
        Self { id, secret, remote, source: from.provider.clone() }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// What the provider says of itself.
    pub(super) async fn provider(&self) -> Option<Arc<Provider>> {
        self.remote.as_ref()?.provider().await
    }

    /// Asks for tokens. `form`: what for; what is absent is left out.
    pub(super) async fn tokens(&self, form: &[(&str, Option<&str>)]) -> Result<Tokens, Failed> {
        let remote = self.remote.as_ref().ok_or(Failed::Unavailable)?;
        let provider = remote.provider().await.ok_or(Failed::Unavailable)?;
        let endpoint = provider.token_endpoint.as_deref().ok_or(Failed::Unavailable)?;
        let asked = post(endpoint, Trust::of(&self.source), self.form(&provider, form)).await;
        let (status, text) = asked.map_err(|error| {
            tracing::warn!(%error, client_id = %self.id, "the provider's token endpoint can't be asked");
            Failed::Unavailable
        })?;
        if status != StatusCode::OK {
            // RFC 6749 §5.2. Its text says what is wrong with us, and nothing of the user.
            let error = object(text.as_bytes()).and_then(|answer| Some(answer.get("error")?.to_string()));
            tracing::warn!(%status, error, client_id = %self.id, "the provider gives no tokens");
            return Err(if status.is_server_error() { Failed::Unavailable } else { Failed::Refused });
        }
        let answer: Answer = serde_json::from_str(&text).map_err(|error| {
            tracing::warn!(%error, client_id = %self.id, "the provider's answer isn't one of tokens");
            Failed::Refused
        })?;
        self.judge(remote, &provider, answer).await
    }

    async fn judge(&self, remote: &Remote, provider: &Provider, answer: Answer) -> Result<Tokens, Failed> {
        let verified = match &answer.id_token {
            None => None,
            Some(text) => Some(self.verify(remote, provider, text).await?),
        };
        let lifetime = match &answer.expires_in {
            // Some write a number as text.
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
            None => None,
        };
        let until = match (lifetime, &verified) {
            (Some(lifetime), _) => seconds().saturating_add(lifetime),
            (None, Some(token)) => token.expires(),
            (None, None) => return Err(Failed::Refused),
        };
        let bounded = |token: Option<String>| token.filter(|token| token.len() <= LENGTH);
        Ok(Tokens {
            id_token: answer.id_token,
            claims: verified.map(|token| Arc::unwrap_or_clone(token.claims)),
            access_token: bounded(answer.access_token),
            refresh_token: bounded(answer.refresh_token),
            until,
        })
    }

    /// Verifies an ID token (OpenID Connect Core 1.0 §3.1.3.7), but for its nonce.
    async fn verify(&self, remote: &Remote, provider: &Provider, text: &str) -> Result<Token, Failed> {
        let verified = remote.verify(|keys| Token::verify(text, keys)).await.ok_or(Failed::Unavailable)?;
        let demands = Demands {
            issuer: Some(provider.issuer.as_str().into()),
            audiences: [self.id()].map(Into::into).into(),
            algorithms: Box::default(),
            leeway: LEEWAY,
        };
        let for_us = |token: &Token| {
            let party = token.claims.get("azp");
            party.is_none_or(|party| party.as_str() == Some(self.id()))
                && token.claims.get("sub").is_some_and(Value::is_string)
        };
        verified.ok().filter(|token| token.meets(&demands, now()) && for_us(token)).ok_or_else(|| {
            tracing::warn!(client_id = %self.id, "the provider gave an ID token that isn't valid, or not for us");
            Failed::Refused
        })
    }

    /// A form with who we are (RFC 6749 §2.3.1).
    fn form(&self, provider: &Provider, form: &[(&str, Option<&str>)]) -> Form {
        let mut text = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form {
            if let Some(value) = value {
                text.append_pair(name, value);
            }
        }
        let methods = provider.token_endpoint_auth_methods_supported.as_deref();
        let has = |method| methods.is_some_and(|all| all.iter().any(|known| known == method));
        if methods.is_some() && !has("client_secret_basic") && has("client_secret_post") {
            text.append_pair("client_id", &self.id).append_pair("client_secret", self.secret.reveal());
            return Form { text: text.finish(), authorization: None };
        }
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(&self.id), encode(self.secret.reveal()));
        let mut authorization = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok();
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Form { text: text.finish(), authorization }
    }
}

/// Refreshes that are under way or just done. A refresh token may be good for one use only, and a browser sends several requests at once:
/// the first asks, the others get what it has got. Other replicas don't know of it.
#[derive(Debug, Default)]
pub(super) struct Refreshes(Mutex<HashMap<Vec<u8>, Refresh>>);

#[derive(Clone, Debug)]
struct Refresh {
    began: Instant,
    outcome: Arc<OnceCell<Result<Tokens, Failed>>>,
}

impl Refreshes {
    pub(super) async fn refresh(&self, client: &Client, token: &str) -> Result<Tokens, Failed> {
        let key = digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec();
        let outcome = {
            let mut all = self.0.lock().await;
            all.retain(|_, refresh| refresh.began.elapsed() < REMEMBERED);
            let new = || Refresh { began: Instant::now(), outcome: Arc::default() };
            all.entry(key.clone()).or_insert_with(new).outcome.clone()
        };
        let form = [("grant_type", Some("refresh_token")), ("refresh_token", Some(token))];
        let said = outcome.get_or_init(async || client.tokens(&form).await).await.clone();
        if matches!(said, Err(Failed::Unavailable)) {
            // The next request may have more luck.
            self.0.lock().await.remove(&key);
        }
        said
    }
}
