//! OCSP answers: which are sent, to whom, and which aren't.

use crate::client_policy::{Anybody, put_clients};
use crate::harness::Backend;
use crate::tls::{self, der};
use headgate_proxy::model::{Certificate, ClientTls, Clients, Staple};
use headgate_proxy::staple::{StapleError, read_staple};
use rustls::ClientConfig;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::der::asn1::{BitString, GeneralizedTime, Null, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, ResponderId, ResponseData,
    SingleResponse, Version,
};

const HOUR: Duration = Duration::from_secs(3600);

fn time(at: SystemTime) -> OcspGeneralizedTime {
    let since = Duration::from_secs(at.duration_since(UNIX_EPOCH).unwrap().as_secs());
    OcspGeneralizedTime(GeneralizedTime::from_unix_duration(since).unwrap())
}

/// What a responder says of a certificate. Nobody here looks at its signature.
fn answer(about: &Certificate, status: CertStatus, until: Option<SystemTime>) -> Vec<u8> {
    let about = x509_cert::Certificate::from_der(&der(about)).unwrap();
    let algorithm =
        |oid: &str| AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap(oid), parameters: None };
    let hash = || OctetString::new([7; 20]).unwrap();
    let single = SingleResponse {
        cert_id: CertId {
            hash_algorithm: algorithm("1.3.14.3.2.26"),
            issuer_name_hash: hash(),
            issuer_key_hash: hash(),
            serial_number: about.tbs_certificate.serial_number.clone(),
        },
        cert_status: status,
        this_update: time(SystemTime::now() - HOUR),
        next_update: until.map(time),
        single_extensions: None,
    };
    let basic = BasicOcspResponse {
        tbs_response_data: ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByKey(hash()),
            produced_at: time(SystemTime::now() - HOUR),
            responses: vec![single],
            response_extensions: None,
        },
        signature_algorithm: algorithm("1.2.840.10045.4.3.2"),
        signature: BitString::from_bytes(&[7; 64]).unwrap(),
        certs: None,
    };
    OcspResponse::successful(basic).unwrap().to_der().unwrap()
}

fn good() -> CertStatus {
    CertStatus::Good(Null)
}

#[test]
fn answers_are_read_and_what_clients_would_refuse_has_its_error() {
    let (own, other) = (tls::certificate(&["a.example"]), tls::certificate(&["a.example"]));
    let soon = SystemTime::now() + HOUR;
    let said = answer(&own, good(), Some(soon));
    let until = soon.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(read_staple(&said, &own.chain), Ok(Staple::Sent { answer: said.as_slice().into(), until }));
    let unknown = answer(&own, CertStatus::Unknown(Null), Some(soon));
    let refusal = OcspResponse::try_later().to_der().unwrap();
    for (said, error) in [
        (said[..said.len() - 1].to_vec(), StapleError::Malformed),
        (b"{}".to_vec(), StapleError::Malformed),
        (vec![0; 20_000], StapleError::TooLong(20_000)),
        (answer(&other, good(), Some(soon)), StapleError::Other),
        (unknown, StapleError::NotGood),
        (answer(&own, good(), None), StapleError::Endless),
        (refusal, StapleError::Unsuccessful(x509_ocsp::OcspResponseStatus::TryLater)),
    ] {
        assert_eq!(read_staple(&said, &own.chain), Err(error));
    }
}

#[tokio::test]
async fn answers_go_with_certificates_where_the_policy_says_so_until_they_are_out_of_date() {
    let backend = Backend::named("a").await;
    let plain = tls::certificate(&["a.example"]);
    let (past, soon) = (SystemTime::now() - HOUR, SystemTime::now() + HOUR);
    for (ocsp_stapling, until, sent) in [(true, soon, true), (true, past, false), (false, soon, false)] {
        let said = answer(&plain, good(), Some(until));
        let staple = read_staple(&said, &plain.chain).unwrap();
        let certificate = Arc::new(Certificate { staple, ..Certificate::clone(&plain) });
        let mut setup = tls::setup(&[("a", "a.example", &[&certificate])], &[&backend]);
        let rules = ClientTls { ocsp_stapling, ..ClientTls::default() };
        put_clients(&mut setup, &Clients { tls: rules, ..Clients::default() });
        let gateway = setup.start();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (heard, hears) = channel();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(Some(heard))));
            let config = Arc::new(config.with_no_client_auth());
            tls::handshake(&gateway, "a.example", &config).await.unwrap();
            assert_eq!(hears.recv().unwrap(), if sent { &*said } else { &[] });
        }
    }
}
