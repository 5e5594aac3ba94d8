//! TLS: which certificate, which protocol, whose requests; and certificates that change while clients are there.

use crate::auth;
use crate::harness::{Backend, Client, Gateway, Response, Setup, soon, to};
use crate::http2;
use headgate_proxy::Limits;
use headgate_proxy::model::{
    AuthMethod, BackendProtocol, Certificate, ClientCertificateAuth, ClientValidation, ClientValidationMode,
    HostPattern, ObjectName, PortProtocol, Redacted, Staple, Timeouts, Tls,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for some names, as a Secret holds it.
pub fn certificate(names: &[&str]) -> Arc<Certificate> {
    let names = names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Arc::new(Certificate {
        secret: ObjectName::new("test", "secret"),
        chain: made.cert.pem().as_str().into(),
        key: Redacted::new(made.signing_key.serialize_pem()),
        staple: Staple::Absent,
    })
}

pub fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap()
}

/// What a client trusts and offers.
pub fn trust(certificates: &[&Certificate], protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    certificates.iter().for_each(|certificate| roots.add(der(certificate)).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
    config
}

pub async fn handshake(
    gateway: &Gateway,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = soon(TcpStream::connect(gateway.address(443))).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(TlsConnector::from(config.clone()).connect(name, socket)).await
}

async fn ask(stream: TlsStream<TcpStream>, host: &str) -> (Client<TlsStream<TcpStream>>, Response) {
    let mut client = Client::new(stream);
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let response = client.response().await;
    (client, response)
}

/// Listeners on port 443: name, hostname, certificates; each has a route to a backend that answers its name.
pub fn setup(listeners: &[(&'static str, &str, &[&Arc<Certificate>])], backends: &[&Backend]) -> Setup {
    let mut setup = Setup::default();
    let tls = |certificates: &[&Arc<Certificate>]| {
        let certificates = certificates.iter().map(|one| (*one).clone()).collect();
        Some(Tls { certificates, client_validation: None })
    };
    let of = |(name, hostname, certificates): &(&'static str, &str, &[&Arc<Certificate>])| {
        (*name, HostPattern::parse(hostname), tls(certificates))
    };
    setup.port(443, PortProtocol::Tls, listeners.iter().map(of).collect());
    for ((name, _, _), backend) in listeners.iter().zip(backends) {
        setup.backend(name, BackendProtocol::Http1, &[backend.address]);
        setup.rule(name, name, "/", to(name), vec![], Timeouts::default());
    }
    setup
}

#[tokio::test]
async fn the_server_name_chooses_certificate_and_listener() {
    let (exact, wildcard) = (certificate(&["a.example.com"]), certificate(&["*.example.com"]));
    let (one, two) = (Backend::named("exact").await, Backend::named("wildcard").await);
    let listeners: [(_, _, &[_]); 2] =
        [("a", "a.example.com", &[&exact]), ("w", "*.example.com", &[&wildcard])];
    let gateway = setup(&listeners, &[&one, &two]).start();
    let config = Arc::new(trust(&[&exact, &wildcard], &["http/1.1"]));
    for (name, shown, body) in [
        ("a.example.com", &exact, "exact"),
        ("b.example.com", &wildcard, "wildcard"),
        ("A.Example.COM", &exact, "exact"),
    ] {
        let stream = handshake(&gateway, name, &config).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], der(shown), "{name}");
        let (_, response) = ask(stream, name).await;
        assert_eq!((response.status(), response.text()), (200, body.into()), "{name}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_serves_is_closed_without_a_word() {
    let shown = certificate(&["a.example.com"]);
    let backend = Backend::named("a").await;
    let gateway = setup(&[("a", "a.example.com", &[&shown])], &[&backend]).start();
    let config = Arc::new(trust(&[&shown], &[]));
    for name in ["b.example.com", "example.com", "127.0.0.1"] {
        let error = handshake(&gateway, name, &config).await.unwrap_err();
        // An alert would be another kind of error.
        let closed = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
        assert!(closed.contains(&error.kind()), "{name}: {error:?}");
    }
    assert!(gateway.proxy.address(&crate::harness::port_id(443)).is_some());
}

#[tokio::test]
async fn a_request_for_another_listener_is_misdirected() {
    let (a, b) = (certificate(&["a.example.com"]), certificate(&["*.b.example.com"]));
    let (one, two) = (Backend::named("a").await, Backend::named("b").await);
    let listeners: [(_, _, &[_]); 2] = [("a", "a.example.com", &[&a]), ("b", "*.b.example.com", &[&b])];
    let gateway = setup(&listeners, &[&one, &two]).start();
    let config = Arc::new(trust(&[&a, &b], &[]));
    let (mut client, response) =
        ask(handshake(&gateway, "x.b.example.com", &config).await.unwrap(), "y.b.example.com").await;
    assert_eq!(response.text(), "b");
    for (host, status) in [("a.example.com", 421), ("elsewhere", 404), ("z.b.example.com:443", 200)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.response().await.status(), status, "{host}");
    }
}

#[tokio::test]
async fn the_protocol_is_negotiated() {
    let shown = certificate(&["a.example.com"]);
    let backend = Backend::echo().await;
    let gateway = setup(&[("a", "*", &[&shown])], &[&backend]).start();
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let config = Arc::new(trust(&[&shown], offered));
        let stream = handshake(&gateway, "a.example.com", &config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        let seen = if chosen == Some(b"h2") {
            let mut client = http2::client(stream).await;
            let response = soon(client.send_request(http2::get("https://a.example.com/"))).await.unwrap();
            http2::whole(response).await.0
        } else {
            ask(stream, "a.example.com").await.1.text()
        };
        let seen = seen.to_lowercase();
        assert!(
            seen.contains("\nx-forwarded-proto: https\n") && seen.contains("\nhost: a.example.com\n"),
            "{seen}"
        );
    }
    // Neither of ours: an alert, as RFC 7301 §3.2 wants.
    let config = Arc::new(trust(&[&shown], &["spdy/3"]));
    handshake(&gateway, "a.example.com", &config).await.unwrap_err();
}

#[tokio::test]
async fn both_versions_of_tls_are_served() {
    let shown = certificate(&["a.example.com"]);
    let backend = Backend::named("a").await;
    let gateway = setup(&[("a", "*", &[&shown])], &[&backend]).start();
    for (version, number) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut roots = RootCertStore::empty();
        roots.add(der(&shown)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = handshake(&gateway, "a.example.com", &config).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(number));
            // Any thread resumes what another one began.
            let seen = session.handshake_kind();
            let like = |kind| {
                seen == Some(kind)
                    || kind == HandshakeKind::Full && seen == Some(HandshakeKind::FullWithHelloRetryRequest)
            };
            assert!(like(kind), "{seen:?} of {number:?}");
            let (mut client, response) = ask(stream, "a.example.com").await;
            assert_eq!(response.text(), "a");
            // The end of the connection is said, not only done.
            client.send("GET / HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n\r\n").await;
            assert_eq!(client.response().await.text(), "a");
            assert_eq!(soon(client.io.read(&mut [0; 16])).await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn a_rotated_certificate_is_for_the_next_handshake_and_breaks_nothing() {
    let (old, new) = (certificate(&["a.example.com"]), certificate(&["a.example.com"]));
    let backend = Backend::named("a").await;
    let gateway = setup(&[("a", "a.example.com", &[&old])], &[&backend]).start();
    let config = Arc::new(trust(&[&old, &new], &[]));
    let stream = handshake(&gateway, "a.example.com", &config).await.unwrap();
    let (mut client, _) = ask(stream, "a.example.com").await;
    for round in 0..20 {
        let now = if round % 2 == 0 { &new } else { &old };
        gateway.publish(&setup(&[("a", "a.example.com", &[now])], &[&backend]));
        let stream = handshake(&gateway, "a.example.com", &config).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], der(now));
        assert_eq!(ask(stream, "a.example.com").await.1.status(), 200);
        client.send("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "a");
    }
}

#[tokio::test]
async fn a_certificate_of_another_key_is_for_clients_that_need_it() {
    let ecdsa = certificate(&["a.example.com"]);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let made =
        rcgen::CertificateParams::new(["a.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ed25519 = Arc::new(Certificate {
        secret: ObjectName::new("test", "other"),
        chain: made.pem().as_str().into(),
        key: Redacted::new(key.serialize_pem()),
        staple: Staple::Absent,
    });
    let backend = Backend::named("a").await;
    let gateway = setup(&[("a", "*", &[&ecdsa, &ed25519])], &[&backend]).start();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = trust(&[&ecdsa, &ed25519], &[]);
    let stream = handshake(&gateway, "a.example.com", &Arc::new(config)).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], der(&ecdsa));
    // This client verifies Ed25519 alone.
    let algorithms = provider.signature_verification_algorithms.mapping;
    let only = algorithms.iter().find(|(scheme, _)| *scheme == rustls::SignatureScheme::ED25519).unwrap();
    provider.signature_verification_algorithms.mapping = Box::leak(Box::new([*only]));
    provider.signature_verification_algorithms.all = only.1;
    let mut roots = RootCertStore::empty();
    roots.add(der(&ed25519)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = handshake(&gateway, "a.example.com", &Arc::new(config)).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], der(&ed25519));
}

#[tokio::test]
async fn what_is_no_handshake_ends() {
    let shown = certificate(&["a.example.com"]);
    let backend = Backend::named("a").await;
    let limits = Limits { head: Duration::from_millis(200), ..Limits::default() };
    let gateway = setup(&[("a", "*", &[&shown])], &[&backend]).start_with(limits, 1);
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"\x16\x03\x01", b"", &[0; 600]] {
        let mut stream = soon(TcpStream::connect(gateway.address(443))).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut seen = Vec::new();
        let _ = soon(stream.read_to_end(&mut seen)).await;
        assert!(seen.len() < 10, "{seen:?}");
    }
    let config = Arc::new(trust(&[&shown], &[]));
    assert_eq!(ask(handshake(&gateway, "a.example.com", &config).await.unwrap(), "x").await.1.status(), 200);
}

/// An authority, and a client's certificate by it with its key.
fn client_identity() -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::new(vec![]).unwrap();
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = wanted.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_params(&wanted, &key);
    let client = rcgen::KeyPair::generate().unwrap();
    let issued = rcgen::CertificateParams::new(["client.example".to_owned()]).unwrap();
    let issued = issued.signed_by(&client, &issuer).unwrap();
    let key = PrivateKeyDer::from_pem_slice(client.serialize_pem().as_bytes()).unwrap();
    (authority.pem(), issued.der().clone(), key)
}

/// What comes of a request by a client that shows this certificate, or none.
async fn shown(
    gateway: &Gateway,
    server: &Certificate,
    client: Option<&(String, CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> io::Result<u16> {
    let mut roots = RootCertStore::empty();
    roots.add(der(server)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((_, certificate, key)) => {
            builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
        }
    };
    let mut stream = handshake(gateway, "a.example.com", &Arc::new(config)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n").await?;
    // In TLS 1.3 the client hears only now that it isn't wanted.
    let mut begun = [0; 12];
    soon(stream.read_exact(&mut begun)).await?;
    Ok(std::str::from_utf8(&begun[9..]).unwrap().parse().unwrap())
}

#[tokio::test]
async fn clients_show_a_certificate_of_an_authority_or_stay_outside() {
    let server = certificate(&["a.example.com"]);
    let backend = Backend::named("a").await;
    let (good, other) = (client_identity(), client_identity());
    let with = |mode, bundles: &[&str]| {
        let mut setup = setup(&[("a", "a.example.com", &[&server])], &[&backend]);
        for port in setup.model.ports.values_mut() {
            let tls = Arc::make_mut(port).listeners[0].tls.as_mut().unwrap();
            let bundles = bundles.iter().map(|pem| (*pem).into()).collect();
            tls.client_validation = Some(Arc::new(ClientValidation { mode, bundles }));
        }
        setup
    };
    let gateway = with(ClientValidationMode::ValidOnly, &[&good.0]).start();
    assert_eq!(shown(&gateway, &server, Some(&good)).await.unwrap(), 200);
    shown(&gateway, &server, Some(&other)).await.unwrap_err();
    shown(&gateway, &server, None).await.unwrap_err();
    // Another authority besides.
    gateway.publish(&with(ClientValidationMode::ValidOnly, &[&good.0, &other.0]));
    assert_eq!(shown(&gateway, &server, Some(&good)).await.unwrap(), 200);
    assert_eq!(shown(&gateway, &server, Some(&other)).await.unwrap(), 200);
    shown(&gateway, &server, None).await.unwrap_err();
    // Asked, and let in whatever the answer.
    gateway.publish(&with(ClientValidationMode::InsecureFallback, &[&good.0]));
    for client in [Some(&good), Some(&other), None] {
        assert_eq!(shown(&gateway, &server, client).await.unwrap(), 200);
    }
}

/// A certificate says who a client is only where the listener has validated it.
#[tokio::test]
async fn clients_are_known_by_certificates_that_were_validated() {
    let server = certificate(&["a.example.com"]);
    let backend = Backend::named("a").await;
    let client = client_identity();
    let with = |mode, san: &str| {
        let mut setup = setup(&[("a", "a.example.com", &[&server])], &[&backend]);
        for port in setup.model.ports.values_mut() {
            let tls = Arc::make_mut(port).listeners[0].tls.as_mut().unwrap();
            tls.client_validation =
                Some(Arc::new(ClientValidation { mode, bundles: vec![client.0.as_str().into()] }));
        }
        let wanted = ClientCertificateAuth { sans: vec![san.into()], subject: None, fingerprints: vec![] };
        let auth = auth::auth(vec![("certificate", AuthMethod::ClientCertificate(wanted))]);
        setup.govern(auth::guarded(auth));
        setup
    };
    let gateway = with(ClientValidationMode::ValidOnly, "*.example").start();
    assert_eq!(shown(&gateway, &server, Some(&client)).await.unwrap(), 200);
    gateway.publish(&with(ClientValidationMode::ValidOnly, "other.example"));
    assert_eq!(shown(&gateway, &server, Some(&client)).await.unwrap(), 401);
    gateway.publish(&with(ClientValidationMode::InsecureFallback, "*.example"));
    assert_eq!(shown(&gateway, &server, Some(&client)).await.unwrap(), 401);
    assert_eq!(shown(&gateway, &server, None).await.unwrap(), 401);
}

/// A session that was begun without a certificate must not be a way around the validation that came since.
#[tokio::test]
async fn sessions_do_not_outlive_the_setting_that_they_began_under() {
    let server = certificate(&["a.example.com"]);
    let backend = Backend::named("a").await;
    let mut setup = setup(&[("a", "a.example.com", &[&server])], &[&backend]);
    let gateway = setup.start();
    let mut roots = RootCertStore::empty();
    roots.add(der(&server)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = handshake(&gateway, "a.example.com", &config).await.unwrap();
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        assert_eq!(ask(stream, "a.example.com").await.1.status(), 200);
        kinds.push(resumed);
    }
    assert_eq!(kinds, [false, true]);
    for port in setup.model.ports.values_mut() {
        let tls = Arc::make_mut(port).listeners[0].tls.as_mut().unwrap();
        let (mode, bundles) = (ClientValidationMode::ValidOnly, vec![client_identity().0.as_str().into()]);
        tls.client_validation = Some(Arc::new(ClientValidation { mode, bundles }));
    }
    gateway.publish(&setup);
    let mut stream = match handshake(&gateway, "a.example.com", &config).await {
        Ok(stream) => stream,
        Err(_) => return,
    };
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n").await;
    assert!(!matches!(soon(stream.read(&mut [0; 16])).await, Ok(1..)));
}
