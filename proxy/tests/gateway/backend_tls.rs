//! TLS to backends: who is believed to be the backend, who we are to it, and which connections serve whom.

use crate::harness::{Backend, Setup, backend_id, soon, to};
use crate::http2::{self, http2_echo};
use crate::tls;
use crate::websocket::{HANDSHAKE, websocket};
use headgate_proxy::Limits;
use headgate_proxy::model::{
    Authorities, Backend as ModelBackend, BackendProtocol, BackendTls, Certificate, HostPattern, ObjectName,
    PortProtocol, Redacted, RouteKind, Staple, SubjectAltName, Tls,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::default();
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = wanted.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(wanted, key), pem }
    }

    /// A certificate for DNS names, and URIs (what has a colon).
    fn issue(&self, names: &[&str]) -> Arc<Certificate> {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::default();
        wanted.subject_alt_names = names
            .iter()
            .map(|name| match name.contains(':') {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        Arc::new(Certificate {
            secret: ObjectName::new("test", "secret"),
            chain: wanted.signed_by(&key, &self.issuer).unwrap().pem().into(),
            key: Redacted::new(key.serialize_pem()),
            staple: Staple::Absent,
        })
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

/// What a backend saw of a handshake.
#[derive(Debug, PartialEq)]
struct Seen {
    sni: Option<String>,
    alpn: Option<String>,
    certificates: usize,
}

/// TLS in front of a backend in clear text.
struct Secured {
    front: Backend,
    handshakes: mpsc::Receiver<Seen>,
    _behind: Backend,
}

impl Secured {
    async fn new(behind: Backend, certificate: &Certificate, alpn: &[&str]) -> Self {
        Self::wanting(behind, certificate, alpn, None).await
    }

    /// `clients`: who has to have issued a client's certificate.
    async fn wanting(
        behind: Backend,
        certificate: &Certificate,
        alpn: &[&str],
        clients: Option<&Authority>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let roots = Arc::new(clients.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(certificate.key.reveal().as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let (acceptor, target) = (TlsAcceptor::from(Arc::new(config)), behind.address);
        let (note, handshakes) = mpsc::channel(100);
        let front = Backend::raw(move |socket, _| {
            let (acceptor, note) = (acceptor.clone(), note.clone());
            async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let session = stream.get_ref().1;
                let alpn = session.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
                let certificates = session.peer_certificates().map_or(0, <[_]>::len);
                let seen = Seen { sni: session.server_name().map(Into::into), alpn, certificates };
                note.send(seen).await.unwrap();
                let mut behind = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            }
        })
        .await;
        Self { front, handshakes, _behind: behind }
    }

    async fn seen(&mut self) -> Seen {
        soon(self.handshakes.recv()).await.unwrap()
    }
}

fn dns(name: &str) -> SubjectAltName {
    SubjectAltName::Dns(name.into())
}

fn uri(name: &str) -> SubjectAltName {
    SubjectAltName::Uri(name.into())
}

fn verified(authority: &Authority, server_name: &str, names: &[SubjectAltName]) -> BackendTls {
    BackendTls {
        server_name: server_name.into(),
        authorities: Authorities::Bundles(vec![authority.pem.as_str().into()]),
        subject_alt_names: names.to_vec(),
        client_certificate: None,
    }
}

/// One backend for everything, reached like this.
fn setup(address: SocketAddr, protocol: BackendProtocol, tls: BackendTls) -> Setup {
    let mut setup = Setup::only(&[address]);
    secure(&mut setup, "only", protocol, tls);
    setup
}

fn secure(setup: &mut Setup, name: &str, protocol: BackendProtocol, tls: BackendTls) {
    let id = backend_id(name);
    let backend = ModelBackend { tls: Some(Arc::new(tls)), ..ModelBackend::new(id.clone(), protocol) };
    setup.model.backends.insert(id, Arc::new(backend));
}

fn show(setup: &mut Setup, certificate: Option<&Arc<Certificate>>) {
    for port in setup.model.ports.values_mut() {
        Arc::make_mut(port).client_certificate = certificate.cloned();
    }
}

#[tokio::test]
async fn a_verified_backend_is_asked_by_its_name_and_its_connection_kept() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let mut backend = Secured::new(Backend::echo().await, &certificate, &["h2", "http/1.1"]).await;
    let tls = verified(&authority, "a.example", &[]);
    let gateway = setup(backend.front.address, BackendProtocol::Http1, tls).start_with(Limits::default(), 1);
    for n in 0..3 {
        let response = gateway.get(&format!("/{n}")).await;
        assert_eq!(response.status(), 200);
        assert!(response.text().starts_with(&format!("GET /{n} HTTP/1.1\n")));
    }
    let http1 = Seen { sni: Some("a.example".into()), alpn: Some("http/1.1".into()), certificates: 0 };
    assert_eq!(backend.seen().await, http1);
    // Requests that can't be sent twice ask more closely whether a connection is still there.
    let body = vec![7; 1 << 20];
    let answer = gateway.client().await.post("/", &body).await;
    assert!(answer.body.ends_with(&body));
    assert_eq!(backend.front.connections(), 1);
}

#[tokio::test]
async fn nobody_else_is_taken_for_the_backend() {
    let (authority, other) = (Authority::new(), Authority::new());
    let certificate = authority.issue(&["a.example"]);
    let backend = Secured::new(Backend::named("secret").await, &certificate, &[]).await;
    // As most servers in clear text answer a handshake.
    let plain = Backend::raw(|mut stream, _| async move {
        let _ = stream.read_u8().await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\nsecret").await;
    })
    .await;
    let gateway = Setup::http().start();
    let address = backend.front.address;
    for (address, tls) in [
        (address, verified(&authority, "b.example", &[])),
        (address, verified(&other, "a.example", &[])),
        (plain.address, verified(&authority, "a.example", &[])),
    ] {
        for protocol in [BackendProtocol::Http1, BackendProtocol::H2c] {
            gateway.publish(&setup(address, protocol, tls.clone()));
            let response = gateway.get("/").await;
            assert_eq!(response.status(), 502);
            assert!(!response.text().contains("secret"));
        }
    }
    let rejected = gateway.metric("headgate_rejections_total{reason=\"upstream_tls\"").await;
    assert!(rejected >= 6.0, "{rejected}");
}

#[tokio::test]
async fn alternative_names_count_instead_of_the_server_name() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example", "*.wild.example", "spiffe://example/a"]);
    let backend = Secured::new(Backend::named("it").await, &certificate, &[]).await;
    let gateway = Setup::http().start();
    for (names, status) in [
        (vec![dns("a.example")], 200),
        (vec![dns("A.EXAMPLE")], 200),
        (vec![uri("spiffe://example/a")], 200),
        (vec![dns("b.example"), uri("spiffe://example/a")], 200),
        (vec![dns("one.wild.example")], 200),
        (vec![dns("*.wild.example")], 200),
        (vec![dns("b.example")], 502),
        (vec![dns("*.example")], 502),
        (vec![dns("wild.example")], 502),
        (vec![uri("spiffe://example/b")], 502),
        (vec![uri("spiffe://example/A")], 502),
        (vec![uri("a.example"), dns("spiffe.example")], 502),
    ] {
        let tls = verified(&authority, "unrelated.example", &names);
        gateway.publish(&setup(backend.front.address, BackendProtocol::Http1, tls));
        assert_eq!(gateway.get("/").await.status(), status, "{names:?}");
    }
    // The server name is one of them only when it is named.
    let tls = verified(&authority, "a.example", &[dns("b.example")]);
    gateway.publish(&setup(backend.front.address, BackendProtocol::Http1, tls));
    assert_eq!(gateway.get("/").await.status(), 502);
}

#[tokio::test]
async fn other_authorities_count_at_once() {
    let (one, two) = (Authority::new(), Authority::new());
    let backend = Secured::new(Backend::named("it").await, &one.issue(&["a.example"]), &[]).await;
    let address = backend.front.address;
    let of = |authority| setup(address, BackendProtocol::Http1, verified(authority, "a.example", &[]));
    let gateway = of(&one).start_with(Limits::default(), 1);
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    // The connection is in the pool, and stays there unused.
    gateway.publish(&of(&two));
    assert_eq!(client.get("/").await.status(), 502);
    gateway.publish(&of(&one));
    assert_eq!(client.get("/").await.status(), 200);
    // Each of two bundles will do: an authority is replaced by trusting both for a while.
    let mut both = verified(&two, "a.example", &[]);
    both.authorities = Authorities::Bundles(vec![two.pem.as_str().into(), one.pem.as_str().into()]);
    gateway.publish(&setup(address, BackendProtocol::Http1, both));
    assert_eq!(client.get("/").await.status(), 200);
}

#[tokio::test]
async fn an_address_in_clear_text_and_in_tls_are_two() {
    let authority = Authority::new();
    // Answers in TLS and in clear text alike.
    let backend = Secured::new(Backend::named("tls").await, &authority.issue(&["a.example"]), &[]).await;
    let mut setup = Setup::http();
    let address = [backend.front.address];
    setup.backend("tls", BackendProtocol::Http1, &address).route("tls", "/tls", to("tls"));
    setup.backend("clear", BackendProtocol::Http1, &address).route("clear", "/clear", to("clear"));
    secure(&mut setup, "tls", BackendProtocol::Http1, verified(&authority, "a.example", &[]));
    let gateway = setup.start_with(Limits::default(), 1);
    for _ in 0..2 {
        assert_eq!(gateway.get("/tls").await.text(), "tls");
        assert_eq!(gateway.get("/clear").await.status(), 502);
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let certificate = authority.issue(&["a.example"]);
    let mut backend = Secured::wanting(Backend::named("it").await, &certificate, &[], Some(&clients)).await;
    let tls = verified(&authority, "a.example", &[]);
    let mut setup = setup(backend.front.address, BackendProtocol::Http1, tls);
    let gateway = setup.start_with(Limits::default(), 1);
    // In TLS 1.3 the refusal comes after our part of the handshake; it is a 502 all the same.
    assert_eq!(gateway.get("/").await.status(), 502);
    assert_eq!(gateway.client().await.post("/", b"once").await.status(), 502);
    show(&mut setup, Some(&clients.issue(&["gateway.example"])));
    gateway.publish(&setup);
    assert_eq!(gateway.get("/").await.text(), "it");
    assert_eq!(gateway.get("/").await.text(), "it");
    assert_eq!(backend.seen().await.certificates, 1);
    // Who we were counts no more.
    show(&mut setup, Some(&others.issue(&["gateway.example"])));
    gateway.publish(&setup);
    assert_eq!(gateway.get("/").await.status(), 502);
    show(&mut setup, None);
    gateway.publish(&setup);
    assert_eq!(gateway.get("/").await.status(), 502);
    // The backend's own is before the Gateway's.
    let own = Some(clients.issue(&["backend.example"]));
    let tls = BackendTls { client_certificate: own, ..verified(&authority, "a.example", &[]) };
    secure(&mut setup, "only", BackendProtocol::Http1, tls);
    for certificate in [None, Some(&others.issue(&["gateway.example"]))] {
        show(&mut setup, certificate);
        gateway.publish(&setup);
        assert_eq!(gateway.get("/").await.text(), "it");
    }
}

#[tokio::test]
async fn http2_is_agreed_upon_by_alpn() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let mut backend = Secured::new(http2_echo().await, &certificate, &["h2"]).await;
    let tls = verified(&authority, "a.example", &[]);
    let gateway =
        setup(backend.front.address, BackendProtocol::H2c, tls.clone()).start_with(Limits::default(), 1);
    for _ in 0..2 {
        let text = gateway.get("/path").await.text();
        assert!(text.starts_with("GET https://example.com/path HTTP/2.0\n"), "{text}");
    }
    assert_eq!(backend.seen().await.alpn.as_deref(), Some("h2"));
    assert_eq!(backend.front.connections(), 1);
    // A GRPCRoute's backend speaks HTTP/2 without saying so.
    let mut grpc = Setup::http();
    grpc.backend("grpc", BackendProtocol::Http1, &[backend.front.address]).grpc_route("grpc", to("grpc"));
    secure(&mut grpc, "grpc", BackendProtocol::Http1, tls.clone());
    gateway.publish(&grpc);
    let mut client = http2::connect(gateway.address(80)).await;
    let response = soon(client.send_request(http2::get("http://example.com/service/method"))).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    // Without ALPN it may speak anything.
    let mute = Secured::new(http2_echo().await, &certificate, &[]).await;
    gateway.publish(&setup(mute.front.address, BackendProtocol::H2c, tls));
    assert_eq!(gateway.get("/").await.status(), 502);
}

#[tokio::test]
async fn websockets_go_through() {
    let authority = Authority::new();
    let backend = Secured::new(websocket().await, &authority.issue(&["a.example"]), &["http/1.1"]).await;
    let tls = verified(&authority, "a.example", &[]);
    let gateway = setup(backend.front.address, BackendProtocol::Http1, tls).start();
    let mut client = gateway.client().await;
    client.send([HANDSHAKE.as_bytes(), b"early"].concat()).await;
    assert_eq!(client.head().await.status(), 101);
    let mut seen = std::mem::take(&mut client.read);
    let mut io = client.io;
    while seen.len() < 10 {
        soon(io.read_buf(&mut seen)).await.unwrap();
    }
    assert_eq!(seen, b"helloearly");
    io.shutdown().await.unwrap();
    assert_eq!(soon(io.read(&mut seen)).await.unwrap(), 0);
}

#[tokio::test]
async fn the_next_endpoint_may_be_who_it_should_be() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = Secured::new(Backend::named("good").await, &authority.issue(&["a.example"]), &[]).await;
    let bad = Secured::new(Backend::named("bad").await, &other.issue(&["a.example"]), &[]).await;
    let mut setup = Setup::only(&[good.front.address, bad.front.address]);
    secure(&mut setup, "only", BackendProtocol::Http1, verified(&authority, "a.example", &[]));
    let gateway = setup.start();
    for _ in 0..10 {
        let response = gateway.client().await.post("/", b"once").await;
        assert_eq!((response.status(), response.text().as_str()), (200, "good"));
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_503() {
    let silent = Backend::raw(|mut stream, _| async move {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
    })
    .await;
    let tls = verified(&Authority::new(), "a.example", &[]);
    let limits = Limits { connect: Duration::from_millis(200), ..Limits::default() };
    let gateway = setup(silent.address, BackendProtocol::Http1, tls).start_with(limits, 1);
    assert_eq!(gateway.get("/").await.status(), 503);
}

#[tokio::test]
async fn what_cannot_be_compiled_fails_closed() {
    let backend = Backend::named("secret").await;
    let broken = |server_name: &str, bundle: &str| BackendTls {
        server_name: server_name.into(),
        authorities: Authorities::Bundles(vec![bundle.into()]),
        subject_alt_names: vec![],
        client_certificate: None,
    };
    let gateway = Setup::http().start();
    for tls in [broken("a.example", "no PEM"), broken("not a name", &Authority::new().pem)] {
        gateway.publish(&setup(backend.address, BackendProtocol::Http1, tls));
        assert_eq!(gateway.get("/").await.status(), 500);
    }
    let nobody = BackendTls { authorities: Authorities::Nobody, ..broken("a.example", "") };
    gateway.publish(&setup(backend.address, BackendProtocol::Http1, nobody));
    assert_eq!(gateway.get("/").await.status(), 500);
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn tls_that_ends_here_is_encrypted_anew_and_what_passes_is_not() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let certificate = authority.issue(&["inner.example"]);
    let behind = || {
        Backend::raw(|mut stream, _| async move {
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            let _ = stream.write_all(&[b"heard ", &heard[..]].concat()).await;
        })
    };
    let mut inner = Secured::wanting(behind().await, &certificate, &[], Some(&clients)).await;
    let address = inner.front.address;
    let (outer, passing) = (tls::certificate(&["outer.example"]), authority.issue(&["passing.example"]));
    let through = Secured::new(behind().await, &passing, &[]).await;
    let mut setup = Setup::default();
    let end = Tls { certificates: vec![outer.clone()], client_validation: None };
    let listeners = vec![
        ("ends", HostPattern::parse("outer.example"), Some(end)),
        ("passes", HostPattern::parse("passing.example"), None),
    ];
    setup.stream_port(443, PortProtocol::Tls, listeners);
    for (name, address) in [("ends", address), ("passes", through.front.address)] {
        setup.backend(name, BackendProtocol::Http1, &[address]);
        setup.stream_route(RouteKind::Tls, (name, 0), name, HostPattern::Any, &[(name, 1)]);
    }
    secure(&mut setup, "ends", BackendProtocol::Http1, verified(&authority, "inner.example", &[]));
    // Whatever is wrong with it is between the client and the backend.
    let nobody = BackendTls { authorities: Authorities::Nobody, ..verified(&authority, "x.example", &[]) };
    secure(&mut setup, "passes", BackendProtocol::Http1, nobody);
    show(&mut setup, Some(&clients.issue(&["gateway.example"])));
    let gateway = setup.start();
    let config = Arc::new(tls::trust(&[&outer, &passing], &[]));
    let roots = |config: &rustls::ClientConfig| {
        let mut config = config.clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(authority.roots());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots, provider);
        config.dangerous().set_certificate_verifier(verifier.build().unwrap());
        Arc::new(config)
    };
    for (name, config) in [("outer.example", config.clone()), ("passing.example", roots(&config))] {
        let mut stream = tls::handshake(&gateway, name, &config).await.unwrap();
        stream.write_all(b"words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let _ = soon(stream.read_to_end(&mut heard)).await;
        assert_eq!(heard, b"heard words", "{name}");
    }
    let seen = Seen { sni: Some("inner.example".into()), alpn: None, certificates: 1 };
    assert_eq!(inner.seen().await, seen);
    // Somebody else in the backend's place hears nothing.
    secure(&mut setup, "ends", BackendProtocol::Http1, verified(&clients, "inner.example", &[]));
    gateway.publish(&setup);
    let mut stream = tls::handshake(&gateway, "outer.example", &config).await.unwrap();
    let mut heard = Vec::new();
    let _ = soon(stream.read_to_end(&mut heard)).await;
    assert!(heard.is_empty());
}
