//! Asks an authorizer whether a request may pass: `ExternalAuth`, GEP-1494.
//!
//! Fails closed: without an answer that lets it pass, a request doesn't (security.md §6). One that is denied with a 3xx or
//! 4xx gets the authorizer's answer, so that it can send to a login; an authorizer that fails is 503. What the rule
//! names as the authorizer's to set, a client can't: it is removed from the request first.
//!
//! A body that the authorizer is to see is read whole before, up to the rule's bound, and goes to the backend from there.

mod grpc;
mod http;
mod permit;
mod permits;
mod protobuf;

pub(crate) use permit::Permit;
pub(crate) use permits::Permits;

use crate::body::{Inbound, Source};
use crate::connection::Client;
use crate::filter::{Protocol, Terms};
use crate::model::Scheme;
use crate::rejection::Rejection;
use crate::router::Authorizer;
use crate::timer::Timer;
use crate::upstream::Way;
use crate::upstream::forward::{Answer, Body as AnswerBody, Times, forward};
use crate::upstream::h1::{Framing, RequestHead};
use crate::upstream::pick::Choice;
use ::http::{HeaderMap, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body::Body;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

/// Bytes of an authorizer's answer that is read, of a refusal that is passed on, and of a check's.
const MOST_ANSWER: usize = 64 * 1024;

/// A request that is to be authorized.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    /// In normal form.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) version: ::http::Version,
    /// As they go to the backend, Host among them.
    pub(crate) headers: &'a mut HeaderMap,
    /// Who has sent it.
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
}

/// What an authorizer says.
pub(crate) enum Verdict {
    /// It may pass.
    Allowed(Box<Permit>),
    /// This is the answer.
    Denied(Box<Denial>),
}

/// The answer to a request that may not pass.
pub(crate) struct Denial {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Asks. `body` is replaced by one that was read when the authorizer is to see it.
pub(crate) async fn ask(
    client: &Rc<Client>,
    authorizer: &Authorizer,
    way: Way,
    asked: &Asked<'_>,
    body: &mut Option<Inbound>,
) -> Result<Verdict, Rejection> {
    let Terms { protocol, max_body, .. } = &authorizer.terms;
    let seen = match body.take() {
        Some(whole) if *max_body > 0 => {
            let whole = read_request(client, whole, *max_body).await?;
            *body = Some(Inbound::whole(whole.clone()));
            whole
        }
        untouched => {
            *body = untouched;
            Bytes::new()
        }
    };
    let verdict = match protocol {
        Protocol::Http { prefix, response_headers } => {
            let target = target(prefix, asked);
            let headers = http::told(&authorizer.terms, asked.headers);
            let question = Question { method: asked.method, target: &target, headers: &headers, body: seen };
            let answer = put(client, authorizer, way, question).await?;
            http::verdict(answer, response_headers)
        }
        Protocol::Grpc => {
            let (headers, call) = grpc::call(client, authorizer, asked, &seen);
            let question =
                Question { method: &Method::POST, target: grpc::CHECK, headers: &headers, body: call };
            let answer = put(client, authorizer, way, question).await?;
            grpc::verdict(answer)
        }
    };
    verdict.ok_or_else(|| {
        tracing::debug!(backend = %authorizer.backend.id(), "an authorizer's answer makes no sense");
        Rejection::Authorizer
    })
}

fn target(prefix: &str, asked: &Asked<'_>) -> String {
    match asked.query {
        Some(query) => [prefix, asked.path, "?", query].concat(),
        None => [prefix, asked.path].concat(),
    }
}

/// What goes to the authorizer.
struct Question<'a> {
    method: &'a Method,
    target: &'a str,
    headers: &'a HeaderMap,
    body: Bytes,
}

/// What comes back.
struct Said {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

async fn put(
    client: &Rc<Client>,
    authorizer: &Authorizer,
    way: Way,
    question: Question<'_>,
) -> Result<Said, Rejection> {
    let Question { method, target, headers, body } = question;
    let thread = &client.thread;
    let framing = Framing::Length(body.len() as u64);
    let head = RequestHead::own(method, target, headers, framing);
    let until = thread.wheel.after(authorizer.terms.timeout);
    let limits = &client.thread.limits;
    let times = Times { request: until, attempt: None, body: limits.body, stream: limits.stream };
    let mut body = (!body.is_empty()).then(|| Inbound::whole(body));
    let asking = async {
        let answer = forward(thread, &authorizer.backend, way, &head, &mut body, times, &Choice::Any).await?;
        read_answer(answer).await
    };
    let answered = Timer::new(&thread.wheel).bound(until, asking).await;
    answered.unwrap_or(Err(Rejection::RequestTimeout)).map_err(|why| {
        tracing::debug!(backend = %authorizer.backend.id(), why = why.reason(), "an authorizer has no answer");
        Rejection::Authorizer
    })
}

async fn read_answer(answer: Answer) -> Result<Said, Rejection> {
    let Answer { status, headers, body, .. } = answer;
    let headers = headers.into_map();
    let mut source = match body {
        AnswerBody::Plain(source) => source,
        // Nobody asked for it: the exchange fails first.
        AnswerBody::Switched(..) => return Err(Rejection::UpstreamProtocol),
    };
    let (mut read, mut trailers) = (BytesMut::new(), None);
    loop {
        let frame = match &mut source {
            Source::Empty => return Ok(Said { status, headers, body: read.freeze(), trailers }),
            Source::Whole(data) => {
                let data = std::mem::take(data);
                return match data.len() > MOST_ANSWER {
                    true => Err(Rejection::UpstreamProtocol),
                    false => Ok(Said { status, headers, body: data, trailers }),
                };
            }
            Source::Http1(download) => poll_fn(|cx| download.poll_frame(cx)).await,
            Source::Http2(download) => poll_fn(|cx| download.poll_frame(cx)).await,
        };
        match frame {
            None => source = Source::Empty,
            Some(Err(_)) => return Err(Rejection::UpstreamClosed),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if read.len() + data.len() > MOST_ANSWER => {
                    return Err(Rejection::UpstreamProtocol);
                }
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

/// Reads a client's body whole. Its trailers are dropped (RFC 9110 §6.5.1 lets us).
async fn read_request(client: &Rc<Client>, mut body: Inbound, most: usize) -> Result<Bytes, Rejection> {
    let announced = body.size_hint().lower();
    if announced > most as u64 {
        return Err(Rejection::BodyTooLarge);
    }
    let (thread, mut read) = (&client.thread, BytesMut::new());
    let timer = Timer::new(&thread.wheel);
    loop {
        let until = thread.wheel.after(client.limits().body);
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match timer.bound(until, frame).await {
            None => return Err(Rejection::BodyTimeout),
            Some(None) => return Ok(read.freeze()),
            Some(Some(Err(broken))) => return Err(broken.rejection()),
            Some(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if read.len() + data.len() > most {
                        return Err(Rejection::BodyTooLarge);
                    }
                    read.extend_from_slice(data);
                }
            }
        }
    }
}

/// Whether an authorizer may set a field of a request or an answer: not those that frame it, describe its own answer, or
/// belong to a connection.
fn may_set(name: &header::HeaderName) -> bool {
    let name = name.as_str();
    let framing = ["connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    !framing.contains(&name) && !name.starts_with("proxy-") && !name.contains('_')
}
