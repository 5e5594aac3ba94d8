//! Whether policies let a request go on: rate limits that need to know nobody, then who the client is and whether it may,
//! then rate limits by that (security.md §6). Steps of [`crate::request`], which has the rest of the list.

use crate::auth::{Auth, Guard};
use crate::connection::Client;
use crate::expression::View;
use crate::finish::Finish;
use crate::host::Host;
use crate::metrics::AuthOutcome;
use crate::policy::Policies;
use crate::rate_limit::RateLimits;
use crate::rejection::Rejection;
use http::{HeaderMap, Method};
use std::borrow::Cow;

/// A request that policies may change: what it tells of its client.
pub(crate) struct Subject<'a, 'q> {
    pub(crate) method: &'a Method,
    pub(crate) host: &'a Host<'a>,
    pub(crate) path: &'a str,
    pub(crate) query: &'a mut Option<Cow<'q, str>>,
    pub(crate) headers: &'a mut HeaderMap,
}

impl Subject<'_, '_> {
    fn view<'a>(&'a self, client: &Client, headers: &'a HeaderMap) -> View<'a> {
        View {
            method: self.method,
            scheme: client.scheme.name(),
            host: self.host.name(),
            path: self.path,
            query: self.query.as_deref(),
            headers,
            peer: client.peer,
            auth: None,
        }
    }
}

/// Asks all policies of a rule.
pub(crate) async fn admit(
    client: &Client,
    policies: &Policies,
    subject: Subject<'_, '_>,
    finish: &mut Finish,
) -> Result<(), Rejection> {
    if let Some(limits) = &policies.rate_limits {
        limit(client, limits, &subject.view(client, subject.headers), finish).await?;
    }
    if policies.has_guard() {
        // In a box: few rules have it, and idle connections keep the room of the largest request.
        Box::pin(guard(client, policies, subject, finish)).await?;
    }
    Ok(())
}

/// Asks rate limits.
async fn limit(
    client: &Client,
    limits: &RateLimits,
    view: &View<'_>,
    finish: &mut Finish,
) -> Result<(), Rejection> {
    let thread = &client.thread;
    let said = match limits.are_shared() {
        false => limits.admit(view, &thread.metrics),
        // In a box, as below.
        true => Box::pin(limits.admit_shared(view, &thread.metrics, &thread.links)).await,
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
    client: &Client,
    policies: &Policies,
    subject: Subject<'_, '_>,
    finish: &mut Finish,
) -> Result<(), Rejection> {
    if let Some(tried) = &policies.tried_auth {
        attempt(client, tried, &subject).await;
    }
    let auth = match &policies.guard {
        None => return Ok(()),
        Some(Guard::Closed) => return Err(Rejection::PolicyInvalid),
        Some(Guard::Auth(auth)) => auth,
    };
    auth.strip(subject.headers);
    let (metrics, memory) = (&client.thread.metrics, &client.thread.memory);
    let view = subject.view(client, subject.headers);
    let admitted = match auth.conclude(&view, auth.ask(&view, client.certificate(), memory).await) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            metrics.authenticated(auth.metrics(), refusal.outcome);
            let rejection = refusal.rejection;
            finish.refusal = Some(Box::new(refusal));
            return Err(rejection);
        }
    };
    metrics.authenticated(auth.metrics(), AuthOutcome::Allowed);
    finish.note_consumer(admitted.identity.consumer());
    if let Some(limits) = &policies.limits_of_known {
        limit(client, limits, &View { auth: Some(&admitted.identity), ..view }, finish).await?;
    }
    let asked = subject.query.as_ref().map(|query| query.len());
    admitted.apply(subject.headers, subject.query);
    if subject.query.as_ref().map(|query| query.len()) != asked {
        finish.hide_query(subject.path, subject.query.as_deref());
    }
    Ok(())
}

/// Counts what would become of the request if policies in shadow acted.
async fn attempt(client: &Client, tried: &Auth, subject: &Subject<'_, '_>) {
    let mut headers = subject.headers.clone();
    tried.strip(&mut headers);
    let view = subject.view(client, &headers);
    let tally = tried.ask(&view, client.certificate(), &client.thread.memory).await;
    let outcome = match tried.conclude(&view, tally) {
        Ok(_) => AuthOutcome::Allowed,
        Err(_) => AuthOutcome::Shadow,
    };
    client.thread.metrics.authenticated(tried.metrics(), outcome);
}
