//! The certificate of a client's connection, and whether it is one of those that are wanted. Only certificates that the
//! listener has validated come here ([`crate::client_auth`]).

use super::{Identity, Known, Said};
use crate::model::{ClientCertificateAuth, Text};
use aws_lc_rs::digest;
use std::fmt::Write;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is asked about a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    subject: Box<str>,
    sans: Box<[Box<str>]>,
    fingerprint: String,
}

impl ClientCertificate {
    /// Reads one. None: it is no X.509, which nobody validated then.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let sans = certificate.subject_alternative_name().ok().flatten();
        let sans = sans.iter().flat_map(|sans| &sans.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                Some((*name).into())
            }
            GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => None,
        });
        Some(Self {
            subject: certificate.subject().to_string().into(),
            sans: sans.collect(),
            fingerprint: hex(digest::digest(&digest::SHA256, der).as_ref()),
        })
    }

    /// What it is known by: its first name, else its subject.
    pub(super) fn consumer(&self) -> Text {
        self.sans.first().map_or_else(|| (&*self.subject).into(), |san| (&**san).into())
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes what is written");
    }
    text
}

/// Which certificates are wanted.
#[derive(Debug)]
pub(super) struct Certificates {
    sans: Box<[Box<str>]>,
    subject: Option<Box<str>>,
    fingerprints: Box<[String]>,
}

impl Certificates {
    pub(super) fn compile(from: &ClientCertificateAuth) -> Result<Self, String> {
        let fingerprint = |(n, text): (usize, &Text)| {
            let plain: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
            let good = plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
            good.then_some(plain).ok_or_else(|| {
                format!("fingerprints[{n}]: {text:?} isn't a SHA-256 in 64 hexadecimal digits")
            })
        };
        Ok(Self {
            sans: from.sans.iter().map(|san| (&**san).into()).collect(),
            subject: from.subject.as_deref().map(Into::into),
            fingerprints: from.fingerprints.iter().enumerate().map(fingerprint).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn ask(&self, certificate: Option<&ClientCertificate>) -> Said<'_> {
        match certificate {
            None => Said::Missing,
            Some(certificate) if self.want(certificate) => {
                let identity = Identity { consumer: Some(certificate.consumer()), claims: None };
                Said::Known(Known { identity, ..Known::default() })
            }
            Some(_) => Said::Wrong,
        }
    }

    fn want(&self, certificate: &ClientCertificate) -> bool {
        let named = |pattern: &str| certificate.sans.iter().any(|san| is_like(pattern, san));
        (self.sans.is_empty() || self.sans.iter().any(|pattern| named(pattern)))
            && self.subject.as_ref().is_none_or(|subject| *subject == certificate.subject)
            && (self.fingerprints.is_empty() || self.fingerprints.contains(&certificate.fingerprint))
    }
}

/// Whether a name is like a pattern, in which one `*` stands for one character or more. Names are compared without case,
/// as DNS and mail do; a URI whose case matters is better told by its fingerprint.
fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, end)) => {
            name.len() > begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> ClientCertificate {
        let names = ["client.example".to_owned(), "Spiffe.example".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params
            .subject_alt_names
            .push(rcgen::SanType::URI("spiffe://a.example/ns/b/sa/c".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
        params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
        let key = rcgen::KeyPair::generate().unwrap();
        ClientCertificate::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn certificates_are_told_by_names_subject_and_fingerprint() {
        let certificate = certificate();
        assert_eq!(&*certificate.consumer(), "client.example");
        let texts = |list: &[&str]| list.iter().map(|text| (*text).into()).collect::<Vec<Text>>();
        let wants = |sans: &[&str], subject: Option<&str>, fingerprints: &[&str]| {
            let from = ClientCertificateAuth {
                sans: texts(sans),
                subject: subject.map(Into::into),
                fingerprints: texts(fingerprints),
            };
            Certificates::compile(&from).unwrap().want(&certificate)
        };
        let own = certificate.fingerprint.to_uppercase();
        assert!(wants(&[], None, &[]));
        assert!(wants(&["other.example", "CLIENT.example"], Some("O=Example, CN=alice"), &[&own]));
        assert!(wants(&["spiffe://a.example/ns/b/*"], None, &[]));
        assert!(wants(&["*.example"], None, &[]));
        assert!(!wants(&["*"], Some("CN=alice"), &[]));
        assert!(!wants(&["client.example.org", "spiffe://a.example/ns/b/sa/c*"], None, &[]));
        assert!(!wants(&["client.example"], None, &[&"0".repeat(64)]));
    }
}
