//! What a token's claims say of a client: its name, and fields for the backend.

use super::json::Object;
use super::{Identity, Known, told_by};
use crate::model::{ClaimToHeader, Text};
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// Which claims say something.
#[derive(Debug)]
pub(super) struct ClaimFields {
    consumer: Text,
    fields: Box<[(Text, HeaderName)]>,
}

impl ClaimFields {
    pub(super) fn compile(consumer: &Text, fields: &[ClaimToHeader]) -> Result<Self, String> {
        let field = |(n, from): (usize, &ClaimToHeader)| {
            let name = told_by(&format!("claimsToHeaders[{n}].header"), &from.header)?;
            Ok((from.claim.clone(), name))
        };
        let fields = fields.iter().enumerate().map(field).collect::<Result<_, String>>()?;
        Ok(Self { consumer: consumer.clone(), fields })
    }

    /// Fields that are set.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.fields.iter().map(|(_, name)| name)
    }

    /// Whom these claims are of.
    pub(super) fn of(&self, claims: Arc<Object>) -> Told {
        let mut identity = Identity { consumer: None, claims: Some(claims) };
        identity.consumer = identity.claim(&self.consumer).and_then(Value::as_str).map(Into::into);
        let fields = self.fields.iter().enumerate();
        let fields = fields.filter_map(|(n, (claim, _))| Some((n, value(identity.claim(claim)?)?))).collect();
        Told { identity, fields }
    }

    /// The same, as it counts for a request.
    pub(super) fn known(&self, told: &Told) -> Known<'_> {
        let fields = told.fields.iter().map(|(n, value)| (&self.fields[*n].1, value.clone())).collect();
        Known { identity: told.identity.clone(), fields, ..Known::default() }
    }
}

/// What claims say to one [`ClaimFields`].
#[derive(Debug)]
pub(super) struct Told {
    identity: Identity,
    /// By position among its fields.
    fields: Box<[(usize, HeaderValue)]>,
}

/// A claim as the value of a field: text, numbers, true and false, and lists of them with commas. A claim with controls
/// never becomes a field (security.md §6).
fn value(claim: &Value) -> Option<HeaderValue> {
    fn text(value: &Value) -> Option<Cow<'_, str>> {
        match value {
            Value::String(text) => Some(text.into()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
    let text = match claim {
        Value::Array(list) => list.iter().map(text).collect::<Option<Vec<_>>>()?.join(",").into(),
        Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Null | Value::Object(_) => text(claim)?,
    };
    if text.chars().any(char::is_control) {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_become_fields_unless_they_could_be_more_than_one() {
        for (claim, field) in [
            (json!("alice"), Some("alice")),
            (json!(7), Some("7")),
            (json!(true), Some("true")),
            (json!(["a", 1]), Some("a,1")),
            (json!("a\r\nx-admin: 1"), None),
            (json!("a\u{85}"), None),
            (json!({"a": 1}), None),
            (json!([["a"]]), None),
            (json!(null), None),
        ] {
            assert_eq!(value(&claim).as_ref().map(|value| value.to_str().unwrap()), field, "{claim}");
        }
        assert_eq!(value(&json!("Zoë")).unwrap().as_bytes(), "Zoë".as_bytes());
    }
}
