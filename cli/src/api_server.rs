//! The way to the API server: one connection of HTTP/2 for all watches and writes, as kubectl has it.
//!
//! kube's own client speaks HTTP/1.1: a connection, with buffers at both ends, for each watch; and when an API server is gone
//! without a word, a watch that expects nothing but news waits for ever. This one is asked whether it is still there.

use anyhow::{Context, Result, bail};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt;
use kube::client::retry::RetryPolicy;
use kube::{Client, Config};
use std::time::Duration;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// How long a connection may be silent until it is asked, and how long it has then to answer. Kubernetes' own clients take
/// 30 s and 15 s.
const SILENCE: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(15);

/// A client of the API server of `config`. It speaks HTTP/1.1 to one that has no HTTP/2.
///
/// # Errors
/// Certificates or credentials that can't be read, and what isn't supported: a proxy.
pub fn connect(config: Config) -> Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        // Without the password that may be in it.
        let authority = proxy.authority().map_or("", |authority| authority.as_str());
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        bail!(
            "the cluster's configuration wants the proxy {place}, which isn't supported: unset proxy-url or HTTPS_PROXY"
        );
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    tcp.set_keepalive(Some(SILENCE));
    let mut tls =
        HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let resolver = FixedServerNameResolver::new(name.try_into().context("tls-server-name")?);
        tls = tls.with_server_name_resolver(resolver);
    }
    let client = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(SILENCE)
        .http2_keep_alive_timeout(ANSWER)
        .http2_keep_alive_while_idle(true)
        .build(tls.enable_all_versions().wrap_connector(tcp));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::future::join_all;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper::{Request, Response, Version};
    use hyper_util::rt::TokioIo;
    use hyper_util::server::conn::auto;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;
    use tokio_rustls::TlsAcceptor;

    const REQUESTS: usize = 8;

    /// Sends one request, then several at once, to a server that speaks one version; how many connections that took.
    async fn connections(protocol: &[u8], version: Version) -> usize {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![protocol.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        // Answered once all of them are there: they can't have come one after the other.
        let all = Arc::new(Barrier::new(REQUESTS));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (acceptor, all) = (acceptor.clone(), all.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<_>| {
                        let all = all.clone();
                        async move {
                            assert_eq!(request.version(), version);
                            if request.uri().path() == "/wait" {
                                all.wait().await;
                            }
                            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("here"))))
                        }
                    });
                    let io = TokioIo::new(acceptor.accept(tcp).await.unwrap());
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
                });
            }
        });
        let mut config = Config::new(format!("https://{address}").parse().unwrap());
        config.root_cert = Some(vec![made.cert.der().to_vec()]);
        let client = connect(config).unwrap();
        let ask = |path| {
            let client = client.clone();
            async move { client.request_text(Request::get(path).body(Vec::new()).unwrap()).await.unwrap() }
        };
        assert_eq!(ask("/").await, "here");
        assert!(join_all((0..REQUESTS).map(|_| ask("/wait"))).await.iter().all(|answer| answer == "here"));
        accepted.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn all_requests_share_a_connection_of_http_2() {
        assert_eq!(connections(b"h2", Version::HTTP_2).await, 1);
    }

    #[tokio::test]
    async fn a_server_without_http_2_has_a_connection_for_each() {
        assert_eq!(connections(b"http/1.1", Version::HTTP_11).await, REQUESTS);
    }

    #[test]
    fn a_proxy_is_refused_without_a_word_of_its_password() {
        let mut config = Config::new("https://127.0.0.1:6443".parse().unwrap());
        config.proxy_url = Some("http://me:secret@proxy:3128".parse().unwrap());
        let error = connect(config).err().expect("an error").to_string();
        assert!(error.contains("the proxy proxy:3128,"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
