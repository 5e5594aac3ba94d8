//! Whether policies let a request go on: rate limits that need to know nobody, then who the client is and whether it may,
//! then rate limits by that (security.md §6). Steps of [`crate::request`], which has the rest of the list.

use crate::auth::{Asking, Auth, Guard, Known, Said, Tally};
use crate::authorize::{Asked, Denial, Verdict};
use crate::body::Inbound;
use crate::connection::Client;
use crate::expression::View;
use crate::finish::Finish;
use crate::host::Host;
use crate::metrics::AuthOutcome;
use crate::model::{RouteId, Scheme};
use crate::policy::Policies;
use crate::rate_limit::RateLimits;
use crate::rejection::Rejection;
use crate::request::consult;
use http::{HeaderMap, Method};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A request that policies may change: what it tells of its client.
pub(crate) struct Subject<'a, 'q> {
    pub(crate) method: &'a Method,
    pub(crate) version: http::Version,
    pub(crate) host: &'a Host<'a>,
    pub(crate) path: &'a str,
    pub(crate) query: &'a mut Option<Cow<'q, str>>,
    pub(crate) headers: &'a mut HeaderMap,
    pub(crate) body: &'a mut Option<Inbound>,
    /// Whether the client waits to be told to send its body.
    pub(crate) waits: &'a mut bool,
    pub(crate) route: &'a RouteId,
    /// Who has sent it.
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
    /// Fields for the answer.
    pub(crate) granted: &'a mut HeaderMap,
}

/// Whether a request goes on.
pub(crate) enum Passage {
    /// It does.
    Open,
    /// This is somebody's answer.
    Shut(Box<Denial>),
}

impl Subject<'_, '_> {
    fn view<'a>(&'a self, headers: &'a HeaderMap) -> View<'a> {
        View {
            method: self.method,
            scheme: self.scheme.name(),
            host: self.host.name(),
            path: self.path,
            query: self.query.as_deref(),
            headers,
            peer: self.peer,
            auth: None,
        }
    }

    fn asking(&self) -> Asking<'_> {
        Asking {
            method: self.method,
            scheme: self.scheme.name(),
            host: self.host.as_str(),
            path: self.path,
            query: self.query.as_deref(),
            headers: self.headers,
        }
    }
}

/// Asks all policies of a rule.
pub(crate) async fn admit(
    client: &Rc<Client>,
    policies: &Policies,
    subject: Subject<'_, '_>,
    finish: &mut Finish,
) -> Result<Passage, Rejection> {
    let mut waited = Duration::ZERO;
    if let Some(limits) = &policies.rate_limits {
        limit(client, limits, &subject.view(subject.headers), finish, &mut waited).await?;
    }
    if policies.has_guard() {
        // In a box: few rules have it, and idle connections keep the room of the largest request.
        return Box::pin(guard(client, policies, subject, finish, waited)).await;
    }
    Ok(Passage::Open)
}

/// Asks rate limits; `waited`: how long the request has waited for their stores.
async fn limit(
    client: &Client,
    limits: &RateLimits,
    view: &View<'_>,
    finish: &mut Finish,
    waited: &mut Duration,
) -> Result<(), Rejection> {
    let thread = &client.thread;
    let said = match limits.are_shared() {
        false => limits.admit(view, finish.latest(), &thread.metrics),
        // In a box, as below.
        true => Box::pin(limits.admit_shared(view, &thread.metrics, &thread.links, waited)).await,
    };
    if let Some(said) = said {
        finish.limits = Some(Box::new(match finish.limits.take() {
            None => said,
            Some(before) => before.and(said),
        }));
    }
    finish.limited_status().map_or(Ok(()), |_| Err(Rejection::RateLimited))
}

/// Asks who the client is and whether it may, and writes that into the request.
async fn guard(
    client: &Rc<Client>,
    policies: &Policies,
    mut subject: Subject<'_, '_>,
    finish: &mut Finish,
    mut waited: Duration,
) -> Result<Passage, Rejection> {
    if let Some(tried) = &policies.tried_auth {
        Box::pin(attempt(client, tried, &subject)).await;
    }
    let auth = match &policies.guard {
        None => return Ok(Passage::Open),
        Some(Guard::Closed) => return Err(Rejection::PolicyInvalid),
        Some(Guard::Auth(auth)) => auth,
    };
    auth.strip(subject.headers);
    let asking = subject.asking();
    if let Some((login, own)) = auth.owner(&asking) {
        // Codes and states stay out of the log.
        finish.hide_query(subject.path, None);
        // In a box, as all that few requests come to.
        return Ok(Passage::Shut(Box::new(Box::pin(login.answer(own, &asking)).await?)));
    }
    let (metrics, memory) = (&client.thread.metrics, &client.thread.memory);
    let mut tally = auth.ask(&subject.view(subject.headers), client.certificate(), memory, true).await;
    let denial = match auth.externals() {
        [] => None,
        [..] => Box::pin(consult_all(client, auth, &mut tally, &mut subject)).await,
    };
    let view = subject.view(subject.headers);
    let admitted = match auth.conclude(&view, tally) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            metrics.authenticated(auth.metrics(), refusal.outcome);
            let rejection = refusal.rejection;
            if rejection == Rejection::Unauthenticated
                && let Some(instead) = Box::pin(instead(auth, denial, &subject.asking())).await?
            {
                finish.reject(Rejection::Denied);
                return Ok(Passage::Shut(instead));
            }
            finish.refusal = Some(Box::new(refusal));
            return Err(rejection);
        }
    };
    metrics.authenticated(auth.metrics(), AuthOutcome::Allowed);
    finish.note_consumer(admitted.identity.consumer());
    if let Some(limits) = &policies.limits_of_known {
        finish.note_wait();
        let view = View { auth: Some(&admitted.identity), ..view };
        limit(client, limits, &view, finish, &mut waited).await?;
    }
    let asked = subject.query.as_ref().map(|query| query.len());
    admitted.apply(subject.headers, subject.query, subject.granted);
    if subject.query.as_ref().map(|query| query.len()) != asked {
        finish.hide_query(subject.path, subject.query.as_deref());
    }
    Ok(Passage::Open)
}

/// What a client gets that isn't known, other than our own answer: somebody who was asked has one for it, or a browser is sent to log in.
async fn instead(
    auth: &Auth,
    denial: Option<Box<Denial>>,
    asking: &Asking<'_>,
) -> Result<Option<Box<Denial>>, Rejection> {
    if denial.is_some() {
        return Ok(denial);
    }
    for login in auth.logins() {
        if let Some(begun) = login.begin(asking).await {
            return begun.map(|answer| Some(Box::new(answer)));
        }
    }
    Ok(None)
}

/// Asks the authenticators that are somebody else, as long as it isn't clear without them. The first answer of one who doesn't
/// know the client.
async fn consult_all(
    client: &Rc<Client>,
    auth: &Auth,
    tally: &mut Tally<'_>,
    subject: &mut Subject<'_, '_>,
) -> Option<Box<Denial>> {
    let mut denied = None;
    for external in auth.externals() {
        if auth.is_decided(tally) {
            break;
        }
        let (method, version, path, route) = (subject.method, subject.version, subject.path, subject.route);
        let query = subject.query.as_deref();
        let (peer, scheme) = (subject.peer, subject.scheme);
        let permits = external.permits(&subject.view(subject.headers), subject.body.is_some());
        if let Some(permit) = permits.as_ref().and_then(|(permits, key)| permits.find(key)) {
            subject.granted.extend(permit.apply(subject.headers));
            tally.add(Said::Known(Known::default()));
            continue;
        }
        let asked = Asked { method, path, query, version, headers: &mut *subject.headers, peer, scheme };
        let said = consult(client, route, &external.authorizer, &asked, subject.body, subject.waits).await;
        tally.add(match said {
            Ok(Verdict::Allowed(permit)) => {
                subject.granted.extend(permit.apply(subject.headers));
                if let Some((permits, key)) = permits {
                    permits.keep(key, &Arc::from(permit));
                }
                Said::Known(Known::default())
            }
            Ok(Verdict::Denied(denial)) => {
                let whole = || {
                    let (scheme, host) = (scheme.name(), subject.host.as_str());
                    let query = query.map_or_else(String::new, |query| format!("?{query}"));
                    format!("{scheme}://{host}{path}{query}")
                };
                let denial = external.redirect(*denial, (method, subject.headers), whole);
                denied.get_or_insert_with(|| Box::new(denial));
                Said::Wrong
            }
            Err(_) if external.fail_open => Said::Known(Known::default()),
            Err(rejection) => Said::Unable(rejection),
        });
    }
    denied
}

/// Counts what would become of the request if policies in shadow acted.
async fn attempt(client: &Client, tried: &Auth, subject: &Subject<'_, '_>) {
    let mut headers = subject.headers.clone();
    tried.strip(&mut headers);
    let view = subject.view(&headers);
    let mut tally = tried.ask(&view, client.certificate(), &client.thread.memory, false).await;
    for _ in tried.externals() {
        // They aren't asked only to count: it is taken that they know everybody.
        tally.add(Said::Known(Known::default()));
    }
    let outcome = match tried.conclude(&view, tally) {
        Ok(_) => AuthOutcome::Allowed,
        Err(_) => AuthOutcome::Shadow,
    };
    client.thread.metrics.authenticated(tried.metrics(), outcome);
}
