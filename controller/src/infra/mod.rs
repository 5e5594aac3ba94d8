//! What a Gateway needs around it in a cluster: a Service that has its address, and EndpointSlices that name our pods.
//!
//! Plans only: pure functions from what exists to what should. [`crate::writer`] does the writing. The leader plans
//! Services, because it gives out ports; every replica plans EndpointSlices, so that a lost leader leaves no dead endpoint
//! behind.

mod endpoint_slice;
mod ports;
mod service;

pub use endpoint_slice::endpoint_slices;
pub use ports::Ports;
pub use service::{Services, services};

use crate::settings::Settings;
use headgate_crds::ServiceParameters;
use headgate_proxy::model::ObjectName;
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// The label by which Services and EndpointSlices say which installation made them.
pub const CONTROLLER: &str = "headgate.dev/controller";

/// How Gateways are put in place where neither class nor Gateway says.
#[derive(Clone, Debug)]
pub struct Infrastructure {
    /// Ports on our pods that are given to ports of Gateways.
    pub ports: RangeInclusive<u16>,
    /// Services.
    pub service: ServiceParameters,
}

/// The value of [`CONTROLLER`]: a `controllerName` as a label can have it.
fn controller_label(settings: &Settings) -> String {
    crate::naming::label_value(&settings.controller_name.replace('/', "_"))
}

/// An ownerReference: with the owner goes what it owns.
fn owner(api_version: &str, kind: &str, name: &ObjectName, uid: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": &*name.name, "uid": uid,
        "controller": true, "blockOwnerDeletion": false,
    })
}

/// Whether an object says all that another says, and no more in its lists: then applying the other changes nothing.
pub(crate) fn says(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| match present.get(key) {
                Some(present) => says(present, wanted),
                None => wanted.as_object().is_some_and(Map::is_empty),
            })
        }
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len()
                && present.iter().zip(wanted).all(|(present, wanted)| says(present, wanted))
        }
        (present, wanted) => present == wanted,
    }
}

#[cfg(test)]
mod tests;
