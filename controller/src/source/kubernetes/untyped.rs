//! An object as the API server sends it. Its kind reads it ([`Kind::decode`](crate::cluster::Kind::decode)), so that one that
//! can't be read costs nobody else in its list anything, and that all kinds share the code of one watch.

use crate::cluster::{LAST_APPLIED, name_of};
use headgate_proxy::model::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// An object of any kind.
#[derive(Clone, Debug)]
pub(super) struct Untyped {
    /// Name, namespace and version.
    metadata: ObjectMeta,
    /// The object as JSON, without what no kind reads.
    pub(super) json: Vec<u8>,
}

impl Untyped {
    /// Namespace and name.
    pub(super) fn name(&self) -> ObjectName {
        name_of(self)
    }
}

impl<'de> Deserialize<'de> for Untyped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut object = Self { metadata: ObjectMeta::default(), json: Vec::new() };
        Copy { object: &mut object, place: Place::Object }.deserialize(from)?;
        Ok(object)
    }
}

/// Where in an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Metadata,
    Annotations,
    Name,
    Namespace,
    Version,
    Elsewhere,
    /// In what no kind reads.
    Unread,
}

impl Place {
    fn field(self, name: &str) -> Self {
        match (self, name) {
            (Self::Object, "metadata") => Self::Metadata,
            (Self::Metadata, "annotations") => Self::Annotations,
            (Self::Metadata, "name") => Self::Name,
            (Self::Metadata, "namespace") => Self::Namespace,
            (Self::Metadata, "resourceVersion") => Self::Version,
            (Self::Metadata, "managedFields") | (Self::Annotations, LAST_APPLIED) => Self::Unread,
            (_, _) => Self::Elsewhere,
        }
    }
}

/// Writes what it reads as JSON, but for half of an object's bytes: who wrote which field, and what `kubectl apply` notes
/// down.
struct Copy<'a> {
    object: &'a mut Untyped,
    place: Place,
}

impl Copy<'_> {
    fn write<E: serde::de::Error>(self, value: impl Serialize) -> Result<(), E> {
        serde_json::to_writer(&mut self.object.json, &value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Copy<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.write(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        self.object.json.push(b'[');
        let first = self.object.json.len();
        loop {
            let before = self.object.json.len();
            if before > first {
                self.object.json.push(b',');
            }
            if from.next_element_seed(Copy { object: self.object, place: Place::Elsewhere })?.is_none() {
                self.object.json.truncate(before);
                break;
            }
        }
        self.object.json.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        self.object.json.push(b'{');
        let first = self.object.json.len();
        loop {
            let before = self.object.json.len();
            if before > first {
                self.object.json.push(b',');
            }
            let Some(place) = from.next_key_seed(Field(Copy { object: self.object, ..self }))? else {
                self.object.json.truncate(before);
                break;
            };
            if place == Place::Unread {
                self.object.json.truncate(before);
                from.next_value::<IgnoredAny>()?;
                continue;
            }
            self.object.json.push(b':');
            let value = self.object.json.len();
            from.next_value_seed(Copy { object: self.object, place })?;
            self.object.note(place, value);
        }
        self.object.json.push(b'}');
        Ok(())
    }
}

/// Writes the name of a field, and says where its value is.
struct Field<'a>(Copy<'a>);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Place;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Place, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Field<'_> {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Place, E> {
        let place = self.0.place.field(name);
        self.0.write(name)?;
        Ok(place)
    }
}

impl Untyped {
    /// Keeps what its name and version are made of: the JSON from there on.
    fn note(&mut self, place: Place, value: usize) {
        let to = match place {
            Place::Name => &mut self.metadata.name,
            Place::Namespace => &mut self.metadata.namespace,
            Place::Version => &mut self.metadata.resource_version,
            Place::Object | Place::Metadata | Place::Annotations | Place::Elsewhere | Place::Unread => return,
        };
        // What is no text, its kind refuses.
        *to = serde_json::from_slice(&self.json[value..]).ok();
    }
}

impl Resource for Untyped {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn copied(value: &Value) -> (Untyped, Value) {
        let object: Untyped = serde_json::from_str(&value.to_string()).unwrap();
        let json = serde_json::from_slice(&object.json).unwrap();
        (object, json)
    }

    #[test]
    fn what_nobody_reads_is_left_out() {
        let noted = json!({"a": "1", LAST_APPLIED: "{}", "managedFields": "here a name like any other"});
        let (object, json) = copied(&json!({
            "managedFields": [{}],
            "metadata": {"managedFields": [{"f:a": {}}], "name": "n", "annotations": noted, "namespace": "ns", "resourceVersion": "7"},
            "spec": {"metadata": {"managedFields": [], "name": "other"}, LAST_APPLIED: 1},
        }));
        assert_eq!(
            json,
            json!({
                "managedFields": [{}],
                "metadata": {
                    "name": "n", "namespace": "ns", "resourceVersion": "7",
                    "annotations": {"a": "1", "managedFields": "here a name like any other"},
                },
                "spec": {"metadata": {"managedFields": [], "name": "other"}, LAST_APPLIED: 1},
            })
        );
        assert_eq!(object.name(), ObjectName::new("ns", "n"));
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
        assert_eq!(copied(&json!({"metadata": {"managedFields": []}})).1, json!({"metadata": {}}));
    }

    #[test]
    fn a_name_that_is_no_text_is_left_to_its_kind() {
        for broken in [json!({"metadata": {"name": 5}}), json!({"metadata": "m"}), json!(["x"]), json!(null)]
        {
            let (object, json) = copied(&broken);
            assert_eq!((object.name(), json), (ObjectName::new("", ""), broken));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Few digits: serde_json rounds where there are many.
            any::<i32>().prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn all_else_is_as_it_came(value in any_json()) {
            prop_assert_eq!(copied(&value).1, value);
        }
    }
}
