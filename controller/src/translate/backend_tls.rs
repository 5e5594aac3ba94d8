//! BackendTLSPolicies: how the backends of Services are verified, and what each policy is told.
//!
//! A policy that can't be honoured is in force all the same: its backends aren't spoken to, least of all in clear text. Of
//! two policies for one target the older counts (GEP-713); the other keeps the rest of its targets. What is told depends on
//! which Gateways forward to the targets: each is an ancestor.

use super::are_same;
use super::bundle::{BundleRef, Bundles};
use super::destination::Users;
use crate::api::BackendTlsPolicy;
use crate::api::backend_tls_policy::{SubjectAltName as ApiName, SubjectAltNameType, Validation};
use crate::cluster::{Cluster, Kind};
use crate::status::{AncestorDraft, ConditionType, Draft, PolicyDraft, Reason};
use headgate_proxy::model::{Authorities, BackendTls, ObjectName, SubjectAltName, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The policies of one Service: what routes see of them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ServicePolicies {
    whole: Option<Arc<BackendTls>>,
    by_port_name: BTreeMap<Text, Arc<BackendTls>>,
}

impl ServicePolicies {
    /// What holds for a port: its own policy, else that of the Service.
    pub(super) fn of_port(&self, name: Option<&str>) -> Option<&Arc<BackendTls>> {
        name.and_then(|name| self.by_port_name.get(name)).or(self.whole.as_ref())
    }

    /// Whether another policy has this target already.
    fn put(&mut self, port_name: Option<&str>, tls: &Arc<BackendTls>) -> Result<(), ()> {
        let taken = match port_name {
            None => self.whole.is_some(),
            Some(name) => self.by_port_name.contains_key(name),
        };
        match port_name {
            _ if taken => return Err(()),
            None => self.whole = Some(tls.clone()),
            Some(name) => drop(self.by_port_name.insert(name.into(), tls.clone())),
        }
        Ok(())
    }
}

/// A policy that was judged.
#[derive(Debug)]
struct Judged {
    generation: i64,
    services: BTreeSet<ObjectName>,
    conditions: Vec<Draft>,
}

/// All policies.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// By Service.
    pub(super) services: BTreeMap<ObjectName, Arc<ServicePolicies>>,
    judged: BTreeMap<ObjectName, Judged>,
}

impl Policies {
    /// Judges those that exist. Services whose policies say the same as `before` keep the same object.
    pub(super) fn of(cluster: &Cluster, bundles: &mut Bundles, before: &Self) -> Self {
        // The older first, then by name.
        let mut in_order: Vec<_> = cluster.backend_tls_policies.iter().collect();
        in_order.sort_by_key(|(_, policy)| policy.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let mut services = BTreeMap::<ObjectName, ServicePolicies>::new();
        let mut judged = BTreeMap::new();
        for (name, policy) in in_order {
            judged.insert(name.clone(), judge(cluster, bundles, name, policy, &mut services));
        }
        let services = services
            .into_iter()
            .map(|(name, policies)| {
                let same = before.services.get(&name).filter(|before| ***before == policies).cloned();
                (name, same.unwrap_or_else(|| Arc::new(policies)))
            })
            .collect();
        Self { services, judged }
    }

    /// Whether routes see the same of both.
    pub(super) fn look_like(&self, before: &Self) -> bool {
        are_same(&self.services, &before.services)
    }

    /// What each policy is told, given by which Gateways its Services are used.
    pub(super) fn drafts(
        &self,
        users: &Users,
    ) -> impl Iterator<Item = ((Kind, ObjectName), Arc<PolicyDraft>)> {
        let draft = move |judged: &Judged| {
            let services = judged.services.iter().map(|service| (Kind::Service, service.clone()));
            let gateways: BTreeSet<_> =
                services.filter_map(|service| users.get(&service)).flatten().collect();
            let ancestors = gateways
                .into_iter()
                .map(|gateway| AncestorDraft::of_gateway(gateway, judged.conditions.clone()));
            PolicyDraft { generation: judged.generation, ancestors: ancestors.collect() }
        };
        let id = |name: &ObjectName| (Kind::BackendTlsPolicy, name.clone());
        self.judged.iter().map(move |(name, judged)| (id(name), Arc::new(draft(judged))))
    }
}

fn judge(
    cluster: &Cluster,
    bundles: &mut Bundles,
    name: &ObjectName,
    policy: &BackendTlsPolicy,
    services: &mut BTreeMap<ObjectName, ServicePolicies>,
) -> Judged {
    let at = "spec.validation";
    let verified = verify(cluster, bundles, &name.namespace, at, &policy.spec.validation);
    let in_force = Arc::new(verified.tls);
    let (mut targets, mut problem) = (BTreeSet::new(), None);
    for (n, target) in policy.spec.target_refs.iter().enumerate() {
        // Other kinds are other controllers'.
        if !target.group.is_empty() || target.kind != "Service" {
            continue;
        }
        let service = ObjectName::new(name.namespace.clone(), target.name.as_str());
        let section = target.section_name.as_deref().filter(|section| !section.is_empty());
        if services.entry(service.clone()).or_default().put(section, &in_force).is_err() {
            let why = format!(
                "spec.targetRefs[{n}]: an older BackendTLSPolicy, or one that is first by name, has this target of Service {service}"
            );
            problem.get_or_insert((Reason::Conflicted, why));
        } else if let Some(section) = section
            && !has_port(cluster, &service, section)
        {
            let why =
                format!("spec.targetRefs[{n}].sectionName: Service {service} has no port named {section}");
            problem.get_or_insert((Reason::TargetNotFound, why));
        }
        targets.insert(service);
    }
    let accepted = match problem.or(verified.invalid) {
        Some((reason, why)) => Draft::new(ConditionType::Accepted, false, reason, why),
        None => {
            Draft::new(ConditionType::Accepted, true, Reason::Accepted, "backends are verified like this")
        }
    };
    let resolved = match verified.unresolved {
        Some((reason, why)) => Draft::new(ConditionType::ResolvedRefs, false, reason, why),
        None => {
            Draft::new(ConditionType::ResolvedRefs, true, Reason::ResolvedRefs, "all references are resolved")
        }
    };
    let generation = policy.metadata.generation.unwrap_or_default();
    Judged { generation, services: targets, conditions: vec![accepted, resolved] }
}

/// What `validation` comes to.
pub(super) struct Verified {
    pub(super) tls: BackendTls,
    /// Why nothing can be verified by it.
    pub(super) invalid: Option<(Reason, String)>,
    /// The first kind of trouble with references, and all of it as text.
    pub(super) unresolved: Option<(Reason, String)>,
}

/// Translates the `validation` at a field of an object.
pub(super) fn verify(
    cluster: &Cluster,
    bundles: &mut Bundles,
    namespace: &str,
    at: &str,
    from: &Validation,
) -> Verified {
    let references = from.ca_certificate_refs.as_deref().unwrap_or_default();
    let (mut found, mut unresolved) = (Vec::with_capacity(references.len()), Vec::new());
    for (n, reference) in references.iter().enumerate() {
        let reference =
            BundleRef { group: &reference.group, kind: &reference.kind, namespace, name: &reference.name };
        match bundles.resolve(cluster, &reference) {
            Ok(pem) => found.push(pem),
            Err((reason, why)) => {
                unresolved.push((reason, format!("{at}.caCertificateRefs[{n}]: {why}")));
            }
        }
    }
    let all = |unresolved: &[(Reason, String)]| {
        unresolved.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; ")
    };
    let invalid = |why: String| Err((Reason::Invalid, format!("{at}.{why}")));
    let authorities = match from.well_known_ca_certificates.as_deref().unwrap_or_default() {
        _ if !found.is_empty() => Ok(Authorities::Bundles(found)),
        _ if !references.is_empty() => {
            let why = format!("no backend can be verified: {}", all(&unresolved));
            Err((Reason::NoValidCACertificate, why))
        }
        "System" => Ok(Authorities::System),
        "" => {
            invalid("caCertificateRefs is empty; name authorities, or set wellKnownCACertificates".to_owned())
        }
        other => invalid(format!("wellKnownCACertificates: {other} is not supported; use System")),
    };
    let names = from.subject_alt_names.iter().flatten().map(name).collect();
    let (authorities, invalid) = match authorities {
        Ok(authorities) => (authorities, None),
        Err(invalid) => (Authorities::Nobody, Some(invalid)),
    };
    let server_name = from.hostname.to_ascii_lowercase().into();
    let tls = BackendTls { server_name, authorities, subject_alt_names: names, client_certificate: None };
    let reason = unresolved.first().map(|(reason, _)| *reason);
    Verified { tls, invalid, unresolved: reason.map(|reason| (reason, all(&unresolved))) }
}

/// The API wants exactly the field of the type.
fn name(from: &ApiName) -> SubjectAltName {
    match from.r#type {
        SubjectAltNameType::Hostname => {
            SubjectAltName::Dns(from.hostname.as_deref().unwrap_or_default().to_ascii_lowercase().into())
        }
        SubjectAltNameType::Uri => SubjectAltName::Uri(from.uri.as_deref().unwrap_or_default().into()),
    }
}

/// Whether a Service has a port of that name. One that isn't there is no matter of the policy.
fn has_port(cluster: &Cluster, service: &ObjectName, name: &str) -> bool {
    let Some(service) = cluster.services.get(service) else { return true };
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.any(|port| port.name.as_deref() == Some(name))
}

#[cfg(test)]
pub(super) mod tests;
