//! HTTPS from files: the certificate that a Secret holds, another one without a restart, and what a broken one costs.

use crate::client::PATIENCE;
use crate::manifests::{Folder, documents, gateway, route, secret};
use crate::process::{Port, Process};
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

const HOST: &str = "tls.example";

type Made = CertifiedKey<KeyPair>;
type Stream = StreamOwned<ClientConnection, TcpStream>;

fn certificate() -> Made {
    rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate")
}

fn of(made: &Made) -> String {
    secret(&made.cert.pem(), &made.signing_key.serialize_pem())
}

/// A client that trusts these certificates.
fn trusting(made: &[&Made]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    made.iter().for_each(|made| roots.add(made.cert.der().clone()).expect("a certificate"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(versions.expect("it has them").with_root_certificates(roots).with_no_client_auth())
}

/// Shakes hands; the error is that of the handshake.
fn connect(client: &Arc<ClientConfig>, port: u16) -> std::io::Result<Stream> {
    let name = ServerName::try_from(HOST).expect("a name");
    let mut tls = ClientConnection::new(client.clone(), name).expect("a client");
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(tls, socket))
}

fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().expect("after the handshake")[0].clone().into_owned()
}

/// Asks on an open connection, which stays open.
fn status(stream: &mut Stream) -> String {
    write!(stream, "GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").expect("it is open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    String::from_utf8(head).expect("text").chars().skip("HTTP/1.1 ".len()).take(3).collect()
}

#[test]
fn a_new_certificate_is_served_from_the_next_handshake_on() {
    let (old, new) = (certificate(), certificate());
    let (plain, tls) = (Port::reserve(), Port::reserve());
    let listener = format!(
        "  - {{name: https, protocol: HTTPS, port: {}, tls: {{certificateRefs: [{{name: certificate}}]}}}}\n",
        tls.number
    );
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example}}]";
    let objects = documents(&[gateway(plain.number) + &listener, route("r", HOST, redirect)]);
    let folder = Folder::with(&[("gateway.yaml", &objects), ("certificate.yaml", &of(&old))]);
    let path = folder.path().display().to_string();
    let mut headgate = Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &path]);
    headgate.line_with("serving");

    let client = trusting(&[&old, &new]);
    let mut open = connect(&client, tls.number).expect("a handshake");
    assert_eq!(shown(&open), *old.cert.der());
    assert_eq!(status(&mut open), "302");

    folder.write("certificate.yaml", &of(&new));
    let began = Instant::now();
    while shown(&connect(&client, tls.number).expect("no handshake fails meanwhile")) != *new.cert.der() {
        assert!(began.elapsed() < PATIENCE, "the old certificate stays");
    }
    assert_eq!(status(&mut open), "302", "on the connection from before");

    // One that is none is told with what is wrong; the other listener goes on.
    folder.write("certificate.yaml", &secret("nonsense", &new.signing_key.serialize_pem()));
    let told = headgate.line_with("InvalidCertificateRef");
    assert!(told.contains("Gateway default/gateway, listener https"), "{told}");
    assert!(told.contains("Secret default/certificate: tls.crt"), "{told}");
    assert_eq!(crate::client::get(plain.number, HOST, "/").status, 302);
}
