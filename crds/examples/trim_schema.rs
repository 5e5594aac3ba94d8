//! Reads a CustomResourceDefinition as YAML from stdin and writes as JSON what `headgate run -f` needs of it: names and
//! the structural schema, without descriptions and CEL rules. `hack/gen.sh` calls it.

use serde_json::{Map, Value, json};
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
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
    let trimmed = json!({
        "group": spec["group"],
        "kind": spec["names"]["kind"],
        "namespaced": spec["scope"] == "Namespaced",
        "versions": names,
        "schema": newest,
    });
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &trimmed)?;
    writeln!(out)?;
    Ok(())
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
