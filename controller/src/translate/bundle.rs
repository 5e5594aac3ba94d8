//! Bundles of certificate authorities: from objects that hold one, checked as the proxy will read them.

use crate::cluster::{Cluster, Kind, Object, Watched};
use crate::status::Reason;
use headgate_proxy::model::{ObjectName, Text};
use headgate_proxy::tls::check_authorities;
use std::collections::BTreeMap;

/// The entry of ConfigMaps and Secrets that holds one.
const ENTRY: &str = "ca.crt";

/// What came of an object: checking costs more than remembering.
type Checked = (Object, Result<Text, String>);

/// Objects that were checked, until they change.
#[derive(Debug, Default)]
pub struct Bundles(BTreeMap<(Kind, ObjectName), Checked>);

/// What holds a bundle. References to another namespace are the caller's to permit.
#[derive(Clone, Copy, Debug)]
pub(super) struct BundleRef<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Bundles {
    /// The certificates in a bundle, as PEM, or why there are none: [`Reason::InvalidKind`] or
    /// [`Reason::InvalidCACertificateRef`].
    pub(super) fn resolve(
        &mut self,
        cluster: &Cluster,
        from: &BundleRef<'_>,
    ) -> Result<Text, (Reason, String)> {
        let name = ObjectName::new(from.namespace, from.name);
        let cluster_wide = || ObjectName::new("", from.name);
        let checked = match (from.group, from.kind) {
            ("", "ConfigMap") => {
                self.get(name, &cluster.config_maps, |map| map.data.as_ref()?.get(ENTRY).cloned())
            }
            ("", "Secret") => self.get(name, &cluster.secrets, |secret| {
                String::from_utf8(secret.data.as_ref()?.get(ENTRY)?.0.clone()).ok()
            }),
            ("certificates.k8s.io", "ClusterTrustBundle") => {
                let bundles = &cluster.cluster_trust_bundles;
                self.get(cluster_wide(), bundles, |bundle| Some(bundle.spec.trust_bundle.clone()))
            }
            (group, kind) => {
                let why = format!(
                    "{group}/{kind} is not supported; name a ConfigMap or a Secret with the entry {ENTRY}, or a ClusterTrustBundle"
                );
                return Err((Reason::InvalidKind, why));
            }
        };
        checked.map_err(|why| (Reason::InvalidCACertificateRef, why))
    }

    fn get<K: Watched<Kept = K>>(
        &mut self,
        name: ObjectName,
        store: &crate::cluster::Store<K>,
        read: impl Fn(&K) -> Option<String>,
    ) -> Result<Text, String> {
        let kind = K::KIND;
        let shown = match &*name.namespace {
            "" => format!("{kind} {}", name.name),
            _ => format!("{kind} {name}"),
        };
        let Some(held) = store.get(&name) else { return Err(format!("{shown} doesn't exist")) };
        let object = K::any(held.clone());
        if let Some((known, checked)) = self.0.get(&(kind, name.clone()))
            && known.is(&object)
        {
            return checked.clone();
        }
        let checked = match read(held) {
            None => Err(format!("{shown} has no entry {ENTRY}")),
            Some(pem) => match check_authorities(&pem) {
                Ok(()) => Ok(certificates(&pem)),
                Err(error) => Err(format!("{shown}: {error}")),
            },
        };
        self.0.insert((kind, name), (object, checked.clone()));
        checked
    }

    /// Forgets objects that are gone.
    pub(super) fn retain(&mut self, cluster: &Cluster) {
        self.0.retain(|(kind, name), _| cluster.object(*kind, name).is_some());
    }
}

/// The certificates of a bundle and nothing else: comments are for people, and a Secret's other blocks are nobody's.
fn certificates(pem: &str) -> Text {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = pem.split(BEGIN).skip(1).filter_map(|block| block.split_once(END));
    blocks.map(|(block, _)| format!("{BEGIN}{block}{END}\n")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Change;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[test]
    fn only_certificates_are_taken_and_each_object_read_once() {
        let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
        let certificate = made.cert.pem().replace("\r\n", "\n");
        let mut map = ConfigMap::default();
        (map.metadata.namespace, map.metadata.name) = (Some("a".to_owned()), Some("ca".to_owned()));
        let pem = format!("# ours\n{certificate}{}", made.signing_key.serialize_pem());
        map.data = Some([(ENTRY.to_owned(), pem), ("other".to_owned(), "dropped".to_owned())].into());
        let mut cluster = Cluster::default();
        cluster.apply(Change::Upsert(map.wrap()));
        let mut bundles = Bundles::default();
        let reference = BundleRef { group: "", kind: "ConfigMap", namespace: "a", name: "ca" };
        let first = bundles.resolve(&cluster, &reference).unwrap();
        assert_eq!(first.trim(), certificate.trim());
        assert!(Text::ptr_eq(&first, &bundles.resolve(&cluster, &reference).unwrap()));
        bundles.retain(&Cluster::default());
        assert!(bundles.0.is_empty());
    }
}
