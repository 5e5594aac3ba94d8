//! An object of which it may turn out that it can't be read: that costs nobody else in its list anything.
//!
//! As kube's `DeserializeGuard`, but by way of the JSON values that files are read as: every kind is read in one way less, which
//! is megabytes of code.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// An object, or what is known of one that can't be read.
#[derive(Clone, Debug)]
pub(super) struct Guarded<K>(pub(super) Result<K, Broken>);

/// An object that can't be read.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    /// Name, namespace and version.
    pub(super) metadata: ObjectMeta,
    /// What is wrong with it.
    pub(super) why: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let text = |field: &str| value.get("metadata")?.get(field)?.as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        let read = serde_json::from_value(value);
        Ok(Self(read.map_err(|error| Broken { metadata, why: error.to_string() })))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|broken| &broken.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|broken| &mut broken.metadata, K::meta_mut)
    }
}
