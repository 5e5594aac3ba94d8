//! Users who log in with their browser: OpenID Connect's authorization code flow (Core 1.0 §3.1), with a proof key (RFC 7636).
//!
//! Nothing is kept here: what a login needs until the browser comes back is in a cookie of its own ([`Attempt`]), and so is
//! the session ([`Session`]), sealed ([`seal`]), so that any replica can go on with it. A request with a good session asks
//! nobody. [`Oidc::ask`] judges the session, and refreshes one that has run out; [`Oidc::begin`] sends a browser to the provider;
//! [`Oidc::answer`] is what the two paths that are ours answer.

mod cookie;
mod provider;
mod seal;

pub(super) use cookie::is_piece;

use super::claims::ClaimFields;
use super::credential::Place;
use super::json::{Object, object};
use super::remote::Remotes;
use super::token::now;
use super::{Known, Said};
use crate::authorize::Denial;
use crate::expression::View;
use crate::model::{OidcAuth, Text};
use crate::rejection::Rejection;
use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cookie::Cookies;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use provider::{Client, Failed, Refreshes, Tokens};
use seal::{Sealer, random};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Seconds that a login may take.
const ATTEMPT: u64 = 600;
/// Bytes of an address that is remembered during a login; a longer one is forgotten, and the login ends at `/`.
const BACK: usize = 2_000;
/// Characters of a state that name its cookie: so that two tabs can log in at the same time.
const NAMING: usize = 8;

/// A compiled provider, and how sessions with it are kept.
#[derive(Debug)]
pub(crate) struct Oidc {
    client: Client,
    scopes: String,
    redirect_path: Box<str>,
    logout_path: Option<Box<str>>,
    sealer: Sealer,
    cookies: Cookies,
    /// Seconds that a session lasts at most.
    lifetime: u64,
    refresh: bool,
    pkce: bool,
    forward_access_token: bool,
    told: ClaimFields,
    /// The session's cookies: the backend doesn't get them.
    pub(super) withheld: Box<[Place]>,
    refreshes: Refreshes,
}

/// Why a path is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Browsers come back to it.
    Redirect,
    /// It ends a session.
    Logout,
}

/// A request by what a login needs of it.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) method: &'a Method,
    pub(crate) scheme: &'static str,
    /// With a port.
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

/// A login that is under way.
#[derive(Serialize, Deserialize)]
struct Attempt {
    state: String,
    nonce: String,
    /// The proof key; absent: none is asked for.
    verifier: Option<String>,
    /// Path and query to go to in the end.
    back: String,
    /// Seconds since the Unix epoch.
    began: u64,
}

/// A login that has come to its end.
#[derive(Serialize, Deserialize)]
struct Session {
    id_token: String,
    /// When it has to be refreshed, or is over; in seconds since the Unix epoch, as `ends` is.
    until: u64,
    /// When it is over whatever happens.
    ends: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<String>,
}

/// Seals of sessions aren't those of attempts.
const SESSION: &str = "session";
const LOGIN: &str = "login";

impl Oidc {
    pub(super) fn compile(from: &OidcAuth, remotes: Option<&mut Remotes>) -> Result<Self, String> {
        let remote = remotes.map(|remotes| remotes.get(&from.provider)).transpose()?;
        let owner = format!("{} {}", from.provider.uri, from.client_id);
        let sealer = Sealer::new(&from.cookie_secrets, owner).map_err(|why| {
            format!("clientSecretRef: what cookies are sealed by {why}; give them an entry cookie-secret")
        })?;
        let cookies = Cookies::new(&from.cookie);
        let scopes = from.scopes.iter().map(|scope| &**scope).filter(|scope| *scope != "openid");
        Ok(Self {
            scopes: std::iter::once("openid").chain(scopes).collect::<Vec<_>>().join(" "),
            client: Client::new(from, remote),
            redirect_path: (&*from.redirect_path).into(),
            logout_path: from.logout_path.as_deref().map(Into::into),
            sealer,
            withheld: cookies.names().map(|name| Place::Session(name.into())).collect(),
            cookies,
            lifetime: from.cookie.lifetime.as_secs(),
            refresh: from.refresh,
            pkce: from.pkce,
            forward_access_token: from.forward_access_token,
            told: ClaimFields::compile(&from.consumer_claim, &from.claims_to_headers)?,
            refreshes: Refreshes::default(),
        })
    }

    /// Fields that it sets.
    pub(super) fn sets(&self) -> impl Iterator<Item = &HeaderName> {
        self.told.names()
    }

    /// Judges a request's session. `acts`: whether one that has run out is refreshed, which can be done but once.
    pub(super) async fn ask(&self, view: &View<'_>, acts: bool) -> Said<'_> {
        let Some(sealed) = self.cookies.read(view.headers, view.scheme) else { return Said::Missing };
        let Some(session) = self.sealer.open::<Session>(SESSION, &sealed) else { return Said::Wrong };
        let now = seconds();
        if now < session.until.min(session.ends) {
            return self.known(&session, Vec::new());
        }
        let Some(token) = session.refresh.as_ref().filter(|_| self.refresh && now < session.ends) else {
            return Said::Wrong;
        };
        if !acts {
            return self.known(&session, Vec::new());
        }
        let tokens = match self.refreshes.refresh(&self.client, token).await {
            Ok(tokens) => tokens,
            Err(Failed::Refused) => return Said::Wrong,
            Err(Failed::Unavailable) => return Said::Unable(Rejection::KeysUnavailable),
        };
        // OpenID Connect Core 1.0 §12.2: it is still the same user.
        let before = claims(&session.id_token);
        let subject = |claims: &Option<Object>| claims.as_ref().and_then(|claims| claims.get("sub").cloned());
        if tokens.claims.as_ref().is_some_and(|claims| claims.get("sub").cloned() != subject(&before)) {
            return Said::Wrong;
        }
        let id_token = tokens.id_token.clone().unwrap_or_else(|| session.id_token.clone());
        let refresh = tokens.refresh_token.clone().or(session.refresh);
        let session = self.session(&tokens, id_token, refresh, session.ends);
        match self.keep(&session, view.scheme) {
            Some(cookies) => self.known(&session, cookies),
            None => Said::Wrong,
        }
    }

    fn known(&self, session: &Session, cookies: Vec<HeaderValue>) -> Said<'_> {
        // We have verified it before we sealed it.
        let Some(claims) = claims(&session.id_token) else { return Said::Wrong };
        let access = session.access.as_ref().filter(|_| self.forward_access_token);
        let access = access.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let mut known =
            Known { withheld: &self.withheld, cookies, ..self.told.known(&self.told.of(Arc::new(claims))) };
        known.fields.extend(access.map(|access| (&header::AUTHORIZATION, access)));
        Said::Known(known)
    }

    /// Whether a path is one that it answers itself.
    pub(super) fn owns(&self, path: &str) -> Option<Own> {
        if *path == *self.redirect_path {
            return Some(Own::Redirect);
        }
        (self.logout_path.as_deref() == Some(path)).then_some(Own::Logout)
    }

    /// Whether it was this one that began the login from which a browser comes back.
    pub(super) fn began(&self, asking: &Asking<'_>) -> bool {
        parameter(asking.query, "state").is_some_and(|state| self.attempt(asking, &state).is_some())
    }

    /// What browsers get at its own paths.
    pub(crate) async fn answer(&self, own: Own, asking: &Asking<'_>) -> Result<Denial, Rejection> {
        match own {
            Own::Redirect => self.come_back(asking).await,
            Own::Logout => Ok(self.log_out(asking).await),
        }
    }

    /// Sends a browser to the provider (§3.1.2.1). None: it isn't a browser that shows a page.
    pub(crate) async fn begin(&self, asking: &Asking<'_>) -> Option<Result<Denial, Rejection>> {
        if !is_navigation(asking.method, asking.headers) {
            return None;
        }
        Some(self.redirect(asking).await.ok_or(Rejection::KeysUnavailable))
    }

    async fn redirect(&self, asking: &Asking<'_>) -> Option<Denial> {
        let endpoint = self.client.provider().await?.authorization_endpoint.clone()?;
        let query = asking.query.map_or_else(String::new, |query| format!("?{query}"));
        let back = format!("{}{query}", asking.path);
        let attempt = Attempt {
            state: random()?,
            nonce: random()?,
            verifier: if self.pkce { Some(random()?) } else { None },
            back: if back.len() > BACK { "/".to_owned() } else { back },
            began: seconds(),
        };
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("response_type", "code")
            .append_pair("client_id", self.client.id())
            .append_pair("redirect_uri", &self.redirect_uri(asking))
            .append_pair("scope", &self.scopes)
            .append_pair("state", &attempt.state)
            .append_pair("nonce", &attempt.nonce);
        if let Some(verifier) = &attempt.verifier {
            let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
            form.append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
                .append_pair("code_challenge_method", "S256");
        }
        let cookie =
            self.attempt_cookie(asking, &attempt.state, &self.sealer.seal(LOGIN, &attempt)?, ATTEMPT);
        redirect(&with_query(&endpoint, &form.finish()), vec![cookie?])
    }

    /// A browser comes back (§3.1.2.5): with a code, from which a session is made, or with an error.
    async fn come_back(&self, asking: &Asking<'_>) -> Result<Denial, Rejection> {
        let failed = |why: &str| {
            tracing::info!(why, client_id = self.client.id(), "a login was not completed");
            Rejection::LoginFailed
        };
        let parameter = |name| parameter(asking.query, name);
        if *asking.method != Method::GET {
            return Err(failed("it isn't a GET"));
        }
        let state = parameter("state").ok_or_else(|| failed("there is no state"))?;
        let attempt = self.attempt(asking, &state);
        let attempt =
            attempt.ok_or_else(|| failed("no login of this browser has that state, or it took too long"))?;
        if let Some(error) = parameter("error") {
            return Err(failed(&format!("the provider says {error:?}")));
        }
        // RFC 9207 §2.4: else another provider's code could be brought here.
        if let Some(issuer) = parameter("iss")
            && self.client.provider().await.is_none_or(|provider| *provider.issuer != *issuer)
        {
            return Err(failed("the answer is of another issuer"));
        }
        let code = parameter("code").ok_or_else(|| failed("there is no code"))?;
        let redirect_uri = self.redirect_uri(asking);
        let form = [
            ("grant_type", Some("authorization_code")),
            ("code", Some(&*code)),
            ("redirect_uri", Some(&*redirect_uri)),
            ("code_verifier", attempt.verifier.as_deref()),
        ];
        let tokens = match self.client.tokens(&form).await {
            Ok(tokens) => tokens,
            Err(Failed::Refused) => return Err(failed("the provider doesn't take the code")),
            Err(Failed::Unavailable) => return Err(Rejection::KeysUnavailable),
        };
        let (Some(id_token), Some(claims)) = (&tokens.id_token, &tokens.claims) else {
            return Err(failed("the provider gave no ID token"));
        };
        if claims.get("nonce").and_then(|nonce| nonce.as_str()) != Some(&attempt.nonce) {
            return Err(failed("the ID token is of another login"));
        }
        let ends = seconds().saturating_add(self.lifetime);
        let session = self.session(&tokens, id_token.clone(), tokens.refresh_token.clone(), ends);
        let mut cookies = self.keep(&session, asking.scheme).ok_or_else(|| {
            failed("the session is longer than cookies can be; ask for fewer scopes, or for fewer claims in the ID token")
        })?;
        cookies.extend(self.attempt_cookie(asking, &state, "", 0));
        redirect(&format!("{}{}", origin(asking), attempt.back), cookies).ok_or(Rejection::LoginFailed)
    }

    /// Ends a session here, and where the provider can, there (RP-Initiated Logout 1.0 §2).
    async fn log_out(&self, asking: &Asking<'_>) -> Denial {
        let home = format!("{}/", origin(asking));
        let sealed = self.cookies.read(asking.headers, asking.scheme);
        let session = sealed.and_then(|sealed| self.sealer.open::<Session>(SESSION, &sealed));
        let provider = self.client.provider().await;
        let there = session.zip(provider.and_then(|provider| provider.end_session_endpoint.clone()));
        let location = there.map(|(session, endpoint)| {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("id_token_hint", &session.id_token)
                .append_pair("client_id", self.client.id())
                .append_pair("post_logout_redirect_uri", &home);
            with_query(&endpoint, &form.finish())
        });
        let forgotten = || self.cookies.unset(asking.headers, asking.scheme);
        location
            .and_then(|location| redirect(&location, forgotten()))
            .or_else(|| redirect(&home, forgotten()))
            .unwrap_or_else(|| answer(StatusCode::NO_CONTENT, forgotten()))
    }

    fn session(&self, tokens: &Tokens, id_token: String, refresh: Option<String>, ends: u64) -> Session {
        Session {
            id_token,
            until: tokens.until,
            ends,
            refresh: refresh.filter(|_| self.refresh),
            access: tokens.access_token.clone().filter(|_| self.forward_access_token),
        }
    }

    /// Fields that have a browser keep a session.
    fn keep(&self, session: &Session, scheme: &str) -> Option<Vec<HeaderValue>> {
        let left = session.ends.saturating_sub(seconds());
        self.cookies.set(&self.sealer.seal(SESSION, session)?, scheme, left)
    }

    /// The login of this browser with that state.
    fn attempt(&self, asking: &Asking<'_>, state: &str) -> Option<Attempt> {
        let name = self.attempt_name(asking.scheme, state)?;
        let attempt: Attempt = self.sealer.open(LOGIN, cookie::find(asking.headers, &name)?)?;
        let same = constant_time::verify_slices_are_equal(attempt.state.as_bytes(), state.as_bytes());
        (same.is_ok() && seconds().saturating_sub(attempt.began) < ATTEMPT).then_some(attempt)
    }

    fn attempt_name(&self, scheme: &str, state: &str) -> Option<String> {
        let naming = state.get(..NAMING).filter(|naming| {
            naming.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })?;
        // Sent to the redirect path only, which `__Host-` doesn't allow.
        let name = self.cookies.name(scheme).replacen("__Host-", "__Secure-", 1);
        Some(format!("{name}-login-{naming}"))
    }

    /// The field that sets a login's cookie. It goes with the request that comes from the provider's site: `Lax` allows that.
    fn attempt_cookie(
        &self,
        asking: &Asking<'_>,
        state: &str,
        value: &str,
        seconds: u64,
    ) -> Option<HeaderValue> {
        let (name, path) = (self.attempt_name(asking.scheme, state)?, &self.redirect_path);
        let secure = if asking.scheme == "https" { "; Secure" } else { "" };
        HeaderValue::try_from(format!(
            "{name}={value}; Path={path}; HttpOnly; SameSite=Lax{secure}; Max-Age={seconds}"
        ))
        .ok()
    }

    fn redirect_uri(&self, asking: &Asking<'_>) -> String {
        format!("{}{}", origin(asking), self.redirect_path)
    }
}

/// Whether a browser wants to show what it gets: it can follow to a page where its user logs in.
pub(super) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name: &str, part: &[u8]| {
        let values = headers.get_all(name).iter();
        values.map(HeaderValue::as_bytes).any(|value| value.windows(part.len()).any(|window| window == part))
    };
    // Fetch Metadata: a script may accept HTML as well, and can't show another site's page.
    let mode = "sec-fetch-mode";
    *method == Method::GET
        && has("accept", b"text/html")
        && (!headers.contains_key(mode) || has(mode, b"navigate"))
}

fn origin(asking: &Asking<'_>) -> String {
    format!("{}://{}", asking.scheme, asking.host)
}

fn with_query(address: &str, query: &str) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("{address}{separator}{query}")
}

/// A parameter of a query; none when it is there twice.
fn parameter(query: Option<&str>, name: &str) -> Option<Text> {
    let mut found = form_urlencoded::parse(query?.as_bytes()).filter(|(key, _)| *key == *name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some((&*value).into()),
        (_, Some(_)) | (None, None) => None,
    }
}

fn redirect(location: &str, cookies: Vec<HeaderValue>) -> Option<Denial> {
    let location = HeaderValue::try_from(location).ok()?;
    let mut answer = answer(StatusCode::FOUND, cookies);
    answer.headers.insert(header::LOCATION, location);
    Some(answer)
}

fn answer(status: StatusCode, cookies: Vec<HeaderValue>) -> Denial {
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    Denial { status, headers, body: Bytes::new() }
}

/// What a token says whose signature was verified before.
fn claims(token: &str) -> Option<Object> {
    let claims = token.split('.').nth(1)?;
    object(&URL_SAFE_NO_PAD.decode(claims).ok()?)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "there are centuries until then")]
fn seconds() -> u64 {
    now() as u64
}
