//! OCSP answers that go with a certificate (RFC 6960; stapling: RFC 6066 §8), as a Secret holds them.
//!
//! Signatures aren't verified: that is what clients do. What a client would refuse in any case isn't sent: an answer about another
//! certificate, about one that isn't good, or one that is out of date.

use crate::model::{Staple, Text};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse, OcspResponseStatus};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longer ones would be paid for by every full handshake; the usual ones have 500 to 2,000 bytes.
const MAX_LEN: usize = 16 * 1024;

/// Why an OCSP answer isn't sent. The text is for the author of the Secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StapleError {
    /// It isn't one.
    #[error("it is not an OCSP answer in DER (RFC 6960)")]
    Malformed,
    /// It is too long.
    #[error("it has {0} bytes, of which at most {MAX_LEN} are sent")]
    TooLong(usize),
    /// The responder has refused to answer.
    #[error("the responder answered {0:?}")]
    Unsuccessful(OcspResponseStatus),
    /// It is about others.
    #[error("it is about another certificate than the first of tls.crt")]
    Other,
    /// The certificate is revoked, or not known to the responder.
    #[error("it doesn't say that the certificate is good")]
    NotGood,
    /// Nobody knows when it is out of date.
    #[error("it has no nextUpdate")]
    Endless,
}

/// Reads the answer (`tls.ocsp-staple`, DER) for the first certificate of a chain (`tls.crt`, PEM).
pub fn read_staple(answer: &[u8], chain_pem: &str) -> Result<Staple, StapleError> {
    if answer.len() > MAX_LEN {
        return Err(StapleError::TooLong(answer.len()));
    }
    let whole = OcspResponse::from_der(answer).map_err(|_| StapleError::Malformed)?;
    if whole.response_status != OcspResponseStatus::Successful {
        return Err(StapleError::Unsuccessful(whole.response_status));
    }
    let bytes = whole.response_bytes.ok_or(StapleError::Malformed)?;
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(|_| StapleError::Malformed)?;
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|_| StapleError::Other)?;
    let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| StapleError::Other)?;
    let mut answers = basic.tbs_response_data.responses.iter();
    let own = answers.find(|one| number(one.cert_id.serial_number.as_bytes()) == number(leaf.raw_serial()));
    let own = own.ok_or(StapleError::Other)?;
    if !matches!(own.cert_status, CertStatus::Good(_)) {
        return Err(StapleError::NotGood);
    }
    let until = own.next_update.as_ref().ok_or(StapleError::Endless)?.0.to_unix_duration();
    Ok(Staple::Sent { answer: answer.into(), until: until.as_secs() })
}

/// The digits of a number without a sign.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

impl From<StapleError> for Staple {
    fn from(error: StapleError) -> Self {
        Self::Refused(Text::from(error.to_string().as_str()))
    }
}
