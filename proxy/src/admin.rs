//! The admin port: probes, metrics, the model in force, and how backends with policies fare. A thread and runtime of its own, so that it answers
//! whatever the worker threads do.
//!
//! `GET` and `HEAD` only. The model, secrets redacted, is told to loopback peers alone (security.md §7): in a cluster
//! the port listens on the pod's address for probes and scrapes.

use crate::snapshot::{Publisher, Readiness};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Connections at a time: probes, a few scrapers, a person.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Life of a connection: longer than scrape intervals, short enough that a forgotten one frees its place.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// What the answers are made of.
struct State {
    publisher: Publisher,
    registry: Registry,
}

/// The running admin port. Ends when dropped.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Admin {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves probes and the model of `publisher`, and the metrics of `registry`
/// ([`crate::metrics::Metrics::register`] adds those of the data plane). Calls `give_back` now and then
/// ([`crate::Options::give_back`]).
///
/// # Errors
/// When the address can't be bound, or the operating system has no room for another thread.
pub fn start(
    address: SocketAddr,
    publisher: Publisher,
    registry: Registry,
    give_back: fn(),
) -> io::Result<Admin> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let state = Arc::new(State { publisher, registry });
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(async move {
            tokio::select! {
                error = serve(listener, state) => tracing::error!(?error, "the admin port can't serve"),
                // The sender is dropped, never used.
                _ = stopped => {}
                () = crate::keep_giving_back(give_back) => {}
            }
        });
    })?;
    Ok(Admin { address, _stop: stop })
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.spawn(converse(stream, peer.ip().to_canonical(), state.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "the admin port can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, peer: IpAddr, state: Arc<State>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        // Nothing here reads a body; dropped, it ends the connection if there is one.
        drop(body);
        let response = answer(&head.method, head.uri.path(), &head.headers, peer, &state);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(MAX_AGE, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection to the admin port failed"),
    }
}

fn answer(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    peer: IpAddr,
    state: &State,
) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match state.publisher.readiness() {
            Readiness::Ready => text(StatusCode::OK, "ready\n"),
            Readiness::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting: no configuration yet\n"),
            Readiness::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/metrics" => metrics(&state.registry),
        "/config" | "/backends" if !peer.is_loopback() || !names_this_machine(headers) => {
            text(StatusCode::FORBIDDEN, "the configuration is told to loopback clients only\n")
        }
        "/config" => json(&*state.publisher.model()),
        "/backends" => json(&state.publisher.health()),
        _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz, /metrics, /config or /backends\n"),
    }
}

/// Whether Host is an address or localhost. A name that somebody made point to loopback is a web page's way to have a
/// browser read what only this machine may (DNS rebinding).
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some(Ok(host)) = host.map(crate::host::Host::parse) else { return false };
    let name = host.name();
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => {
            respond(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body.into())
        }
        Err(error) => {
            tracing::error!(%error, "metrics can't be encoded");
            text(StatusCode::INTERNAL_SERVER_ERROR, "metrics can't be encoded\n")
        }
    }
}

fn json(what: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(what) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(StatusCode::OK, "application/json", body.into())
        }
        Err(error) => {
            tracing::error!(%error, "the configuration can't be serialized");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the configuration can't be serialized\n")
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
