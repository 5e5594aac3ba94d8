//! Fetches small documents from addresses that policies name (security.md §7), and sends forms there: in 5 s, at most 1 MiB,
//! without following anybody elsewhere, and in a cluster not from addresses that only this machine can reach.

use crate::authorities::roots;
use crate::model::{Authorities, RemoteKeys};
use crate::tls::provider;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long all of it may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a document.
const LENGTH: usize = 1024 * 1024;

/// Whom we ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust<'a> {
    /// Whether loopback and link-local addresses may be asked.
    pub(super) local: bool,
    /// Who may have issued certificates.
    pub(super) authorities: &'a Authorities,
}

impl<'a> Trust<'a> {
    /// For an issuer's addresses.
    pub(super) fn of(source: &'a RemoteKeys) -> Self {
        Self { local: source.local, authorities: &source.authorities }
    }
}

/// A form that is sent.
pub(super) struct Form {
    /// `application/x-www-form-urlencoded`.
    pub(super) text: String,
    /// Who we are.
    pub(super) authorization: Option<HeaderValue>,
}

/// Fetches a text. `trust`: who may be asked. The error is for people.
pub(super) async fn fetch(uri: &str, trust: Trust<'_>) -> Result<String, String> {
    match within(uri, trust, None).await? {
        (StatusCode::OK, text) => Ok(text),
        (status, _) => Err(format!("{uri}: the answer is {status}")),
    }
}

/// Sends a form; what is answered, and its status. The error is for people.
pub(super) async fn post(uri: &str, trust: Trust<'_>, form: Form) -> Result<(StatusCode, String), String> {
    within(uri, trust, Some(form)).await
}

async fn within(uri: &str, trust: Trust<'_>, form: Option<Form>) -> Result<(StatusCode, String), String> {
    let exchange = tokio::time::timeout(WITHIN, exchange(uri, trust, form)).await;
    exchange
        .unwrap_or_else(|_| Err(format!("no answer in {} s", WITHIN.as_secs())))
        .map_err(|why| format!("{uri}: {why}"))
}

async fn exchange(uri: &str, trust: Trust<'_>, form: Option<Form>) -> Result<(StatusCode, String), String> {
    let uri: Uri = uri.parse().map_err(|error| format!("it isn't a URI: {error}"))?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        Some(_) | None => return Err("it begins with neither https:// nor http://".to_owned()),
    };
    let host = uri.host().ok_or("it names no host")?;
    // Brackets belong to the URI, not to the address.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let socket = connect(host, port, trust.local).await?;
    if !tls {
        return ask(socket, &uri, form).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let roots = roots(trust.authorities).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    ask(socket.map_err(|error| error.to_string())?, &uri, form).await
}

/// Connects to the first of a host's addresses that can be had. The error is for people.
pub(crate) async fn connect(host: &str, port: u16, local: bool) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| format!("{host} can't be resolved: {error}"))?;
    let (may, may_not): (Vec<SocketAddr>, Vec<_>) =
        found.partition(|address| local || !is_local(address.ip().to_canonical()));
    let mut last = match may_not.first() {
        Some(address) => format!("{} is an address that isn't asked", address.ip()),
        None => format!("{host} has no address"),
    };
    for address in may {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// Loopback, link-local (clouds tell credentials there), multicast and no address at all.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_unspecified()
                || address.is_broadcast()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_multicast()
                || address.is_unspecified()
        }
    }
}

async fn ask(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
    form: Option<Form>,
) -> Result<(StatusCode, String), String> {
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(said)?;
    let request = request(uri, form).map_err(|error| error.to_string())?;
    let asking = async {
        let (head, body) = sender.send_request(request).await.map_err(said)?.into_parts();
        let body = Limited::new(body, LENGTH).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let text = String::from_utf8(body.to_vec()).map_err(|_| "the answer isn't text".to_owned())?;
        Ok((head.status, text))
    };
    tokio::select! {
        answer = asking => answer,
        // Whatever ends the connection before the answer is whole.
        Err(error) = connection => Err(error.to_string()),
    }
}

fn request(uri: &Uri, form: Option<Form>) -> Result<Request<Full<Bytes>>, http::Error> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let request = Request::get(target)
        .header(header::HOST, authority.rsplit('@').next().unwrap_or_default())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "headgate");
    let Some(Form { text, authorization }) = form else { return request.body(Full::default()) };
    let mut request =
        request.method(Method::POST).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.body(Full::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_not_or_cannot_be_asked_is_told() {
        for (uri, why) in [
            ("http://127.0.0.1:1/", "127.0.0.1 is an address that isn't asked"),
            ("http://169.254.169.254/latest", "169.254.169.254 is an address that isn't asked"),
            ("http://[::ffff:127.0.0.1]/", "is an address that isn't asked"),
            ("ftp://example.com/", "it begins with neither https:// nor http://"),
            ("nonsense", "it begins with neither"),
        ] {
            let told =
                fetch(uri, Trust { local: false, authorities: &Authorities::System }).await.unwrap_err();
            assert!(told.contains(why) && told.starts_with(uri), "{told}");
        }
    }
}
