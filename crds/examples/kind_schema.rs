//! Writes as JSON what `headgate run -f` needs of a kind: names and the structural schema, without descriptions and CEL
//! rules. `hack/gen.sh` calls it.
//!
//! The kind is one with a CustomResourceDefinition, which is read as YAML from stdin, or one that is built into Kubernetes, whose
//! name is the argument. Those have no schema: theirs is made of the k8s-openapi types, which know names and types of fields,
//! and of rules and default values as far as they matter here.

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn Error>> {
    let kind = match std::env::args().nth(1).as_deref() {
        None => defined(&mut std::io::stdin())?,
        Some("Namespace") => built_in::<Namespace>(false, &[])?,
        Some("Service") => {
            let types = json!({"default": "ClusterIP", "enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]});
            built_in::<Service>(
                true,
                &[
                    ("/spec/type", types),
                    ("/spec/ports/*/protocol", protocol()),
                    ("/spec/ports/*/port", port()),
                ],
            )?
        }
        Some("EndpointSlice") => {
            let rules = [
                ("/addressType", json!({"enum": ["IPv4", "IPv6", "FQDN"]})),
                ("/endpoints", json!({"maxItems": 1000})),
                ("/endpoints/*/addresses", json!({"minItems": 1, "maxItems": 100})),
                ("/ports/*/name", json!({"default": ""})),
                ("/ports/*/protocol", protocol()),
                ("/ports/*/port", port()),
            ];
            built_in::<EndpointSlice>(true, &rules)?
        }
        Some("Secret") => built_in::<Secret>(true, &[("/type", json!({"default": "Opaque"}))])?,
        Some("ConfigMap") => built_in::<ConfigMap>(true, &[])?,
        Some("ClusterTrustBundle") => built_in::<ClusterTrustBundle>(false, &[])?,
        // What all kinds have; a CRD leaves it to the API server.
        Some("ObjectMeta") => schema_of::<ObjectMeta>(),
        Some(other) => return Err(format!("{other} is none of the kinds that files may hold").into()),
    };
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &kind)?;
    writeln!(out)?;
    Ok(())
}

/// Of a kind that a CRD defines.
fn defined(from: &mut impl Read) -> Result<Value, Box<dyn Error>> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    let crd: Value = serde_yaml_ng::from_str(&text)?;
    let spec = &crd["spec"];
    let served: Vec<&Value> = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true)
        .collect();
    let schema = |version: &Value| trim(&version["schema"]["openAPIV3Schema"]);
    // The newest comes first in these files; older ones that say the same share its schema.
    let newest = schema(served.first().ok_or("no version is served")?);
    let names: Vec<&Value> =
        served.iter().filter(|version| schema(version) == newest).map(|version| &version["name"]).collect();
    Ok(json!({
        "group": spec["group"],
        "kind": spec["names"]["kind"],
        "namespaced": spec["scope"] == "Namespaced",
        "versions": names,
        "schema": newest,
    }))
}

fn port() -> Value {
    json!({"minimum": 1, "maximum": 65535})
}

fn protocol() -> Value {
    json!({"default": "TCP", "enum": ["TCP", "UDP", "SCTP"]})
}

/// Of a kind that is built into Kubernetes, with what its API server adds to fields: where, and what.
fn built_in<K>(namespaced: bool, rules: &[(&str, Value)]) -> Result<Value, Box<dyn Error>>
where
    K: Resource<DynamicType = ()> + JsonSchema,
{
    let mut schema = schema_of::<K>();
    for (path, rules) in rules {
        let mut at = &mut schema;
        for step in path.split('/').skip(1) {
            at = match step {
                "*" => &mut at["items"],
                field => &mut at["properties"][field],
            };
        }
        let at = at.as_object_mut().ok_or_else(|| format!("no such field: {path}"))?;
        at.extend(rules.as_object().cloned().unwrap_or_default());
    }
    // As all kinds have it.
    schema["properties"].as_object_mut().ok_or("a kind has fields")?.remove("metadata");
    Ok(json!({
        "group": K::group(&()),
        "kind": K::kind(&()),
        "namespaced": namespaced,
        "versions": [K::version(&())],
        "schema": schema,
    }))
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    trim(&settings.into_generator().into_root_schema_for::<T>().to_value())
}

fn trim(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else { return schema.clone() };
    let mut trimmed = Map::new();
    for (key, value) in fields {
        let value = match key.as_str() {
            "description" | "x-kubernetes-validations" | "title" => continue,
            // Names in here are fields, not keywords.
            "properties" => value.as_object().map_or(Value::Null, |properties| {
                properties.iter().map(|(name, schema)| (name.clone(), trim(schema))).collect()
            }),
            "items" | "additionalProperties" | "not" => trim(value),
            "allOf" | "anyOf" | "oneOf" => value.as_array().into_iter().flatten().map(trim).collect(),
            _ => value.clone(),
        };
        trimmed.insert(key.clone(), value);
    }
    trimmed.into()
}
