//! ClientPolicies: to what holds for requests that come by a listener.

use super::merge::{Path, Shape};
use super::resolve::Resolver;
use super::{At, Came, Common, OfRequests, Policy};
use crate::status::ConditionType;
use headgate_crds::ClientPolicy;
use headgate_proxy::model::{self, ObjectName};
use serde_json::{Value, json};

/// The way to the limit of bodies.
const BODY: [&str; 2] = ["limits", "requestBodyBytes"];
/// Units of bytes.
const UNITS: [(&str, u64); 6] =
    [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

impl Policy for ClientPolicy {
    const SHAPE: Shape = Shape { open: &["limits"], named: &[], fixed: &[] };
    const AFFECTED: ConditionType = ConditionType::ClientPolicyAffected;
    const OF_ROUTES: bool = false;

    fn common(&self) -> Common<'_> {
        // What is done before there is a request can't be tried out beside what is in force: there is no Shadow.
        Common { target_refs: &self.spec.target_refs, strategy: self.spec.strategy, mode: None }
    }

    fn fields(&self) -> Value {
        json!({"limits": self.spec.limits})
    }

    fn check(&self, _: &ObjectName, _: &mut Resolver<'_>) -> Vec<(Path, String)> {
        let limit = self.spec.limits.request_body_bytes.as_deref();
        limit.and_then(|text| bytes(text).err()).map(|why| (Path::of(&BODY), why)).into_iter().collect()
    }
}

impl OfRequests for ClientPolicy {
    fn put(came: &Came, _: &At<'_>, policies: &mut model::Policies) -> Vec<(ObjectName, String)> {
        let field = came.enforced.fields.get(&Path::of(&BODY));
        // What isn't a number of bytes was left out when the policy was checked.
        let most = field.and_then(|field| bytes(field.value.as_str()?).ok());
        policies.request_body_bytes = most.filter(|most| *most > 0);
        Vec::new()
    }
}

/// Reads a number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (digits, size) = unit.unwrap_or((text, 1));
    let number =
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    number
        .and_then(|number| number.checked_mul(size))
        .ok_or_else(|| format!("{text:?} is not a number of bytes; write it like 10Mi, or 0 for no limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_kubernetes_writes_them() {
        for (text, number) in
            [("0", 0), ("512", 512), ("64Ki", 65_536), ("10Mi", 10 << 20), ("2Gi", 2 << 30), ("3k", 3_000)]
        {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        assert_eq!((bytes("5M"), bytes("1G")), (Ok(5_000_000), Ok(1_000_000_000)));
        for text in
            ["", "Ki", "-1", "+1", "1.5Mi", "1 Mi", "1mi", "1Ti", "99999999999999999999", "99999999999Gi0"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(bytes("999999999999Gi").is_err(), "more than can be counted");
    }
}
