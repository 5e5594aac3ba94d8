//! XBackends (GEP-4894): backends with their pods or external host, TLS, protocol and sessions in one object; and what
//! XBackendTrafficPolicies add to backends ([`traffic`]).
//!
//! One that can't be honoured is never spoken to: routes that name it answer 500 where it would have got requests. What is
//! told depends on which Gateways forward to it: each is an ancestor.

mod traffic;

use super::are_same;
use super::backend_tls::verify;
use super::bundle::Bundles;
use super::certificate::{self, Certificates};
use super::session;
use crate::api::XBackend;
use crate::api::x_backend::{Protocol, Tls, TlsMode, Type};
use crate::cluster::{Cluster, Kind};
use crate::settings::Mode;
use crate::status::{AncestorDraft, ConditionType, Draft, PolicyDraft, Reason};
use headgate_proxy::model::{
    Authorities, BackendProtocol, BackendTls, Certificate, ObjectName, Session, Text,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use traffic::Policies;

pub(super) use traffic::Traffic;

/// The end of names within a cluster: what they name has a Service, and its namespace's consent to be asked for.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// A backend, as a target of policies.
pub(super) type Target = (Kind, ObjectName);
/// Which Gateways forward to it.
pub(super) type Users = BTreeMap<Target, BTreeSet<ObjectName>>;

/// What routes see of an XBackend.
#[derive(Debug, PartialEq)]
pub(super) struct Destination {
    /// The pods' or the external host's.
    pub(super) port: u16,
    /// Absent: it isn't for requests.
    pub(super) protocol: Option<BackendProtocol>,
    /// Absent: clear text.
    pub(super) tls: Option<Arc<BackendTls>>,
    /// What sends a client to the same endpoint again.
    pub(super) session: Option<Session>,
    /// Why nothing may be sent there.
    pub(super) refused: Option<String>,
}

/// An object that was judged.
#[derive(Debug)]
struct Judged {
    generation: i64,
    conditions: Vec<Draft>,
}

impl Judged {
    fn draft<'a>(&self, gateways: impl Iterator<Item = &'a ObjectName>) -> Arc<PolicyDraft> {
        let ancestors = gateways.map(|gateway| AncestorDraft::of_gateway(gateway, self.conditions.clone()));
        Arc::new(PolicyDraft { generation: self.generation, ancestors: ancestors.collect() })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// XBackends.
    pub(super) backends: BTreeMap<ObjectName, Arc<Destination>>,
    judged: BTreeMap<ObjectName, Judged>,
    policies: Policies,
}

impl Destinations {
    /// Judges those that exist. What says the same as `before` keeps the same object.
    pub(super) fn of(
        cluster: &Cluster,
        mode: Mode,
        bundles: &mut Bundles,
        certificates: &mut Certificates,
        before: &Self,
    ) -> Self {
        let (mut backends, mut judged) = (BTreeMap::new(), BTreeMap::new());
        for (name, backend) in &cluster.x_backends {
            let (destination, told) = judge(cluster, mode, bundles, certificates, name, backend);
            let same = before.backends.get(name).filter(|before| ***before == destination).cloned();
            backends.insert(name.clone(), same.unwrap_or_else(|| Arc::new(destination)));
            judged.insert(name.clone(), told);
        }
        Self { backends, judged, policies: Policies::of(cluster, &before.policies) }
    }

    /// Whether routes see the same of both.
    pub(super) fn look_like(&self, before: &Self) -> bool {
        are_same(&self.backends, &before.backends)
            && are_same(&self.policies.by_target, &before.policies.by_target)
    }

    /// What XBackendTrafficPolicies say of a backend.
    pub(super) fn traffic(&self, target: &Target) -> Option<&Arc<Traffic>> {
        self.policies.by_target.get(target)
    }

    /// What each object is told.
    pub(super) fn drafts(
        &self,
        users: &Users,
    ) -> impl Iterator<Item = ((Kind, ObjectName), Arc<PolicyDraft>)> {
        let backends = self.judged.iter().map(move |(name, judged)| {
            let id = (Kind::XBackend, name.clone());
            let gateways = users.get(&id).into_iter().flatten();
            let draft = judged.draft(gateways);
            (id, draft)
        });
        backends.chain(self.policies.drafts(users))
    }
}

/// The name of the host that an XBackend names, as it is looked up.
pub(super) fn hostname(backend: &XBackend) -> Option<Text> {
    let external = backend.spec.external_hostname.as_ref()?;
    Some(external.hostname.trim_end_matches('.').to_ascii_lowercase().into())
}

/// What is wrong with an object: what it names, and what it says.
#[derive(Default)]
struct Problems {
    invalid: Vec<String>,
    unresolved: Option<(Reason, String)>,
}

fn judge(
    cluster: &Cluster,
    mode: Mode,
    bundles: &mut Bundles,
    certificates: &mut Certificates,
    name: &ObjectName,
    backend: &XBackend,
) -> (Destination, Judged) {
    let (spec, mut problems) = (&backend.spec, Problems::default());
    let port = spec.port.number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    if port.is_none() {
        problems.invalid.push("spec.port.number is missing, or isn't a port".to_owned());
    }
    problems.invalid.extend(place(mode, backend).err());
    let tls = tls(cluster, bundles, certificates, name, spec.tls.as_ref(), &mut problems);
    problems.invalid.extend(clash(spec.protocol.as_ref(), tls.is_some()));
    let refused = (!problems.invalid.is_empty()).then(|| problems.invalid.join("; "));
    let session = spec.session_persistence.as_ref().and_then(|from| {
        let session = alike(from).and_then(|from| session::translate(&from, &format!("XBackend/{name}")));
        let note =
            |why| problems.invalid.push(format!("spec.sessionPersistence.{why}; there are no sessions"));
        session.map_err(note).ok()
    });
    let destination = Destination {
        port: port.unwrap_or_default(),
        protocol: speaks(spec.protocol.as_ref()),
        tls,
        session,
        refused,
    };
    let accepted = match problems.invalid.is_empty() {
        false => Draft::new(ConditionType::Accepted, false, Reason::Invalid, problems.invalid.join("; ")),
        true => Draft::new(ConditionType::Accepted, true, Reason::Accepted, "routes may forward to it"),
    };
    let resolved = match problems.unresolved {
        Some((reason, why)) => Draft::new(ConditionType::ResolvedRefs, false, reason, why),
        None => {
            Draft::new(ConditionType::ResolvedRefs, true, Reason::ResolvedRefs, "all references are resolved")
        }
    };
    let generation = backend.metadata.generation.unwrap_or_default();
    (destination, Judged { generation, conditions: vec![accepted, resolved] })
}

/// Whether there is a place to send requests to.
fn place(mode: Mode, backend: &XBackend) -> Result<(), String> {
    match backend.spec.r#type {
        Type::ExternalHostname => {
            let name = hostname(backend).unwrap_or_default();
            let within = name.strip_suffix(CLUSTER_DOMAIN);
            if name.is_empty() {
                return Err("spec.externalHostname.hostname is missing".to_owned());
            }
            if name.parse::<IpAddr>().is_ok()
                || within.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            {
                return Err(format!(
                    "spec.externalHostname.hostname: {name} is an address or a name of this cluster; name a Service instead"
                ));
            }
            Ok(())
        }
        Type::EndpointSelector => {
            if mode == Mode::Files {
                return Err("spec.endpointSelector: without a cluster there are no pods to select; name a Service, and its EndpointSlices".to_owned());
            }
            let selector = backend.spec.endpoint_selector.as_ref();
            if selector.is_none_or(|selector| selector.match_labels.is_empty()) {
                return Err("spec.endpointSelector.matchLabels is empty; name at least one label".to_owned());
            }
            Ok(())
        }
    }
}

/// What requests are sent in. GRPCRoutes speak HTTP/2 to all backends.
fn speaks(protocol: Option<&Protocol>) -> Option<BackendProtocol> {
    match protocol {
        // MCP's transport is HTTP with event streams; WSS begins as HTTP/1.1.
        None | Some(Protocol::Http | Protocol::Http11 | Protocol::Mcp | Protocol::Wss) => {
            Some(BackendProtocol::Http1)
        }
        Some(Protocol::Http2 | Protocol::H2c | Protocol::Grpc) => Some(BackendProtocol::H2c),
        Some(Protocol::Tcp) => None,
    }
}

/// Whether a protocol and TLS can't go together: the CRD's rules, for files.
fn clash(protocol: Option<&Protocol>, tls: bool) -> Option<String> {
    match (protocol, tls) {
        (Some(Protocol::H2c), true) => {
            Some("spec.protocol: H2C is clear text; use HTTP2 with tls".to_owned())
        }
        (Some(Protocol::Http2), false) => {
            Some("spec.protocol: HTTP2 needs tls; use H2C for HTTP/2 in clear text".to_owned())
        }
        (Some(Protocol::Wss), false) => Some("spec.protocol: WSS needs tls".to_owned()),
        (Some(Protocol::H2c), false)
        | (Some(Protocol::Http2 | Protocol::Wss), true)
        | (
            None | Some(Protocol::Http | Protocol::Http11 | Protocol::Mcp | Protocol::Grpc | Protocol::Tcp),
            _,
        ) => None,
    }
}

/// How it is verified, and who we are to it. What can't be honoured leaves nobody who is trusted, so that nothing is sent.
fn tls(
    cluster: &Cluster,
    bundles: &mut Bundles,
    certificates: &mut Certificates,
    name: &ObjectName,
    from: Option<&Tls>,
    problems: &mut Problems,
) -> Option<Arc<BackendTls>> {
    let from = from.filter(|from| from.mode != TlsMode::None)?;
    let nobody = || BackendTls {
        server_name: "invalid".into(),
        authorities: Authorities::Nobody,
        subject_alt_names: Vec::new(),
        client_certificate: None,
    };
    let validation = from.validation.as_ref().ok_or_else(|| "is missing; TLS needs it".to_owned());
    let validation = match validation.and_then(alike) {
        Ok(validation) => validation,
        Err(why) => {
            problems.invalid.push(format!("spec.tls.validation {why}"));
            return Some(Arc::new(nobody()));
        }
    };
    let verified = verify(cluster, bundles, &name.namespace, "spec.tls.validation", &validation);
    problems.invalid.extend(verified.invalid.map(|(_, why)| why));
    problems.unresolved = verified.unresolved;
    let mut tls = verified.tls;
    match client_certificate(cluster, certificates, name, from) {
        Ok(certificate) => tls.client_certificate = certificate,
        Err(refused) => {
            let why = format!("spec.tls.clientCertificateRef: {}", refused.why);
            match refused.before {
                // As for listeners: a slip of a renewal isn't the end.
                Some(before) => tls.client_certificate = Some(before),
                None => {
                    problems.invalid.push(why.clone());
                    tls.authorities = Authorities::Nobody;
                }
            }
            problems.unresolved.get_or_insert((Reason::InvalidClientCertificateRef, why));
        }
    }
    Some(Arc::new(tls))
}

fn client_certificate(
    cluster: &Cluster,
    certificates: &mut Certificates,
    name: &ObjectName,
    from: &Tls,
) -> Result<Option<Arc<Certificate>>, certificate::Refused> {
    if from.mode != TlsMode::ClientAndServer {
        return Ok(None);
    }
    let refuse = |why: String| Err(certificate::Refused::new(Reason::InvalidClientCertificateRef, why));
    let Some(reference) = &from.client_certificate_ref else {
        return refuse("it is missing; mode ClientAndServer needs it".to_owned());
    };
    let (group, kind) =
        (reference.group.as_deref().unwrap_or_default(), reference.kind.as_deref().unwrap_or("Secret"));
    if !group.is_empty() || kind != "Secret" {
        return refuse(format!("{group}/{kind} is not supported; name a Secret of type kubernetes.io/tls"));
    }
    // GEP-4894, "Security Boundaries and Personas".
    if reference.namespace.as_deref().is_some_and(|namespace| *namespace != *name.namespace) {
        return refuse("an XBackend uses only Secrets of its own namespace".to_owned());
    }
    let secret = ObjectName::new(name.namespace.clone(), reference.name.as_str());
    certificate::of_secret(cluster, certificates, &secret).map(Some)
}

/// A part of an object in the form of another kind's: types of their own in the API, alike in every field.
fn alike<T: DeserializeOwned>(from: &impl Serialize) -> Result<T, String> {
    serde_json::to_value(from).and_then(serde_json::from_value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
