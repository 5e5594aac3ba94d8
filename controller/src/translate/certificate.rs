//! Certificates of listeners: from Secrets of type `kubernetes.io/tls`, checked as the proxy will read them.
//!
//! A Secret that is edited into something that can't be served leaves the certificate before in force, and says so: a
//! slip of a renewal must not end what clients are connected to. A Secret that is deleted, or may not be used any more, is
//! gone at once.

use super::gateway::Context;
use super::grants::Reference;
use crate::api::gateway::CertificateRef;
use crate::cluster::Cluster;
use crate::status::Reason;
use headgate_proxy::model::{Certificate, ObjectName, Redacted, Staple};
use headgate_proxy::staple::read_staple;
use headgate_proxy::tls::check_certificate;
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came of a Secret: checking costs more than remembering.
type Checked = (Arc<Secret>, Result<Arc<Certificate>, Broken>);

/// A Secret that can't be served.
#[derive(Clone, Debug)]
struct Broken {
    why: String,
    /// What it held before.
    before: Option<Arc<Certificate>>,
}

/// Secrets that were checked, until they change.
#[derive(Debug, Default)]
pub struct Certificates(BTreeMap<ObjectName, Checked>);

/// Why a reference comes to nothing, or to less than it says.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) why: String,
    /// What the Secret held before it was broken: stays in force.
    pub(super) before: Option<Arc<Certificate>>,
}

impl Refused {
    pub(super) fn new(reason: Reason, why: String) -> Self {
        Self { reason, why, before: None }
    }
}

impl Certificates {
    fn get(&mut self, name: &ObjectName, secret: &Arc<Secret>) -> Result<Arc<Certificate>, Broken> {
        let before = match self.0.get(name) {
            Some((known, checked)) if Arc::ptr_eq(known, secret) => return checked.clone(),
            Some((_, Ok(certificate))) => Some(certificate.clone()),
            Some((_, Err(broken))) => broken.before.clone(),
            None => None,
        };
        let checked = read(name, secret).map(Arc::new).map_err(|why| Broken { why, before });
        self.0.insert(name.clone(), (secret.clone(), checked.clone()));
        checked
    }

    /// Forgets Secrets that are gone.
    pub fn retain(&mut self, exists: impl Fn(&ObjectName) -> bool) {
        self.0.retain(|name, _| exists(name));
    }
}

/// The certificate that a reference of a kind of object in a namespace names, or why it can't be had.
pub(super) fn resolve(
    context: &mut Context<'_>,
    (from_kind, namespace): (&str, &str),
    reference: &CertificateRef,
) -> Result<Arc<Certificate>, Refused> {
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if !group.is_empty() || kind != "Secret" {
        let what = format!("{group}/{kind} is not supported; name a Secret of type kubernetes.io/tls");
        return Err(Refused::new(Reason::InvalidCertificateRef, what));
    }
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), reference.name.as_str());
    let to = Reference { from_kind, from_namespace: namespace, to_group: "", to_kind: "Secret", to: &name };
    if !context.grants.permit(&to) {
        let what = format!(
            "Secret {name} is in another namespace, and no ReferenceGrant there lets {from_kind}s of {namespace} use it"
        );
        return Err(Refused::new(Reason::RefNotPermitted, what));
    }
    of_secret(context.cluster, context.certificates, &name)
}

/// The certificate that a Secret holds. Whether it may be used is the caller's to say.
pub(super) fn of_secret(
    cluster: &Cluster,
    certificates: &mut Certificates,
    name: &ObjectName,
) -> Result<Arc<Certificate>, Refused> {
    let Some(secret) = cluster.secrets.get(name) else {
        let what = format!("Secret {name} doesn't exist");
        return Err(Refused::new(Reason::InvalidCertificateRef, what));
    };
    certificates.get(name, secret).map_err(|Broken { why, before }| {
        let stays = if before.is_some() { "; the certificate before stays in force" } else { "" };
        let why = format!("Secret {name}: {why}{stays}");
        Refused { reason: Reason::InvalidCertificateRef, why, before }
    })
}

fn read(name: &ObjectName, secret: &Secret) -> Result<Certificate, String> {
    let entry = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.ok_or_else(|| format!("{key} is missing"))?;
        std::str::from_utf8(&bytes.0).map_err(|_| format!("{key} is not PEM"))
    };
    let (chain, key) = (entry("tls.crt")?, entry("tls.key")?);
    check_certificate(chain, key).map_err(|error| error.to_string())?;
    let answer = secret.data.as_ref().and_then(|data| data.get("tls.ocsp-staple"));
    let staple =
        answer.map_or(Staple::Absent, |answer| read_staple(&answer.0, chain).unwrap_or_else(Staple::from));
    Ok(Certificate { secret: name.clone(), chain: chain.into(), key: Redacted::new(key.to_owned()), staple })
}
