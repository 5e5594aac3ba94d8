//! The life of a request.
//!
//! 1. [`check`]: method, target and their sizes; what can be read in two ways is refused.
//! 2. Host and path are brought to the one form that is matched and forwarded ([`crate::host`], [`crate::path`]).
//! 3. [`crate::headers::prepare_request`]: hop-by-hop fields go; forwarding fields are ours to say ([`crate::headers::Ours`]).
//! 4. The listener's filters, where it has any: who they ask sees every request, and once. Then
//!    [`crate::router::PortTable::find`]: the rule that takes it, from the one table that this request sees.
//! 5. The bound of its body; CORS; rate limits and who the client is ([`crate::admit`]); the rule's authorizer ([`crate::authorize`]); the rule's
//!    filters, then those of the backend that the weights choose.
//! 6. The action: redirect, failure, or [`crate::upstream::forward`].
//! 7. [`crate::headers::prepare_response`] and the filters' response side.
//! 8. The body streams ([`crate::body`]); when it ends, [`crate::finish`] counts and logs.
//!
//! A [`Rejection`] at any step becomes the answer; so does a panic, of this request only.

mod onward;
mod unread;

use self::onward::{forward_to, way};
use self::unread::{Drained, drain};
use crate::admit::{self, Passage, Subject};
use crate::authorize::{self, Asked, Denial, Verdict};
use crate::body::{Inbound, Outbound, Source};
use crate::clients;
use crate::connection::{Client, Switched};
use crate::expression::View;
use crate::filter::{Cors, Origin, Outgoing, Protocol, Redirect};
use crate::finish::Finish;
use crate::handshake::Version;
use crate::headers::{self, Fields, Incoming, Ours, Upgrade};
use crate::hints::Hints;
use crate::host::Host;
use crate::limits::{self, Limits};
use crate::model::{BackendProtocol, ClientPath, RouteId, RouteKind};
use crate::path::{check_query, path_of};
use crate::policy::Policies;
use crate::rejection::{Malformed, Rejection};
use crate::router::{Action, Authorizer, Head, Listener, Rule};
use crate::session;
use crate::upstream::h1::{Framing, RequestHead};
use futures_util::FutureExt;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Uri, request};
use http_body::Body;
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

/// Answers one request. `refused`: why there is no answer but this; `hints`: where what its backend says ahead goes.
pub(crate) async fn answer(
    client: Rc<Client>,
    mut parts: Box<request::Parts>,
    mut body: Option<Inbound>,
    refused: Option<Rejection>,
    hints: Option<Rc<Hints>>,
) -> Response {
    let client = &client;
    let mut finish = Finish::new(client, &parts);
    finish.hints = hints;
    finish.received = body.as_ref().map(Inbound::counter);
    let waits = body.is_some() && parts.headers.contains_key(header::EXPECT);
    let outcome = match refused {
        Some(rejection) => Err(rejection),
        None => {
            let serving = serve(client, &mut parts, &mut body, waits, &mut finish);
            AssertUnwindSafe(serving).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(peer = %client.peer, "a request panicked: it was answered 500");
                Err(Rejection::Internal)
            })
        }
    };
    let response = match outcome {
        Ok(reply) => respond(client, reply, finish),
        Err(rejection) => {
            finish.reject(rejection);
            let mut reply = refuse(rejection, &parts, finish.chosen_status());
            finish.apply_shut(reply.headers.map());
            finish.apply_refusal(reply.headers.map());
            reply.close = rejection.ends_connection() || drain(client, body, waits).await == Drained::No;
            respond(client, reply, finish)
        }
    };
    headers::keep_parts(parts);
    response
}

/// What a client gets.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: Fields,
    /// Whether the connection can't be kept.
    pub(crate) close: bool,
    pub(crate) body: Outbound,
}

/// An answer before it is one of its protocol.
struct Reply {
    status: StatusCode,
    headers: Fields,
    source: Source,
    /// Whether the connection can't be kept.
    close: bool,
    switched: Option<Box<SwitchedTo>>,
}

struct SwitchedTo {
    backend: Box<crate::upstream::h1::Connection>,
    lease: crate::upstream::pool::Lease,
}

/// `status`: what a policy chose instead of the rejection's own.
fn refuse(rejection: Rejection, request: &request::Parts, status: Option<StatusCode>) -> Reply {
    if is_grpc(&request.headers) {
        let (answer, ()) = rejection.grpc_response().into_parts();
        return Reply {
            status: answer.status,
            headers: answer.headers.into(),
            source: Source::Empty,
            close: false,
            switched: None,
        };
    }
    let (mut answer, mut body) = rejection.response().into_parts();
    if let Some(status) = status.filter(|status| *status != answer.status) {
        (answer.status, body) = (status, rejection.problem(status));
    }
    let mut headers = answer.headers;
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    let source = if request.method == Method::HEAD { Source::Empty } else { Source::Whole(body) };
    Reply { status: answer.status, headers: headers.into(), source, close: false, switched: None }
}

/// Whether a request is a call of gRPC: `application/grpc`, with or without a format or parameters; not gRPC-Web.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind =
        headers.get(header::CONTENT_TYPE).and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    matches!(kind, Some([] | [b'+' | b';', ..]))
}

fn respond(client: &Rc<Client>, reply: Reply, mut finish: Finish) -> Response {
    finish.status = Some(reply.status);
    let mut headers = reply.headers;
    finish.apply_cors(&mut headers);
    finish.make_room(&mut headers);
    // Over HTTP/1.1 they are written where they are sent: five fields fewer to make, keep and find.
    if client.version == Version::Http2 || reply.switched.is_some() {
        finish.tell_limits(&mut headers);
    }
    if let Some(server) = client.headers().server() {
        headers.map().insert(header::SERVER, server.clone());
    }
    let close = reply.close || client.is_unwanted() || client.has_left_unread();
    let finish = match reply.switched {
        None => Some(finish),
        Some(switched) => {
            let SwitchedTo { backend, lease } = *switched;
            client.switch(Switched { backend, lease, finish });
            None
        }
    };
    Response { status: reply.status, headers, close, body: Outbound::new(reply.source, finish) }
}

async fn serve(
    client: &Rc<Client>,
    parts: &mut request::Parts,
    body: &mut Option<Inbound>,
    waits: bool,
    finish: &mut Finish,
) -> Result<Reply, Rejection> {
    check(parts, client.limits())?;
    try_out(client, parts);
    let field = Host::field(&parts.headers)?;
    let host = Host::of_request(&parts.uri, field.as_ref(), parts.version)?;
    let (path, query) = path_and_query(&parts.uri, client.path())?;
    let (upgrade, ours) = prepare(client, (&parts.method, &mut parts.headers), &host, finish)?;
    let (peer, scheme) = (finish.peer(), finish.scheme());
    finish.note_target(&host, &path, query, &ours);
    // Written as soon as somebody may look at them or change them.
    let mut unwritten = Some(ours);
    let (mut waits, mut granted) = (waits, HeaderMap::new());
    if let Some(listener) = filtering(client, host.name())? {
        write(unwritten.take(), &mut parts.headers);
        let (method, version, headers) = (&parts.method, parts.version, &mut parts.headers);
        let mut asked = Asked { method, path: &path, query, version, headers, peer, scheme };
        // In a box: few listeners have them, and idle connections keep the room of the largest request.
        let filtered = Box::pin(filter(client, &listener, &mut asked, body, &mut waits, finish));
        match filtered.await? {
            Authorized::Yes(fields) => granted = fields,
            Authorized::No(reply) => return Ok(*reply),
        }
    }
    let view = view(finish, parts, &host, &path, query);
    let Taken { rule, policies, prefix_len } = find(client, &view, unwritten.as_ref(), finish)?;
    bound(client, policies.as_deref(), body.as_ref())?;
    if let Some(answer) = preflight(&rule, parts, finish) {
        return Ok(answered(&rule, StatusCode::NO_CONTENT, answer, client, body.take(), waits).await);
    }
    if look(&rule, policies.as_deref(), unwritten.as_ref()) {
        write(unwritten.take(), &mut parts.headers);
    }
    let mut query = query.map(Cow::Borrowed);
    if let Some(policies) = policies {
        let (method, version, headers) = (&parts.method, parts.version, &mut parts.headers);
        let (host, path, query, route) = (&host, &*path, &mut query, &rule.id.route);
        let subject = Subject {
            method,
            version,
            host,
            path,
            query,
            headers,
            body: &mut *body,
            waits: &mut waits,
            route,
            peer,
            scheme,
            granted: &mut granted,
        };
        match admit::admit(client, &policies, subject, finish).await? {
            Passage::Open => {}
            Passage::Shut(denial) => return Ok(denied(client, method, *denial, body, waits).await),
        }
    }
    if let Some(authorizer) = rule.authorizer() {
        let (method, version, headers) = (&parts.method, parts.version, &mut parts.headers);
        let query = query.as_deref();
        let mut asked = Asked { method, path: &path, query, version, headers, peer, scheme };
        // In a box, as above.
        let route = &rule.id.route;
        match Box::pin(authorize(client, route, authorizer, &mut asked, body, &mut waits, finish)).await? {
            Authorized::Yes(fields) => granted.extend(fields),
            Authorized::No(reply) => return Ok(*reply),
        }
    }
    let (method, uri, headers) = (&parts.method, &parts.uri, &mut parts.headers);
    let asked =
        Forwarded { method, uri, headers, host: &host, path, query, prefix_len, upgrade, ours: unwritten };
    let mut reply = act(client, &rule, asked, body, waits, finish).await?;
    grant(&mut reply.headers, granted);
    Ok(reply)
}

/// Finds out who has sent a request, and brings its fields into the form that goes on.
fn prepare(
    client: &Client,
    (method, fields): (&Method, &mut HeaderMap),
    host: &Host<'_>,
    finish: &mut Finish,
) -> Result<(Upgrade, Ours), Rejection> {
    finish.sender = client.sender(fields);
    let forwarding = finish.sender.as_ref().map_or(&client.forwarding, |sender| &sender.forwarding);
    let incoming = Incoming { method, host, forwarding, ids: &client.thread.ids, rules: client.headers() };
    headers::prepare_request(fields, &incoming)
}

/// Bounds a body as policies say.
fn bound(client: &Client, policies: Option<&Policies>, body: Option<&Inbound>) -> Result<(), Rejection> {
    let Some((policies, body)) = policies.zip(body) else { return Ok(()) };
    if let Some(most) = policies.request_body_bytes {
        body.bound(most).map_err(|broken| broken.rejection())?;
    }
    if policies.tried_body_bytes.is_some_and(|most| body.tries(most).is_err()) {
        client.thread.metrics.shadow_rejected(Rejection::BodyTooLarge);
    }
    Ok(())
}

/// Writes our fields to those of a request, unless they are there.
fn write(ours: Option<Ours>, headers: &mut HeaderMap) {
    if let Some(ours) = ours {
        ours.write(headers);
    }
}

/// Whether a rule or its policies have something that may look at fields of ours or change them, before a backend is chosen.
fn look(rule: &Rule, policies: Option<&Policies>, ours: Option<&Ours>) -> bool {
    rule.authorizer().is_some()
        || rule.filters.change_requests()
        || !rule.mirrors().is_empty()
        || policies.zip(ours).is_some_and(|(policies, ours)| policies.touch.includes(ours))
}

/// Adds what policies have for an answer: it takes the place of what the backend says, except that cookies are added to its.
fn grant(headers: &mut Fields, mut granted: HeaderMap) {
    if granted.is_empty() {
        return;
    }
    let headers = headers.map();
    if let header::Entry::Occupied(cookies) = granted.entry(header::SET_COOKIE) {
        for cookie in cookies.remove_entry_mult().1 {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    headers.extend(granted);
}

/// What expressions and matches may ask about.
fn view<'a>(
    finish: &Finish,
    parts: &'a request::Parts,
    host: &'a Host<'a>,
    path: &'a str,
    query: Option<&'a str>,
) -> View<'a> {
    View {
        method: &parts.method,
        scheme: finish.scheme().name(),
        host: host.name(),
        path,
        query,
        headers: &parts.headers,
        peer: finish.peer(),
        auth: None,
    }
}

/// A request that may go on.
struct Forwarded<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a mut HeaderMap,
    host: &'a Host<'a>,
    path: Cow<'a, str>,
    query: Option<Cow<'a, str>>,
    prefix_len: usize,
    upgrade: Upgrade,
    /// Fields of ours that aren't among the fields yet.
    ours: Option<Ours>,
}

/// Does with a request what its rule says.
async fn act(
    client: &Rc<Client>,
    rule: &Rule,
    asked: Forwarded<'_>,
    body: &mut Option<Inbound>,
    waits: bool,
    finish: &mut Finish,
) -> Result<Reply, Rejection> {
    let Forwarded { method, uri, headers, host, path, query, prefix_len, upgrade, mut ours } = asked;
    let mut outgoing = Outgoing { headers, path: Cow::Borrowed(&*path), prefix_len };
    rule.filters.apply_to_request(&mut outgoing);
    let split = match &rule.action {
        Action::Forward(split) => split,
        Action::Fail(rejection) => return Err(*rejection),
        Action::Redirect(redirect) => {
            let (scheme, port, query) = (finish.scheme(), finish.port(), query.as_deref());
            let origin = Origin { scheme, host: host.name(), port, path: &path, prefix_len, query };
            let headers = elsewhere(redirect, &origin)?;
            return Ok(answered(rule, redirect.status(), headers, client, body.take(), waits).await);
        }
    };
    let held = session::held(rule.session(), outgoing.headers, split);
    let share = match &held {
        None => split.pick(client.thread.random()),
        Some(held) => split.share(held.share),
    };
    if share.filters.change_requests() || !share.mirrors.is_empty() {
        write(ours.take(), outgoing.headers);
    }
    share.filters.apply_to_request(&mut outgoing);
    client.headers().drop_shadows(outgoing.headers);
    let rewritten = (outgoing.path != path).then(|| outgoing.path.into_owned());
    let path = rewritten.map_or(path, Cow::Owned);
    let target = target(uri, path, query.as_deref());
    let hints = finish.hints.clone();
    let head = RequestHead {
        method,
        target: &target,
        headers,
        ours: ours.as_ref(),
        framing: framing(headers, body.as_ref()),
        expecting: waits,
        hints: hints.as_deref(),
        websocket: upgrade == Upgrade::WebSocket,
    };
    forward_to(client, rule, share, held, &head, body, finish).await
}

/// Judges the request's origin by the rule's CORS filter, and answers when nothing else is asked.
fn preflight(rule: &Rule, request: &request::Parts, finish: &mut Finish) -> Option<HeaderMap> {
    let cors = rule.filters.cors()?;
    let admission = cors.admit(&request.headers)?;
    let asks = Cors::is_preflight(&request.method, &request.headers);
    let answer = asks.then(|| cors.preflight(&request.headers, &admission));
    finish.origin = Some(Box::new(admission));
    answer
}

/// Whether the rule's authorizer lets a request pass.
enum Authorized {
    /// With fields for the answer.
    Yes(HeaderMap),
    /// This is the answer.
    No(Box<Reply>),
}

/// The listener that a request is for, if it has filters.
fn filtering(client: &Client, host: &str) -> Result<Option<Arc<Listener>>, Rejection> {
    let sni = client.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    client.table().as_ref().map_or(Ok(None), |table| table.filtering(host, sni))
}

/// Runs a listener's filters.
async fn filter(
    client: &Rc<Client>,
    listener: &Listener,
    asked: &mut Asked<'_>,
    body: &mut Option<Inbound>,
    waits: &mut bool,
    finish: &mut Finish,
) -> Result<Authorized, Rejection> {
    // There is no route yet: to backends that know their requests by route, the Gateway's are those of one.
    let route = RouteId { kind: RouteKind::Http, name: listener.id().gateway.clone() };
    let mut granted = HeaderMap::new();
    for filter in listener.filters() {
        let authorizer = filter.as_ref().map_err(|rejection| *rejection)?;
        // Only the fields may be changed, and not Host: which listener it is stays as it is.
        match authorize(client, &route, authorizer, asked, body, waits, finish).await? {
            Authorized::Yes(fields) => granted.extend(fields),
            no @ Authorized::No(_) => return Ok(no),
        }
    }
    finish.note_wait();
    Ok(Authorized::Yes(granted))
}

async fn authorize(
    client: &Rc<Client>,
    route: &RouteId,
    authorizer: &Authorizer,
    asked: &mut Asked<'_>,
    body: &mut Option<Inbound>,
    waits: &mut bool,
    finish: &mut Finish,
) -> Result<Authorized, Rejection> {
    let method = asked.method;
    let denial = match consult(client, route, authorizer, asked, body, waits).await? {
        Verdict::Allowed(permit) => return Ok(Authorized::Yes(permit.apply(asked.headers))),
        Verdict::Denied(denial) => *denial,
    };
    finish.reject(Rejection::Denied);
    Ok(Authorized::No(Box::new(denied(client, method, denial, body, *waits).await)))
}

/// Asks an authorizer of a route about a request.
pub(crate) async fn consult(
    client: &Rc<Client>,
    route: &RouteId,
    authorizer: &Authorizer,
    asked: &Asked<'_>,
    body: &mut Option<Inbound>,
    waits: &mut bool,
) -> Result<Verdict, Rejection> {
    let mut way = way(client, route, &authorizer.backend)?;
    way.protocol = match authorizer.terms.protocol {
        Protocol::Http { .. } => authorizer.backend.protocol(),
        Protocol::Grpc => BackendProtocol::H2c,
    };
    let verdict = authorize::ask(client, authorizer, way, asked, body).await?;
    // A client whose body was read has been told to go on.
    *waits = *waits && body.as_ref().is_some_and(Inbound::is_clients);
    Ok(verdict)
}

/// The answer of an authorizer that doesn't let a request pass.
async fn denied(
    client: &Rc<Client>,
    method: &Method,
    denial: Denial,
    body: &mut Option<Inbound>,
    waits: bool,
) -> Reply {
    let Denial { status, mut headers, body: text } = denial;
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    let source = if *method == Method::HEAD || text.is_empty() { Source::Empty } else { Source::Whole(text) };
    let close = drain(client, body.take(), waits).await == Drained::No;
    Reply { status, headers: headers.into(), source, close, switched: None }
}

/// The fields of a redirect.
fn elsewhere(redirect: &Redirect, origin: &Origin<'_>) -> Result<HeaderMap, Rejection> {
    let location = redirect.location(origin).map_err(|_| Rejection::Internal)?;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::LOCATION, location);
    headers.insert(header::CONTENT_LENGTH, 0.into());
    Ok(headers)
}

/// What can be read, but isn't served (security.md §1).
fn check(parts: &request::Parts, limits: &Limits) -> Result<(), Rejection> {
    let method = &parts.method;
    if *method == Method::CONNECT || method.as_str().len() > limits::METHOD {
        return Err(Rejection::MethodUnsupported);
    }
    let uri = &parts.uri;
    if limits::target_bytes(uri) > limits.target_bytes {
        return Err(Rejection::TargetTooLong);
    }
    if parts.headers.len() > limits.head_fields {
        return Err(Rejection::HeadTooLarge);
    }
    let asterisk = uri.path() == "*" && *method != Method::OPTIONS;
    let scheme = uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https");
    let authority =
        uri.scheme().is_none() && uri.authority().is_some() && parts.version < http::Version::HTTP_2;
    match asterisk || scheme || authority {
        true => Err(Rejection::Malformed(Malformed::Target)),
        false => Ok(()),
    }
}

/// Counts what policies in shadow would have refused by now.
fn try_out(client: &Client, parts: &request::Parts) {
    if let Some(rejection) = client.trial().and_then(|trial| clients::judge(trial, parts)) {
        client.thread.metrics.shadow_rejected(rejection);
    }
}

/// Path and query in the form that is matched.
fn path_and_query<'a>(
    uri: &'a Uri,
    rules: &ClientPath,
) -> Result<(Cow<'a, str>, Option<&'a str>), Rejection> {
    let path = path_of(uri, rules)?;
    uri.query().map_or(Ok(()), check_query)?;
    Ok((path, uri.query()))
}

/// What takes a request.
struct Taken {
    rule: Arc<Rule>,
    policies: Option<Arc<Policies>>,
    prefix_len: usize,
}

fn find(
    client: &Client,
    view: &View<'_>,
    ours: Option<&Ours>,
    finish: &mut Finish,
) -> Result<Taken, Rejection> {
    let table = client.table();
    let table = table.as_ref().ok_or(Rejection::NoListener)?;
    let sni = client.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    let View { host, method, path, query, headers, .. } = *view;
    let found = table.find(&Head { host, sni, method, path, query, headers, ours })?;
    finish.take(found.listener.id(), found.rule);
    let policies = found.rule.policies(found.listener.id()).cloned();
    Ok(Taken { rule: found.rule.clone(), policies, prefix_len: found.prefix_len })
}

/// Origin form of what is asked of the backend. `query`: the request's, or less.
fn target<'a>(uri: &'a Uri, path: Cow<'a, str>, query: Option<&str>) -> Cow<'a, str> {
    let whole = uri.path_and_query().map_or("/", |target| target.as_str());
    let is_whole = query.map(str::len) == uri.query().map(str::len);
    match (&path, query) {
        (Cow::Borrowed("/"), None) if uri.path() == "*" => Cow::Borrowed("*"),
        (path, _) if is_whole && **path == *uri.path() && whole.starts_with('/') => Cow::Borrowed(whole),
        (_, None) => path,
        (path, Some(query)) => Cow::Owned([path, "?", query].concat()),
    }
}

fn framing(headers: &HeaderMap, body: Option<&Inbound>) -> Framing {
    match body {
        None if headers.contains_key(header::CONTENT_LENGTH) => Framing::Length(0),
        None => Framing::None,
        Some(body) => body.size_hint().exact().map_or(Framing::Chunked, Framing::Length),
    }
}

/// An answer of the rule itself, without a body.
async fn answered(
    rule: &Rule,
    status: StatusCode,
    headers: HeaderMap,
    client: &Rc<Client>,
    body: Option<Inbound>,
    waits: bool,
) -> Reply {
    let mut headers = headers.into();
    rule.filters.apply_to_response(&mut headers);
    let close = drain(client, body, waits).await == Drained::No;
    Reply { status, headers, source: Source::Empty, close, switched: None }
}
