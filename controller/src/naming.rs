//! Names of what Gateways and XBackends own.

use aws_lc_rs::digest::{SHA256, digest};
use headgate_proxy::model::ObjectName;

/// The longest name of a Service, and the longest value of a label.
const LONGEST: usize = 63;
/// The label by which a Gateway's Service and EndpointSlices name it (GEP-1762).
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The name of a Gateway's Service: a DNS label (RFC 1035), while a Gateway's name may be 253 characters with dots.
pub fn service(gateway: &str) -> String {
    let plain = format!("headgate-{}", gateway.replace('.', "-"));
    match plain.len() <= LONGEST && !gateway.contains('.') {
        true => plain,
        false => shorten(&plain, gateway),
    }
}

/// The label by which the Service of an XBackend names it.
pub const BACKEND_NAME: &str = "headgate.dev/backend-name";
/// The name of the port of a [`selector`].
pub const SELECTOR_PORT: &str = "backend";

/// The Service that finds the endpoints which an XBackend selects. Nobody can know its name before the object is there, so
/// that nobody comes to rely on it (GEP-4894); all replicas read the same from the object, so that two of them that
/// make it make one.
pub fn selector(namespace: &str, uid: &str) -> ObjectName {
    let hash = digest(&SHA256, uid.as_bytes());
    let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    ObjectName::new(namespace, format!("headgate-backend-{hash}"))
}

/// A Gateway's name as the value of a label.
pub fn label_value(gateway: &str) -> String {
    match gateway.len() <= LONGEST {
        true => gateway.to_owned(),
        false => shorten(gateway, gateway),
    }
}

/// The beginning of `text`, and enough of a hash of `whole` to tell it from others that begin like it.
fn shorten(text: &str, whole: &str) -> String {
    let hash = digest(&SHA256, whole.as_bytes());
    let hash: String = hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let kept: String = text.chars().take(LONGEST - 1 - hash.len()).collect();
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_as_they_are() {
        assert_eq!(service("web"), "headgate-web");
        assert_eq!(label_value("a.web"), "a.web");
    }

    #[test]
    fn others_are_labels_that_tell_gateways_apart() {
        let long = "g".repeat(253);
        let names =
            [service("a.web"), service("a-web"), service(&long), service(&format!("{}h", "g".repeat(252)))];
        for name in &names {
            assert!(name.len() <= LONGEST && !name.contains('.') && !name.contains("--"), "{name}");
        }
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
        assert_eq!(label_value(&long).len(), LONGEST);
    }
}
