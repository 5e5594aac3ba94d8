//! Keys of tokens, fetched from who issues them.

use super::*;
use crate::harness::soon;
use headgate_proxy::model::{Authorities, RemoteKeys};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// An issuer that answers with what it has at the time.
async fn issuer(keys: Arc<std::sync::atomic::AtomicUsize>) -> Backend {
    Backend::http(move |request| {
        let set = es256::set(keys.load(Ordering::Relaxed));
        match request.start.split(' ').nth(1) {
            Some("/keys") => ok(set.as_bytes()),
            Some("/.well-known/openid-configuration") => {
                let host = request.header("host").unwrap();
                let metadata =
                    json!({"issuer": format!("http://{host}"), "jwks_uri": format!("http://{host}/keys")});
                ok(metadata.to_string().as_bytes())
            }
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    })
    .await
}

fn remote(uri: String, discovery: bool, cache: Duration) -> Policies {
    let keys = JwtKeys::Remote(RemoteKeys {
        uri: uri.into(),
        discovery,
        cache,
        local: true,
        authorities: Authorities::System,
    });
    guarded(auth(vec![("issuer", AuthMethod::Jwt(jwt(keys)))]))
}

/// An issuer whose certificate no public authority has signed.
#[tokio::test]
async fn keys_come_from_whom_the_policy_trusts() {
    let certificate = crate::tls::certificate(&["localhost"]);
    let key = PrivateKeyDer::from_pem_slice(certificate.key.reveal().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![crate::tls::der(&certificate)], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let issuer = Backend::raw(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.read(&mut [0; 1024]).await;
            let keys = es256::set(0);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let uri = format!("https://localhost:{}/keys", issuer.address.port());
    let trusting = |authorities| {
        let (uri, cache) = (uri.as_str().into(), Duration::from_secs(300));
        let keys = JwtKeys::Remote(RemoteKeys { uri, discovery: false, cache, local: true, authorities });
        guarded(auth(vec![("issuer", AuthMethod::Jwt(jwt(keys)))]))
    };
    let own = Guarded::by(trusting(Authorities::Bundles(vec![certificate.chain.clone()]))).await;
    assert_eq!(own.status(&bearer(&es256::token(0))).await, 200);
    let usual = Guarded::by(trusting(Authorities::System)).await;
    assert_eq!(usual.status(&bearer(&es256::token(0))).await, 503);
}

#[tokio::test]
async fn keys_are_fetched_and_follow_their_issuer() {
    let current = Arc::new(AtomicUsize::new(0));
    let issuer = issuer(current.clone()).await;
    let uri = format!("http://{}", issuer.address);
    let guarded = Guarded::by(remote(format!("{uri}/keys"), false, Duration::from_millis(20))).await;
    // The first request may come before the keys: it waits for them.
    assert_eq!(guarded.status(&bearer(&es256::token(0))).await, 200);
    assert_eq!(guarded.status(&bearer(&es256::token(1))).await, 401);
    current.store(1, Ordering::Relaxed);
    soon(async { while guarded.status(&bearer(&es256::token(1))).await != 200 {} }).await;
    // A key that is gone verifies nothing, though its token was verified before.
    assert_eq!(guarded.status(&bearer(&es256::token(0))).await, 401);
    // The issuer goes away: the last keys stay.
    drop(issuer);
    assert_eq!(guarded.status(&bearer(&es256::token(1))).await, 200);

    let other = self::issuer(Arc::default()).await;
    let uri = format!("http://{}", other.address);
    let discovered = Guarded::by(remote(uri, true, Duration::from_secs(300))).await;
    assert_eq!(discovered.status(&bearer(&es256::token(0))).await, 200);
}

#[tokio::test]
async fn without_keys_nobody_can_say() {
    let nobody = crate::harness::nobody().await;
    let guarded = Guarded::by(remote(format!("http://{nobody}/keys"), false, Duration::from_secs(300))).await;
    assert_eq!(guarded.status("").await, 401);
    let answer = guarded.ask("/", &bearer(&es256::token(0))).await;
    assert_eq!((answer.status(), answer.header("www-authenticate")), (503, None));
    assert_eq!(guarded.outcomes("unavailable").await, 1.0);
    assert_eq!(guarded.backend.connections(), 0);
}
