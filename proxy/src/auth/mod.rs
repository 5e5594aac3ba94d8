//! Authentication and authorization: who a client is, and whether it may.
//!
//! Compiled from [`crate::model::Auth`]. [`Auth::known`] asks the authenticators that need nobody else; those that ask
//! another ([`Auth::externals`]) come after them, and are [`crate::request`]'s to ask. [`Tally`] counts what they say, and
//! [`Auth::conclude`] makes a verdict of it. All of it fails closed: whatever isn't known to be good is refused.
//!
//! Fields by which the backend is told who a client is are taken out of every request first ([`Auth::strip`]): no client
//! can set them.

mod api_key;
mod basic;
mod certificate;
mod claims;
mod credential;
mod external;
pub(crate) mod fetch;
mod json;
mod jwt;
mod keys;
mod oidc;
mod passwords;
mod remote;
mod rules;
mod token;

pub(crate) use certificate::ClientCertificate;
pub(crate) use external::External;
pub(crate) use oidc::{Asking, Oidc, Own};

use crate::expression::View;
use crate::headers::Touched;
use crate::metrics::{AuthMetrics, AuthOutcome};
use crate::model::{self, AuthMethod, Requirement, Text};
use crate::rejection::Rejection;
use crate::router::Context;
use api_key::ApiKeys;
use basic::Basic;
use certificate::Certificates;
use credential::Place;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, header};
use json::Object;
use jwt::Jwt;
use rules::Rules;
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Who a client is, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    pub(crate) consumer: Option<Text>,
    pub(crate) claims: Option<Arc<Object>>,
}

impl Identity {
    /// By what name the gateway knows the client: of its key, its user, its certificate, or its token's subject.
    pub fn consumer(&self) -> Option<&Text> {
        self.consumer.as_ref()
    }

    /// What its token claims.
    pub fn claims(&self) -> Option<&Object> {
        self.claims.as_deref()
    }
}

/// What guards a rule.
#[derive(Debug)]
pub(crate) enum Guard {
    /// Nobody passes: the policy is broken.
    Closed,
    Auth(Auth),
}

/// Compiled authentication and authorization.
#[derive(Debug)]
pub(crate) struct Auth {
    requirement: Requirement,
    allow_missing: bool,
    authenticators: Box<[Arc<Authenticator>]>,
    /// Those that ask another come after the others: they cost the most.
    externals: Box<[External]>,
    rules: Rules,
    unauthenticated: StatusCode,
    unauthorized: StatusCode,
    /// Fields that only we set.
    ours: Box<[HeaderName]>,
    metrics: Arc<AuthMetrics>,
}

/// A compiled authenticator.
#[derive(Debug)]
pub(crate) struct Authenticator {
    method: Method,
    /// What a client is told that it could have had.
    challenge: Option<HeaderValue>,
}

#[derive(Debug)]
enum Method {
    Jwt(Jwt),
    ApiKey(ApiKeys),
    Basic(Basic),
    Certificate(Certificates),
    Oidc(Box<Oidc>),
}

/// What one authenticator says of a request.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    /// There is nothing that it could look at.
    Missing,
    /// There is, and it isn't good.
    Wrong,
    /// It can't say.
    Unable(Rejection),
    Known(Known<'a>),
}

/// What an authenticator knows of a client.
#[derive(Debug, Default)]
pub(crate) struct Known<'a> {
    identity: Identity,
    /// Fields for the backend.
    fields: Vec<(&'a HeaderName, HeaderValue)>,
    /// Credentials that the backend doesn't get.
    withheld: &'a [Place],
    /// `Set-Cookie` of the answer.
    cookies: Vec<HeaderValue>,
}

/// What authenticators have said.
#[derive(Debug, Default)]
pub(crate) struct Tally<'a> {
    known: SmallVec<[Known<'a>; 1]>,
    missing: usize,
    wrong: bool,
    unable: Option<Rejection>,
}

/// What a request may go on with.
#[derive(Debug, Default)]
pub(crate) struct Admitted<'a> {
    pub(crate) identity: Identity,
    fields: Vec<(&'a HeaderName, HeaderValue)>,
    withheld: SmallVec<[&'a [Place]; 1]>,
    cookies: Vec<HeaderValue>,
}

/// Why a request may not.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) rejection: Rejection,
    pub(crate) status: StatusCode,
    pub(crate) outcome: AuthOutcome,
    challenges: Vec<HeaderValue>,
}

impl Refusal {
    fn unable(rejection: Rejection) -> Self {
        let (status, outcome) = (rejection.status(), AuthOutcome::Unavailable);
        Self { rejection, status, outcome, challenges: Vec::new() }
    }

    /// Tells the client how it could be known (RFC 9110 §11.6.1).
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for challenge in &self.challenges {
            headers.append(header::WWW_AUTHENTICATE, challenge.clone());
        }
    }
}

impl Admitted<'_> {
    /// Tells the backend who the client is, and not by what. Fields for the answer go to `granted`.
    pub(crate) fn apply(
        self,
        headers: &mut HeaderMap,
        query: &mut Option<Cow<'_, str>>,
        granted: &mut HeaderMap,
    ) {
        for place in self.withheld.into_iter().flatten() {
            place.take_out(headers, query);
        }
        for (name, value) in self.fields {
            headers.insert(name, value);
        }
        for cookie in self.cookies {
            granted.append(header::SET_COOKIE, cookie);
        }
    }
}

/// What a thread remembers of clients.
#[derive(Default)]
pub(crate) struct Memory {
    tokens: token::Tokens,
    right: passwords::Right,
}

/// Authenticators that are in use, by what they were made of: routes of one Gateway share them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    known: HashMap<usize, (Arc<model::Authenticator>, Weak<Authenticator>)>,
    remotes: remote::Remotes,
}

impl Registry {
    fn get(&mut self, from: &Arc<model::Authenticator>) -> Result<Arc<Authenticator>, String> {
        // The model's is kept beside it, so that its address stays its own.
        let address = Arc::as_ptr(from).addr();
        if let Some(known) = self.known.get(&address).and_then(|(_, known)| known.upgrade()) {
            return Ok(known);
        }
        self.known.retain(|_, (_, known)| known.strong_count() > 0);
        let compiled = Arc::new(Authenticator::compile(from, Some(&mut self.remotes))?);
        self.known.insert(address, (from.clone(), Arc::downgrade(&compiled)));
        Ok(compiled)
    }
}

/// Whether an authenticator can be compiled. The error is for its author, and begins with the field.
pub fn check(from: &model::Authenticator) -> Result<(), String> {
    match &from.method {
        AuthMethod::External(external) => external::check(external).map(drop),
        AuthMethod::Jwt(_)
        | AuthMethod::ApiKey(_)
        | AuthMethod::Basic(_)
        | AuthMethod::ClientCertificate(_)
        | AuthMethod::Oidc(_) => Authenticator::compile(from, None).map(drop),
    }
}

/// Whether rules can be compiled.
pub fn check_authorization(from: &model::Authorization) -> Result<(), String> {
    Rules::compile(from).map(drop)
}

impl Authenticator {
    /// `remotes`: where fetched keys are kept; without it nothing is fetched.
    fn compile(from: &model::Authenticator, remotes: Option<&mut remote::Remotes>) -> Result<Self, String> {
        let (method, challenge) = match &from.method {
            AuthMethod::Jwt(jwt) => {
                (Method::Jwt(Jwt::compile(jwt, remotes)?), Some(format!("Bearer realm=\"{}\"", from.name)))
            }
            AuthMethod::ApiKey(keys) => {
                (Method::ApiKey(ApiKeys::compile(keys)?), Some(format!("ApiKey realm=\"{}\"", from.name)))
            }
            AuthMethod::Basic(basic) => {
                let realm = basic.realm.replace(['"', '\\'], "");
                let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
                (Method::Basic(Basic::compile(basic)?), Some(challenge))
            }
            AuthMethod::ClientCertificate(certificates) => {
                (Method::Certificate(Certificates::compile(certificates)?), None)
            }
            // No scheme that has a name: browsers are sent to log in, and this is for what isn't one.
            AuthMethod::Oidc(oidc) => {
                let method = Method::Oidc(Box::new(Oidc::compile(oidc, remotes)?));
                (method, Some(format!("Cookie realm=\"{}\"", from.name)))
            }
            // They need a backend, and are compiled by whoever knows it.
            AuthMethod::External(_) => return Err("external: it isn't asked here".to_owned()),
        };
        let challenge = challenge.map(|text| {
            HeaderValue::try_from(text)
                .map_err(|_| "realm: it has characters that a header can't have".to_owned())
        });
        Ok(Self { method, challenge: challenge.transpose()? })
    }

    /// Fields that it looks at or sets.
    fn touches(&self) -> Touched {
        let places: &[Place] = match &self.method {
            Method::Jwt(jwt) => &jwt.from,
            Method::ApiKey(keys) => &keys.from,
            Method::Basic(basic) => &basic.from,
            Method::Certificate(_) => &[],
            Method::Oidc(oidc) => &oidc.withheld,
        };
        let places = places.iter().map(Place::touches);
        places.chain(self.sets().into_iter().map(Touched::from)).collect()
    }

    /// Fields that it sets.
    fn sets(&self) -> Vec<HeaderName> {
        match &self.method {
            Method::Jwt(jwt) => jwt.sets().cloned().collect(),
            Method::ApiKey(keys) => keys.consumer_header.iter().cloned().collect(),
            Method::Basic(basic) => basic.username_header.iter().cloned().collect(),
            Method::Certificate(_) => Vec::new(),
            Method::Oidc(oidc) => oidc.sets().cloned().collect(),
        }
    }
}

impl Guard {
    /// The fields of a request that it looks at or changes.
    pub(crate) fn touches(&self) -> Touched {
        match self {
            Self::Closed => Touched::default(),
            Self::Auth(auth) => auth.touches(),
        }
    }

    pub(crate) fn compile(from: &model::Guard, context: &mut Context<'_>) -> Self {
        match from {
            model::Guard::Closed { .. } => Self::Closed,
            model::Guard::Auth(auth) => Auth::compile(auth, context).map_or(Self::Closed, Self::Auth),
        }
    }
}

impl Auth {
    /// None: it can't be compiled, which its author was told, and which is logged.
    pub(crate) fn compile(from: &model::Auth, context: &mut Context<'_>) -> Option<Self> {
        let compiled = Self::try_compile(from, context);
        let policy = &from.policy;
        compiled.inspect_err(|error| tracing::error!(%policy, %error, "an AuthPolicy can't be compiled")).ok()
    }

    fn try_compile(from: &model::Auth, context: &mut Context<'_>) -> Result<Self, String> {
        let (mut authenticators, mut externals) = (Vec::new(), Vec::new());
        for one in &from.authenticators {
            match &one.method {
                AuthMethod::External(external) => {
                    externals.push(External::compile(external, context.backend(external.backend()))?);
                }
                AuthMethod::Jwt(_)
                | AuthMethod::ApiKey(_)
                | AuthMethod::Basic(_)
                | AuthMethod::ClientCertificate(_)
                | AuthMethod::Oidc(_) => authenticators.push(context.auth.get(one)?),
            }
        }
        let mut ours: Vec<_> = authenticators.iter().flat_map(|one| one.sets()).collect();
        ours.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        ours.dedup();
        let status = |code: u16, plain: StatusCode| StatusCode::from_u16(code).unwrap_or(plain);
        Ok(Self {
            requirement: from.requirement,
            allow_missing: from.allow_missing,
            authenticators: authenticators.into(),
            externals: externals.into(),
            rules: Rules::compile(&from.authorization)?,
            unauthenticated: status(from.unauthenticated_status, StatusCode::UNAUTHORIZED),
            unauthorized: status(from.unauthorized_status, StatusCode::FORBIDDEN),
            ours: ours.into(),
            metrics: context.metrics.auth(&from.policy),
        })
    }

    /// The fields of a request that it looks at or changes.
    pub(crate) fn touches(&self) -> Touched {
        // Others are told of all fields.
        let externals = self.externals.iter().map(|_| Touched::Any);
        let authenticators = self.authenticators.iter().map(|authenticator| authenticator.touches());
        externals.chain(authenticators).chain([self.rules.touch()]).collect()
    }

    /// Its counters.
    pub(crate) fn metrics(&self) -> &AuthMetrics {
        &self.metrics
    }

    /// Takes out what only we may tell the backend, by whatever name it could read it.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if self.ours.is_empty() {
            return;
        }
        let is_ours = |name: &HeaderName| {
            let same = |ours: &HeaderName| {
                let bytes = name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
                bytes.eq(ours.as_str().bytes())
            };
            self.ours.iter().any(same)
        };
        let forged: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }

    /// Asks the authenticators, until it is clear who the client is or that nobody can say. `acts`: not only to count.
    pub(crate) async fn ask<'a>(
        &'a self,
        view: &View<'_>,
        certificate: Option<&ClientCertificate>,
        memory: &Memory,
        acts: bool,
    ) -> Tally<'a> {
        let mut tally = Tally::default();
        for authenticator in &self.authenticators {
            // In boxes: few have to wait, and idle connections keep the room of the largest request.
            tally.add(match &authenticator.method {
                Method::Jwt(jwt) => match jwt.ask(view, &memory.tokens) {
                    Some(said) => said,
                    None => Box::pin(jwt.wait(view, &memory.tokens)).await,
                },
                Method::ApiKey(keys) => keys.ask(view),
                Method::Basic(basic) => Box::pin(basic.ask(view, &memory.right)).await,
                Method::Certificate(wanted) => wanted.ask(certificate),
                Method::Oidc(oidc) => Box::pin(oidc.ask(view, acts)).await,
            });
            if self.is_decided(&tally) {
                break;
            }
        }
        tally
    }

    /// Where browsers log in.
    pub(crate) fn logins(&self) -> impl Iterator<Item = &Oidc> {
        self.authenticators.iter().filter_map(|authenticator| match &authenticator.method {
            Method::Oidc(oidc) => Some(&**oidc),
            Method::Jwt(_) | Method::ApiKey(_) | Method::Basic(_) | Method::Certificate(_) => None,
        })
    }

    /// Who answers a path that a login has for itself.
    pub(crate) fn owner(&self, asking: &Asking<'_>) -> Option<(&Oidc, Own)> {
        let mut owners = self.logins().filter_map(|login| Some((login, login.owns(asking.path)?)));
        let first = owners.next()?;
        // Several may share the path: then it is the one that has begun.
        let began = |(login, own): &(&Oidc, Own)| *own == Own::Redirect && login.began(asking);
        if began(&first) { Some(first) } else { owners.find(began).or(Some(first)) }
    }

    /// Those who have to be asked besides, one by one, until it is clear.
    pub(crate) fn externals(&self) -> &[External] {
        &self.externals
    }

    /// Whether nobody needs to be asked any more.
    pub(crate) fn is_decided(&self, tally: &Tally<'_>) -> bool {
        match self.requirement {
            Requirement::Any => !tally.known.is_empty(),
            Requirement::All => tally.wrong || tally.unable.is_some(),
        }
    }

    /// What comes of what they said.
    pub(crate) fn conclude<'a>(&'a self, view: &View<'_>, tally: Tally<'a>) -> Result<Admitted<'a>, Refusal> {
        let all = self.authenticators.len() + self.externals.len();
        let enough = match self.requirement {
            Requirement::Any => !tally.known.is_empty() || all == 0,
            Requirement::All => tally.known.len() == all,
        };
        let anonymous = tally.missing == all && self.allow_missing;
        if !enough && !anonymous {
            return Err(match tally.unable.filter(|_| !tally.wrong) {
                Some(rejection) => Refusal::unable(rejection),
                None => self.unknown(tally.wrong),
            });
        }
        let is_known = !tally.known.is_empty();
        let admitted = Admitted::of(tally.known);
        let view = View { auth: Some(&admitted.identity), ..*view };
        if self.rules.allow(&view, &admitted.identity) {
            return Ok(admitted);
        }
        // Somebody whom nobody knows may be allowed once it is known.
        Err(if is_known || all == 0 {
            Refusal {
                rejection: Rejection::Forbidden,
                status: self.unauthorized,
                outcome: AuthOutcome::Unauthorized,
                challenges: Vec::new(),
            }
        } else {
            self.unknown(false)
        })
    }

    fn unknown(&self, wrong: bool) -> Refusal {
        let challenge = |authenticator: &Arc<Authenticator>| {
            let challenge = authenticator.challenge.clone()?;
            match &authenticator.method {
                // RFC 6750 §3.1: clients fetch a new token by it. Not why: that helps nobody else.
                Method::Jwt(_) if wrong => {
                    let text = [challenge.as_bytes(), b", error=\"invalid_token\""].concat();
                    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
                }
                Method::Jwt(_)
                | Method::ApiKey(_)
                | Method::Basic(_)
                | Method::Certificate(_)
                | Method::Oidc(_) => Some(challenge),
            }
        };
        let challenges = self.authenticators.iter().filter_map(challenge).collect();
        Refusal {
            rejection: Rejection::Unauthenticated,
            status: self.unauthenticated,
            outcome: AuthOutcome::Unauthenticated,
            challenges,
        }
    }
}

impl<'a> Tally<'a> {
    pub(crate) fn add(&mut self, said: Said<'a>) {
        match said {
            Said::Missing => self.missing += 1,
            Said::Wrong => self.wrong = true,
            Said::Unable(why) => self.unable = Some(why),
            Said::Known(known) => self.known.push(known),
        }
    }
}

impl<'a> Admitted<'a> {
    /// Of several, the first that says something counts.
    fn of(all: impl IntoIterator<Item = Known<'a>>) -> Self {
        let mut all = all.into_iter();
        let Some(first) = all.next() else { return Self::default() };
        let Known { identity, fields, withheld, cookies } = first;
        let mut admitted = Self { identity, fields, withheld: smallvec![withheld], cookies };
        for known in all {
            let Identity { consumer, claims } = known.identity;
            let identity = &mut admitted.identity;
            identity.consumer = identity.consumer.take().or(consumer);
            identity.claims = match (identity.claims.take(), claims) {
                (Some(first), Some(more)) => {
                    let mut both = (*more).clone();
                    both.extend(first.iter().map(|(name, value)| (name.clone(), value.clone())));
                    Some(Arc::new(both))
                }
                (first, more) => first.or(more),
            };
            for (name, value) in known.fields {
                if !admitted.fields.iter().any(|(first, _)| *first == name) {
                    admitted.fields.push((name, value));
                }
            }
            admitted.withheld.push(known.withheld);
            admitted.cookies.extend(known.cookies);
        }
        admitted
    }
}

/// The name of a field by which a backend is told something.
fn told_by(field: &str, name: &Text) -> Result<HeaderName, String> {
    crate::filter::field_name(name).map_err(|why| format!("{field}: {why}"))
}
