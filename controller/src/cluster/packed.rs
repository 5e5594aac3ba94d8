//! Objects of which there are thousands, as bytes: unpacked for the moment in which somebody reads them.
//!
//! A route's type has room for every field of every filter, a dozen times what a route says. What is looked at once for each
//! change is kept as JSON instead, and its status, which changes alone, apart from it. Must not know what is in an object.

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
        write!(f, "{} {}", self.name, String::from_utf8_lossy(&self.body))
    }
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it came as JSON")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes).expect("it was packed by the same type")
}
