//! What the definitions tell and bound: `kubectl explain` of every field, `kubectl get`, and the API server's cost limits.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use serde_json::Value;
use std::collections::BTreeSet;

fn definitions() -> Vec<Value> {
    headgate_crds::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect()
}

fn kind(crd: &Value) -> String {
    crd["spec"]["names"]["kind"].as_str().unwrap().to_owned()
}

fn schema(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Looks at a schema and all that are in it, each with its path.
fn walk(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Value)) {
    see(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, see);
    }
    for (part, mark) in [("items", "[]"), ("additionalProperties", "[*]")] {
        if schema[part].is_object() {
            walk(&format!("{path}{mark}"), &schema[part], see);
        }
    }
}

/// What `see` finds wrong, anywhere.
fn wrong(part: &str, see: impl Fn(&Value) -> Option<&'static str>) -> Vec<String> {
    let mut wrong = Vec::new();
    for crd in definitions() {
        let mut note = |path: &str, schema: &Value| {
            wrong.extend(see(schema).map(|why| format!("{} {path}: {why}", kind(&crd))));
        };
        walk(part, &schema(&crd)["properties"][part], &mut note);
    }
    wrong
}

#[test]
fn every_field_is_explained() {
    let unexplained = |schema: &Value| {
        let fields = schema["properties"].as_object()?;
        let has_none =
            |field: &Value| field["description"].as_str().is_none_or(|text| text.trim().is_empty());
        fields.values().any(has_none).then_some("a field has no description")
    };
    for part in ["spec", "status"] {
        assert_eq!(wrong(part, unexplained), [""; 0]);
    }
    for crd in definitions() {
        assert!(schema(&crd)["description"].as_str().unwrap().len() > 40, "{}", kind(&crd));
    }
}

/// What isn't bounded costs the API server as much as a request may hold, in each rule that looks at it.
#[test]
fn everything_is_bounded() {
    let unbounded = wrong("spec", |schema| {
        let has = |bound: &str| !schema[bound].is_null();
        match schema["type"].as_str()? {
            "string" if !(has("enum") || has("maxLength") || is_finite(schema["pattern"].as_str())) => {
                Some("a text without maxLength, enum or finite pattern")
            }
            "array" if !has("maxItems") => Some("a list without maxItems"),
            "object" if schema["additionalProperties"].is_object() && !has("maxProperties") => {
                Some("a map without maxProperties")
            }
            "integer" if !(has("minimum") && has("maximum")) => Some("a number without minimum and maximum"),
            "number" => Some("a number with a fraction: a whole one of a smaller unit is exact"),
            _ => None,
        }
    });
    assert_eq!(unbounded, [""; 0]);
}

/// Whether what a pattern takes has an end.
fn is_finite(pattern: Option<&str>) -> bool {
    pattern.is_some_and(|text| text.starts_with('^') && text.ends_with('$') && !text.contains(['*', '+']))
}

#[test]
fn every_rule_says_what_to_write_instead() {
    let silent = wrong("spec", |schema| {
        let rules = schema["x-kubernetes-validations"].as_array()?;
        let told = |rule: &Value| rule["message"].as_str().is_some_and(|text| text.len() > 10);
        (!rules.iter().all(told)).then_some("a rule has no message")
    });
    assert_eq!(silent, [""; 0]);
}

#[test]
fn kubectl_get_shows_what_they_are_for_and_whether_it_holds() {
    let mut short_names = BTreeSet::new();
    for crd in definitions() {
        let names = &crd["spec"]["names"];
        let own = names["shortNames"].as_array().unwrap();
        assert!(own.iter().all(|name| short_names.insert(name.as_str().unwrap().to_owned())), "{names}");
        let categories = names["categories"].as_array().unwrap();
        assert!(categories.contains(&"headgate".into()), "{names}");
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
        let titles: Vec<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        match &*kind(&crd) {
            "GatewayParameters" => assert_eq!(titles, ["Service", "Age"]),
            policy => {
                assert!(categories.contains(&"gateway-api".into()), "{names}");
                assert_eq!(titles, ["Kind", "Target", "Accepted", "Programmed", "Age"], "{policy}");
            }
        }
        for column in columns {
            let path = column["jsonPath"].as_str().unwrap();
            assert!(leads_somewhere(path, schema(&crd)), "{} {path}", kind(&crd));
        }
    }
}

/// Whether a column's path names fields of the schema.
fn leads_somewhere(path: &str, mut schema: &Value) -> bool {
    if path == ".metadata.creationTimestamp" {
        return true;
    }
    let bare = path.replace("[?(@.type==\"Accepted\")]", "[0]").replace("[?(@.type==\"Programmed\")]", "[0]");
    for name in bare.split('.').skip(1) {
        schema = &schema["properties"][name.trim_end_matches("[0]")];
        if name.ends_with("[0]") {
            schema = &schema["items"];
        }
    }
    schema["type"].is_string()
}
