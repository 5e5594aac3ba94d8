//! What is offered in handshakes, and which sessions are resumed.

use super::*;
use headgate_proxy::model::{ClientTls, TlsVersion};
use std::sync::mpsc::Sender;

/// What a client and a port whose policy says so settle on.
async fn settled(
    rules: ClientTls,
    client: impl FnOnce(&mut rustls::ClientConfig),
) -> Option<(String, String, String)> {
    let certificate = tls::certificate(&["a.example"]);
    let backend = Backend::echo().await;
    let mut setup = tls::setup(&[("any", "a.example", &[&certificate])], &[&backend]);
    put_clients(&mut setup, &Clients { tls: rules, ..Clients::default() });
    let gateway = setup.start();
    let mut offers = tls::trust(&[&certificate], &["h2", "http/1.1"]);
    client(&mut offers);
    let stream = tls::handshake(&gateway, "a.example", &Arc::new(offers)).await.ok()?;
    let session = stream.get_ref().1;
    let group = session.negotiated_key_exchange_group().unwrap().name();
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    let alpn = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
    Some((format!("{suite:?}"), format!("{group:?}"), alpn))
}

/// Who speaks this version of TLS, and no other.
fn speaking(version: &'static rustls::SupportedProtocolVersion) -> impl FnOnce(&mut rustls::ClientConfig) {
    move |config| *config = believing(config.crypto_provider().clone(), version)
}

fn offering(cipher_suites: Vec<rustls::SupportedCipherSuite>) -> impl FnOnce(&mut rustls::ClientConfig) {
    move |config| {
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites,
            ..rustls::crypto::CryptoProvider::clone(config.crypto_provider())
        };
        *config = believing(Arc::new(provider), &rustls::version::TLS13);
    }
}

fn believing(
    provider: Arc<rustls::crypto::CryptoProvider>,
    version: &'static rustls::SupportedProtocolVersion,
) -> rustls::ClientConfig {
    let certificates = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody::default()));
    certificates.with_no_client_auth()
}

/// Takes every certificate, and tells what came with it.
#[derive(Debug, Default)]
pub struct Anybody(pub Option<Sender<Vec<u8>>>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        answer: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        if let Some(told) = &self.0 {
            told.send(answer.to_vec()).unwrap();
        }
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn tls_is_done_as_the_policy_says() {
    use rustls::crypto::aws_lc_rs::cipher_suite;
    use rustls::version::{TLS12, TLS13};
    let any = || ClientTls::default();
    assert!(settled(any(), speaking(&TLS12)).await.is_some());
    assert!(settled(any(), speaking(&TLS13)).await.is_some());
    let newest = ClientTls { min_version: Some(TlsVersion::V13), ..any() };
    assert_eq!(settled(newest.clone(), speaking(&TLS12)).await, None);
    assert!(settled(newest, speaking(&TLS13)).await.is_some());
    let oldest = ClientTls { max_version: Some(TlsVersion::V12), ..any() };
    assert_eq!(settled(oldest.clone(), speaking(&TLS13)).await, None);
    assert!(settled(oldest, |_| ()).await.is_some());
    // Two policies that leave nothing together: what is safer counts.
    let none = ClientTls { min_version: Some(TlsVersion::V13), max_version: Some(TlsVersion::V12), ..any() };
    assert_eq!(settled(none.clone(), speaking(&TLS12)).await, None);
    assert!(settled(none, speaking(&TLS13)).await.is_some());

    let chosen = ClientTls {
        cipher_suites: vec!["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256".into()],
        curves: vec!["P-384".into()],
        alpn: vec!["http/1.1".into(), "h2".into()],
        ..any()
    };
    let (suite, group, alpn) = settled(chosen.clone(), |_| ()).await.unwrap();
    assert!(suite.starts_with("TLS13_"), "{suite}: those of 1.3 are the usual ones");
    assert_eq!((&*group, &*alpn), ("secp384r1", "http/1.1"));
    let (suite, group, _) = settled(chosen, speaking(&TLS12)).await.unwrap();
    assert_eq!((&*suite, &*group), ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "secp384r1"));
    // What we prefer, or what the policy does, unless the client has no hardware for AES.
    let (strong, fast, soft) = (
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    );
    let named = ["TLS_AES_256_GCM_SHA384".into(), "TLS_AES_128_GCM_SHA256".into()];
    for (ours, theirs, wanted) in [
        (&[][..], vec![strong, fast, soft], fast),
        (&[], vec![strong, soft], strong),
        (&[], vec![soft, strong, fast], soft),
        (&named, vec![fast, strong, soft], strong),
        (&named, vec![soft, fast, strong], strong),
    ] {
        let rules = ClientTls { cipher_suites: ours.to_vec(), ..any() };
        let (suite, ..) = settled(rules, offering(theirs.clone())).await.unwrap();
        assert_eq!(suite, format!("{:?}", wanted.suite()), "{ours:?} {theirs:?}");
    }
    let hybrid = ClientTls { curves: vec!["X25519MLKEM768".into()], ..any() };
    assert_eq!(settled(hybrid, |_| ()).await.unwrap().1, "X25519MLKEM768");
}

#[tokio::test]
async fn sessions_are_resumed_unless_the_policy_says_no() {
    for (no_session_tickets, kind) in
        [(false, rustls::HandshakeKind::Resumed), (true, rustls::HandshakeKind::Full)]
    {
        let certificate = tls::certificate(&["a.example"]);
        let backend = Backend::echo().await;
        let mut setup = tls::setup(&[("any", "a.example", &[&certificate])], &[&backend]);
        // Another rule beside: tickets are those of the policy's own configuration.
        let rules = ClientTls { no_session_tickets, alpn: vec!["http/1.1".into()], ..ClientTls::default() };
        put_clients(&mut setup, &Clients { tls: rules, ..Clients::default() });
        let gateway = setup.start();
        let mut offers = tls::trust(&[&certificate], &["http/1.1"]);
        offers.resumption = rustls::client::Resumption::in_memory_sessions(4);
        let offers = Arc::new(offers);
        for turn in 0..2 {
            let mut stream = tls::handshake(&gateway, "a.example", &offers).await.unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut all = Vec::new();
            let _ = soon(stream.read_to_end(&mut all)).await;
            assert!(all.starts_with(b"HTTP/1.1 200"));
            if turn == 1 {
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
            }
            // The same rules again don't change the keys of tickets.
            setup.route(if turn == 0 { "more" } else { "most" }, "/more", to("none"));
            gateway.publish(&setup);
        }
    }
}
