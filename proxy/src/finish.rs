//! What is to be said of a request when it is over: to metrics and the log, and in its answer's fields.
//!
//! A [`Finish`] goes with its request from the head read to the last byte of the answer, or to the end of an upgraded
//! connection, and does its work when it is dropped.

use crate::access_log::{Record, TlsInfo};
use crate::auth::Refusal;
use crate::body::Received;
use crate::clients::Sender;
use crate::connection::Client;
use crate::filter::Admission;
use crate::headers::{Fields, Ours, Say};
use crate::hints::Hints;
use crate::host::Host;
use crate::model::{BackendId, ListenerId, Scheme, Text};
use crate::rate_limit;
use crate::rejection::Rejection;
use crate::router::Rule;
use crate::upstream::h1::CutShort;
use crate::upstream::health::Shut;
use crate::upstream::upgrade::Carried;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, request};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// What a request is counted as whose client left before the answer: nginx's number for it.
const CLIENT_LEFT: u16 = 499;

/// Counts and logs a request when the last of it is gone: with its body, or with its client.
pub(crate) struct Finish {
    client: Rc<Client>,
    began: Instant,
    /// When it was last heard of, as far as that matters.
    latest: Instant,
    /// What the client gets; none when it left before.
    pub(crate) status: Option<StatusCode>,
    rule: Option<Arc<Rule>>,
    /// Who has sent it, where that isn't who is connected.
    pub(crate) sender: Option<Box<Sender>>,
    /// What the rule's CORS filter says to the request's origin.
    pub(crate) origin: Option<Box<Admission>>,
    /// What rate limits say to the request; what it has in flight counts until here.
    pub(crate) limits: Option<Box<rate_limit::Admission>>,
    /// What it gets whose client isn't known, or may not.
    pub(crate) refusal: Option<Box<Refusal>>,
    /// What it gets instead of a backend whose breaker is open.
    pub(crate) shut: Option<Box<Shut>>,
    /// Where what its backend says ahead of the answer goes.
    pub(crate) hints: Option<Rc<Hints>>,
    rejection: Option<Rejection>,
    pub(crate) received: Option<Rc<Received>>,
    sent: u64,
    carried: Carried,
    /// What only the log wants; absent while it is off.
    line: Option<Box<Line>>,
}

struct Line {
    time: SystemTime,
    method: Method,
    host: String,
    path: String,
    protocol: http::Version,
    listener: Option<ListenerId>,
    backend: Option<BackendId>,
    endpoint: Option<SocketAddr>,
    request_id: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    consumer: Option<Text>,
}

impl Finish {
    /// Of a request whose head was read.
    pub(crate) fn new(client: &Rc<Client>, parts: &request::Parts) -> Self {
        client.enter();
        let line = client.thread.log.is_on().then(|| {
            let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let host = parts.uri.authority().map(|authority| authority.as_str()).or(host);
            Box::new(Line {
                time: SystemTime::now(),
                method: parts.method.clone(),
                host: host.unwrap_or_default().to_owned(),
                path: parts.uri.path_and_query().map_or_else(String::new, |path| path.as_str().to_owned()),
                protocol: parts.version,
                listener: None,
                backend: None,
                endpoint: None,
                request_id: None,
                user_agent: parts.headers.get(header::USER_AGENT).cloned(),
                consumer: None,
            })
        });
        let began = Instant::now();
        Self {
            client: client.clone(),
            began,
            latest: began,
            status: None,
            rule: None,
            sender: None,
            origin: None,
            limits: None,
            refusal: None,
            shut: None,
            hints: None,
            rejection: None,
            received: None,
            sent: 0,
            carried: Carried::default(),
            line,
        }
    }

    /// It had to wait for somebody.
    pub(crate) fn note_wait(&mut self) {
        self.latest = Instant::now();
    }

    /// The time, but for what was done since without waiting for anybody: the clock is read once for all that.
    pub(crate) fn latest(&self) -> Instant {
        self.latest
    }

    /// What is asked, in the form that is matched.
    pub(crate) fn note_target(&mut self, host: &Host<'_>, path: &str, query: Option<&str>, ours: &Ours) {
        let Some(line) = &mut self.line else { return };
        line.host = host.as_str().to_owned();
        line.path = joined(path, query);
        line.request_id = Some(ours.id().clone());
    }

    /// A rule took it.
    pub(crate) fn take(&mut self, listener: &ListenerId, rule: &Arc<Rule>) {
        if let Some(line) = &mut self.line {
            line.listener = Some(listener.clone());
        }
        self.rule = Some(rule.clone());
    }

    /// The client is known by this name.
    pub(crate) fn note_consumer(&mut self, consumer: Option<&Text>) {
        if let Some(line) = &mut self.line {
            line.consumer = consumer.cloned();
        }
    }

    /// The query had a credential, which no log gets.
    pub(crate) fn hide_query(&mut self, path: &str, query: Option<&str>) {
        if let Some(line) = &mut self.line {
            line.path = joined(path, query);
        }
    }

    /// Who has sent it, as far as is known.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.sender.as_ref().map_or(self.client.peer, |sender| sender.peer)
    }

    /// By what the client came, to us or to a proxy before us that is trusted.
    pub(crate) fn scheme(&self) -> Scheme {
        self.sender.as_ref().map_or(self.client.scheme, |sender| sender.scheme)
    }

    /// The port that it came to.
    pub(crate) fn port(&self) -> u16 {
        self.sender.as_ref().map_or_else(|| self.client.gateway_port(), |sender| sender.port)
    }

    /// It goes to a backend.
    pub(crate) fn note_backend(&mut self, backend: &BackendId) {
        if let Some(line) = &mut self.line {
            line.backend = Some(backend.clone());
        }
    }

    /// An endpoint answers.
    pub(crate) fn note_endpoint(&mut self, endpoint: SocketAddr) {
        if let Some(line) = &mut self.line {
            line.endpoint = Some(endpoint);
        }
    }

    /// Tells a browser who may read the answer, whoever made it.
    pub(crate) fn apply_cors(&mut self, headers: &mut Fields) {
        if let Some(admission) = self.origin.take()
            && let Some(cors) = self.rule.as_ref().and_then(|rule| rule.filters.cors())
        {
            cors.apply(*admission, headers.map());
        }
    }

    /// Takes away what an answer has of the fields that [`Finish::tell_limits`] says.
    pub(crate) fn make_room(&self, headers: &mut Fields) {
        if let Some(limits) = &self.limits {
            limits.make_room(headers);
        }
    }

    /// Tells the client of its limits, whoever made the answer.
    pub(crate) fn tell_limits(&self, out: &mut impl Say) {
        if let Some(limits) = &self.limits {
            limits.tell(out);
        }
    }

    /// The status of a request that rate limits refuse.
    pub(crate) fn limited_status(&self) -> Option<StatusCode> {
        self.limits.as_ref().and_then(|limits| limits.refused())
    }

    /// The status that a policy chose for an answer of ours.
    pub(crate) fn chosen_status(&self) -> Option<StatusCode> {
        let shut = self.shut.as_ref().map(|shut| shut.status);
        let refused = self.refusal.as_ref().map(|refusal| refusal.status);
        shut.or(refused).or_else(|| self.limited_status())
    }

    /// Tells the client how it could be known.
    pub(crate) fn apply_refusal(&self, headers: &mut HeaderMap) {
        if let Some(refusal) = &self.refusal {
            refusal.apply(headers);
        }
    }

    /// Tells the client when its backend may be back.
    pub(crate) fn apply_shut(&self, headers: &mut HeaderMap) {
        if let Some(shut) = &self.shut {
            headers.insert(header::RETRY_AFTER, shut.retry_after.into());
        }
    }

    /// It gets an answer of ours, for this reason.
    pub(crate) fn reject(&mut self, rejection: Rejection) {
        self.rejection = Some(rejection);
    }

    /// Bytes of the answer's body went to the client.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The answer's body ends before its end.
    pub(crate) fn cut_short(&mut self, why: &CutShort) {
        tracing::debug!(peer = %self.client.peer, error = %why, "an answer was cut short");
        self.rejection = Some(match why {
            CutShort::Closed | CutShort::Io(_) | CutShort::Http2(_) => Rejection::UpstreamClosed,
            CutShort::Malformed(_) => Rejection::UpstreamProtocol,
            CutShort::Timeout => Rejection::UpstreamTimeout,
            CutShort::Client(broken) => broken.rejection(),
        });
    }

    /// Bytes went both ways after an upgrade.
    pub(crate) fn carried(&mut self, carried: Carried) {
        self.carried = carried;
    }

    fn log(&self, status: StatusCode, received: u64, sent: u64) {
        let Some(line) = &self.line else { return };
        let tls = self.client.tls.as_ref();
        self.client.thread.log.write(&Record {
            time: line.time,
            peer: self.peer(),
            method: line.method.as_str(),
            host: &line.host,
            path: &line.path,
            protocol: line.protocol,
            tls: tls.map(|tls| TlsInfo { version: tls.version, sni: tls.sni.as_deref() }),
            status: status.as_u16(),
            duration: self.began.elapsed(),
            received_bytes: received,
            sent_bytes: sent,
            rejection: self.rejection,
            listener: line.listener.as_ref(),
            rule: self.rule.as_ref().map(|rule| &rule.id),
            backend: line.backend.as_ref(),
            endpoint: line.endpoint,
            request_id: line.request_id.as_ref().and_then(|id| id.to_str().ok()),
            user_agent: line.user_agent.as_ref().map(HeaderValue::as_bytes),
            consumer: line.consumer.as_deref(),
        });
    }
}

fn joined(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let metrics = &self.client.thread.metrics;
        let left = || StatusCode::from_u16(CLIENT_LEFT).unwrap_or(StatusCode::BAD_REQUEST);
        let status = self.status.unwrap_or_else(left);
        let received = self.received.as_ref().map_or(0, |received| received.bytes()) + self.carried.up;
        let sent = self.sent + self.carried.down;
        if received + sent > 0 {
            metrics.transferred(received, sent);
        }
        if let Some(rejection) = self.rejection {
            metrics.rejected(rejection);
        }
        if self.received.as_ref().is_some_and(|received| received.is_over()) {
            metrics.shadow_rejected(Rejection::BodyTooLarge);
        }
        if let Some(rule) = &self.rule {
            metrics.request(&rule.metrics, status, self.began.elapsed());
        }
        self.log(status, received, sent);
        self.client.leave(self.status.is_none());
    }
}
