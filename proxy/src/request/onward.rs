//! What a request becomes on its way to a backend: sent once or as often as its rule lets it be, to another backend where a breaker
//! is open, and what comes back made a [`Reply`]. How a backend is spoken to is [`crate::upstream`]'s.

use super::{Reply, SwitchedTo};
use crate::body::{Inbound, Source};
use crate::connection::Client;
use crate::finish::Finish;
use crate::headers::{self, Fields, Upgrade};
use crate::mirror;
use crate::model::{BackendProtocol, RouteId, RouteKind};
use crate::rejection::Rejection;
use crate::router::{Rule, SplitBackend};
use crate::session::Held;
use crate::timer::Deadline;
use crate::upstream::forward::{self, Answer, Times, forward};
use crate::upstream::h1::RequestHead;
use crate::upstream::pick::Choice;
use crate::upstream::retry::retry;
use crate::upstream::{BackendState, Way};

/// Sends a request to the backend that the weights chose, and copies to where its rule mirrors it.
pub(super) async fn forward_to(
    client: &Client,
    rule: &Rule,
    share: &SplitBackend,
    held: Option<Box<Held>>,
    head: &RequestHead<'_>,
    body: &mut Option<Inbound>,
    finish: &mut Finish,
) -> Result<Reply, Rejection> {
    let mirrors = rule.mirrors().iter().chain(&share.mirrors);
    mirror::send(&client.thread, mirrors, |backend| way(client, &rule.id.route, backend), head, body);
    let backend = share.target.as_ref().map_err(|rejection| *rejection)?;
    finish.note_backend(backend.id());
    let wheel = &client.thread.wheel;
    let timeouts = rule.timeouts();
    let times = Times {
        request: timeouts.request.map_or(Deadline::NEVER, |bound| wheel.after(bound)),
        attempt: timeouts.backend_request,
        body: client.limits().body,
        stream: client.limits().stream,
    };
    let choice = held.as_ref().map_or(&Choice::Any, |held| &held.choice);
    let (answer, session) = match send(client, rule, backend, head, body, times, choice).await {
        // In a box, as in `send`. Whoever stands in knows nothing of the session.
        Err(Rejection::BreakerOpen) => {
            (Box::pin(shut_out(client, rule, backend, head, body, times, finish)).await?, None)
        }
        outcome => (outcome?, rule.session().or(share.session.as_deref())),
    };
    finish.note_endpoint(answer.endpoint);
    let endpoint = answer.endpoint;
    let mut reply = reply(answer, rule, share, head.websocket);
    if let Some(session) = session {
        session.give(reply.headers.map(), held.as_deref(), backend, endpoint, finish.scheme());
    }
    Ok(reply)
}

/// Sends a request to a backend as its rule says.
async fn send(
    client: &Client,
    rule: &Rule,
    backend: &BackendState,
    head: &RequestHead<'_>,
    body: &mut Option<Inbound>,
    times: Times,
    choice: &Choice,
) -> Result<Answer, Rejection> {
    let (thread, way) = (&client.thread, way(client, &rule.id.route, backend)?);
    if let Some(budget) = &way.budget {
        budget.note_request();
    }
    match rule.retry() {
        None => forward(thread, backend, way, head, body, times, choice).await,
        // In a box: few rules have it, and idle connections keep the room of the largest request.
        Some(from) => Box::pin(retry(thread, backend, way, head, body, times, choice.clone(), from)).await,
    }
}

/// What a request gets that its backend's breaker keeps out: another backend's answer, or none.
async fn shut_out(
    client: &Client,
    rule: &Rule,
    backend: &BackendState,
    head: &RequestHead<'_>,
    body: &mut Option<Inbound>,
    times: Times,
    finish: &mut Finish,
) -> Result<Answer, Rejection> {
    // The policy may have gone meanwhile.
    let health = backend.health().ok_or(Rejection::BreakerOpen)?;
    let Some(fallback) = backend.fallback() else {
        finish.shut = Some(Box::new(health.shut(&rule.id.route)));
        return Err(Rejection::BreakerOpen);
    };
    finish.note_backend(fallback.id());
    send(client, rule, &fallback, head, body, times, &Choice::Any).await
}

/// How requests of a route go to a backend.
pub(super) fn way(client: &Client, route: &RouteId, backend: &BackendState) -> Result<Way, Rejection> {
    let way = backend.way(route, || client.table().as_ref()?.client_certificate().cloned())?;
    Ok(match route.kind {
        RouteKind::Http | RouteKind::Tls | RouteKind::Tcp | RouteKind::Udp => way,
        // gRPC is HTTP/2, and a Service of it seldom says so.
        RouteKind::Grpc => Way { protocol: BackendProtocol::H2c, ..way },
    })
}

fn reply(answer: Answer, rule: &Rule, share: &SplitBackend, websocket: bool) -> Reply {
    let upgrade = if websocket { Upgrade::WebSocket } else { Upgrade::None };
    let Answer { status, mut headers, body, .. } = answer;
    let (source, upgrade, switched) = match body {
        forward::Body::Plain(source) => (source, Upgrade::None, None),
        forward::Body::Switched(backend, lease) => {
            (Source::Empty, upgrade, Some(Box::new(SwitchedTo { backend, lease })))
        }
    };
    // Of lines nothing is about the connection.
    if upgrade != Upgrade::None || matches!(headers, Fields::Map(_)) {
        headers::prepare_response(headers.map(), upgrade);
    }
    share.filters.apply_to_response(&mut headers);
    rule.filters.apply_to_response(&mut headers);
    Reply { status, headers, source, close: false, switched }
}
