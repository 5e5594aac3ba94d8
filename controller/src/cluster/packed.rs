//! Objects of which there are thousands, as bytes: unpacked for the moment in which somebody reads them.
//!
//! A route's type has room for every field of every filter, a dozen times what a route says. What is looked at once for each
//! change is kept as JSON instead, compressed, and its status, which changes alone, apart from it.

use super::object::{Kept, Watched, name_of};
use crate::api::route::RouteStatus;
use headgate_proxy::model::ObjectName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A kind whose objects are kept packed.
pub trait Pack: Watched + Serialize + DeserializeOwned {
    /// Takes its status out, if it has one that is read.
    fn take_status(&mut self) -> Option<RouteStatus> {
        None
    }
}

/// An object, packed.
pub struct Packed<K> {
    name: ObjectName,
    resource_version: Option<Box<str>>,
    /// All of it but version and status.
    body: Body,
    status: Option<Box<[u8]>>,
    kind: PhantomData<fn() -> K>,
}

/// What an object says. The same as long as it says the same.
pub type Body = Arc<[u8]>;

impl<K: Pack> From<K> for Packed<K> {
    fn from(mut object: K) -> Self {
        let name = name_of(&object);
        let status = object.take_status().map(|status| bytes(&status).into());
        let resource_version = object.meta_mut().resource_version.take().map(Into::into);
        Self { name, resource_version, body: bytes(&object).into(), status, kind: PhantomData }
    }
}

impl<K: Pack> Packed<K> {
    /// The object, without version and status.
    pub fn unpack(&self) -> K {
        read(&self.body)
    }

    /// Its status.
    pub fn status(&self) -> Option<RouteStatus> {
        self.status.as_deref().map(read)
    }

    /// What it says, to be told from what it said before by the pointer.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Whether it says what another version says, beside its status.
    pub fn says(&self, before: &Self) -> bool {
        self.body == before.body
    }
}

impl<K: Pack> Kept for Packed<K> {
    fn name(&self) -> ObjectName {
        self.name.clone()
    }

    fn version(&self) -> Option<&str> {
        self.resource_version.as_deref()
    }

    fn is_like(&self, before: &Self) -> bool {
        self.says(before) && self.status == before.status
    }

    fn share(self: &mut Arc<Self>, before: &Self) {
        if self.says(before) {
            Arc::make_mut(self).body = before.body.clone();
        }
    }

    fn take_name(self: &mut Arc<Self>, name: &ObjectName) {
        Arc::make_mut(self).name = name.clone();
    }
}

impl<K> Clone for Packed<K> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            resource_version: self.resource_version.clone(),
            body: self.body.clone(),
            status: self.status.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Packed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, String::from_utf8_lossy(&text(&self.body)))
    }
}

/// What objects have in common, so that only what is their own takes room: names of fields, values that are usual, and what
/// we write into statuses. Whatever it says, objects come out as they went in.
const COMMON: &str = concat!(
    r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GRPCRoute","kind":"HTTPRoute","metadata":{"creationTimestamp":"#,
    r#""2026-01-01T00:00:00Z","generation":1,"name":"","namespace":"default"},"spec":{"hostnames":["www.example.com"],"#,
    r#""parentRefs":[{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"gateway","namespace":"infra","#,
    r#""sectionName":"https"}],"rules":[{"name":"","backendRefs":[{"group":"","kind":"Service","name":"service","#,
    r#""namespace":"default","port":8080,"weight":1}],"filters":[{"requestHeaderModifier":{"add":[],"remove":[],"#,
    r#""set":[{"name":"x-","value":""}]},"type":"RequestHeaderModifier"},{"responseHeaderModifier":{"set":[]},"#,
    r#""type":"ResponseHeaderModifier"},{"requestRedirect":{"scheme":"https","statusCode":301},"type":"RequestRedirect"},"#,
    r#"{"type":"URLRewrite","urlRewrite":{"hostname":"","path":{"replacePrefixMatch":"/","type":"ReplacePrefixMatch"}}}],"#,
    r#""matches":[{"headers":[{"name":"","type":"Exact","value":""}],"method":"GET","path":{"type":"Exact","value":"/"}},"#,
    r#"{"path":{"type":"PathPrefix","value":"/api"}}],"timeouts":{"backendRequest":"10s","request":"10s"}}]}}"#,
    r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"#,
    r#""conditions":{"ready":true},"targetRef":{"kind":"Pod","name":""}},{"conditions":{"ready":false,"serving":true},"#,
    r#""metadata":{"generateName":"","generation":1,"labels":{"kubernetes.io/service-name":""}},"#,
    r#""ports":[{"appProtocol":"http","name":"http","port":8080,"protocol":"TCP"}]}"#,
    r#"{"parents":[{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the route is attached","#,
    r#""observedGeneration":1,"reason":"Accepted","status":"True","type":"Accepted"},{"lastTransitionTime":"2026-01-01T00:00:00Z","#,
    r#""message":"all references are resolved","observedGeneration":1,"reason":"ResolvedRefs","status":"True","#,
    r#""type":"ResolvedRefs"}],"controllerName":"headgate.dev/gateway-controller","parentRef":{"group":"gateway.networking.k8s.io","#,
    r#""kind":"Gateway","name":"gateway","namespace":"infra"}}]}"#,
);

fn bytes(value: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("it came as JSON");
    lz4_flex::block::compress_prepend_size_with_dict(&json, COMMON.as_bytes())
}

fn text(bytes: &[u8]) -> Vec<u8> {
    lz4_flex::block::decompress_size_prepended_with_dict(bytes, COMMON.as_bytes())
        .expect("it was packed here")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice(&text(bytes)).expect("it was packed by the same type")
}
