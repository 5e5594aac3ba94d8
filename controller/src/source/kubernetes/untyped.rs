//! An object as the API server sends it. Its kind reads it ([`Kind::decode`](crate::cluster::Kind::decode)), so that one that
//! can't be read costs nobody else in its list anything, and that all kinds share the code of one watch.

use crate::cluster::name_of;
use headgate_proxy::model::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// An object of any kind.
#[derive(Clone, Debug)]
pub(super) struct Untyped {
    /// Name, namespace and version.
    metadata: ObjectMeta,
    /// All of it.
    pub(super) json: Value,
}

impl Untyped {
    /// Namespace and name.
    pub(super) fn name(&self) -> ObjectName {
        name_of(self)
    }
}

impl<'de> Deserialize<'de> for Untyped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(from)?;
        let text = |field: &str| json.get("metadata")?.get(field)?.as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, json })
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
