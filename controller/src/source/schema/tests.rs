use super::*;
use crate::source::catalog;
use serde_json::json;

fn schema(json: Value) -> Schema {
    Schema::new(json).expect("a schema")
}

fn completed(schema: &Schema, mut value: Value) -> Value {
    schema.complete(&mut value);
    value
}

fn wrong(json: Value, value: &Value) -> Vec<String> {
    schema(json).check(value).into_iter().map(|problem| problem.message).collect()
}

#[test]
fn defaults_are_put_where_nothing_is() {
    let port = json!({"type": "object", "properties": {
        "protocol": {"type": "string", "default": "TCP"},
        "weight": {"type": "integer", "default": 1, "nullable": true},
    }});
    let schema = schema(json!({"type": "object", "properties": {
        "ports": {"type": "array", "items": port},
        "from": {"type": "object", "default": {}, "properties": {"namespaces": {"type": "string", "default": "Same"}}},
        "absent": {"type": "object", "properties": {"never": {"type": "string", "default": "x"}}},
    }}));
    let value =
        json!({"ports": [{}, {"protocol": "UDP"}, {"protocol": null, "weight": null}], "unknown": null});
    assert_eq!(
        completed(&schema, value),
        json!({
            "ports": [
                {"protocol": "TCP", "weight": 1},
                {"protocol": "UDP", "weight": 1},
                // `null` is a value only where it may be.
                {"protocol": "TCP", "weight": null},
            ],
            // What a default brings is completed too.
            "from": {"namespaces": "Same"},
            "unknown": null,
        })
    );
}

/// What translation relies on: fields that a cluster's API server fills in.
#[test]
fn an_http_route_gets_what_an_api_server_gives_it() {
    let entry = catalog::find("gateway.networking.k8s.io", "HTTPRoute").expect("the kind");
    let route = completed(
        &entry.schema,
        json!({"spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "b", "port": 80}]}]}}),
    );
    let spec = &route["spec"];
    assert_eq!(
        spec["parentRefs"][0],
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"})
    );
    assert_eq!(spec["rules"][0]["matches"], json!([{"path": {"type": "PathPrefix", "value": "/"}}]));
    assert_eq!(
        spec["rules"][0]["backendRefs"][0],
        json!({"group": "", "kind": "Service", "name": "b", "port": 80, "weight": 1})
    );
    let bare = completed(&entry.schema, json!({"spec": {}}));
    assert_eq!(bare["spec"]["rules"], json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]));
}

/// Each (schema, value) gives exactly this message.
fn assert_messages<const N: usize>(cases: [(Value, Value, &str); N]) {
    for (schema, value, message) in cases {
        assert_eq!(wrong(schema.clone(), &value), [message], "{schema} {value}");
    }
}

#[test]
fn rules_of_text_have_messages() {
    let text = |rule: Value| {
        let mut schema = json!({"type": "string"});
        schema.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        schema
    };
    assert_messages([
        (
            text(json!({"enum": ["A", "B"]})),
            json!("C"),
            "object: Unsupported value: \"C\": supported values: \"A\", \"B\"",
        ),
        (text(json!({"pattern": "^a+$"})), json!("b"), "object: Invalid value: \"b\": should match '^a+$'"),
        (text(json!({"maxLength": 2})), json!("äöü"), "object: Too long: may not be more than 2 characters"),
        (
            text(json!({"minLength": 1})),
            json!(""),
            "object: Invalid value: \"\": should be at least 1 characters long",
        ),
        (
            text(json!({"format": "ipv4"})),
            json!("::1"),
            "object: Invalid value: \"::1\": must be an IPv4 address",
        ),
        (
            text(json!({"format": "date-time"})),
            json!("now"),
            "object: Invalid value: \"now\": must be a time as in RFC 3339",
        ),
        (text(json!({"format": "byte"})), json!("(canary)"), "object: Invalid value: must be base64"),
    ]);
}

#[test]
fn rules_of_types_and_numbers_have_messages() {
    assert_messages([
        (
            json!({"type": "integer"}),
            json!("80"),
            "object: Invalid value: must be of type integer, not string",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "object: Invalid value: must be of type integer, not number",
        ),
        (json!({"type": "object"}), json!([]), "object: Invalid value: must be of type object, not array"),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "object: Invalid value: must be of type integer or string, not boolean",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "object: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 9}),
            json!(10),
            "object: Invalid value: 10: should be less than or equal to 9",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(1_u64 << 40),
            "object: Invalid value: 1099511627776: must be a 32-bit integer",
        ),
    ]);
}

#[test]
fn rules_of_lists_and_objects_have_messages() {
    assert_messages([
        (
            json!({"type": "array", "maxItems": 1}),
            json!([1, 2]),
            "object: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "minItems": 1}),
            json!([]),
            "object: Invalid value: 0: should have at least 1 items",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            "[2]: Duplicate value: \"a\"",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
            json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
            "[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (json!({"type": "object", "required": ["name"]}), json!({}), "name: Required value"),
        (
            json!({"type": "object", "maxProperties": 1}),
            json!({"a": 1, "b": 2}),
            "object: Too many: 2: must have at most 1 items",
        ),
        (json!({"type": "object", "properties": {"a": {}}}), json!({"b": 1}), "unknown field \"b\""),
    ]);
}

#[test]
fn rules_of_forms_have_messages() {
    assert_messages([
        (
            json!({"not": {"required": ["a"]}}),
            json!({"a": 1}),
            "object: Invalid value: {\"a\":1}: is what it must not be",
        ),
        (
            json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 1}),
            "object: Invalid value: {\"a\":1,\"b\":1}: fits 2 forms, and may fit one only",
        ),
        (json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}), json!({}), "a: Required value"),
    ]);
}

#[test]
fn what_is_right_has_no_message() {
    let cases = [
        (json!({"type": "string", "nullable": true, "minLength": 1}), json!(null)),
        (json!({"x-kubernetes-int-or-string": true}), json!("http")),
        (json!({"x-kubernetes-int-or-string": true}), json!(80)),
        (
            json!({"type": "object", "properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"b": 1}),
        ),
        (json!({"type": "object", "additionalProperties": {"type": "string"}}), json!({"any": "text"})),
        (json!({"type": "object"}), json!({"any": 1})),
        (json!({"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}], "type": "string"}), json!("::1")),
        (json!({"type": "array", "x-kubernetes-list-type": "atomic"}), json!([1, 1])),
    ];
    for (schema, value) in cases {
        assert_eq!(wrong(schema.clone(), &value), [] as [String; 0], "{schema} {value}");
    }
}

#[test]
fn problems_have_paths() {
    let json = json!({"type": "object", "properties": {"rules": {"type": "array", "items": {
        "type": "object", "properties": {"port": {"type": "integer"}}}}}});
    let problems = schema(json).check(&json!({"rules": [{}, {"port": "x", "prot": 1}]}));
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "rules[1].port: Invalid value: must be of type integer, not string",
            "unknown field \"rules[1].prot\"",
        ]
    );
    assert_eq!(problems[0].path, Path::default().field("rules").join(Step::Item(1)).field("port"));
}

/// A pattern that can't be compiled would let everything pass.
#[test]
fn all_patterns_of_all_kinds_can_be_compiled() {
    fn visit(schema: &Schema, patterns: &mut usize) {
        if let Some(pattern) = &schema.pattern {
            assert!(pattern.compiled().is_some(), "{}", pattern.text);
            *patterns += 1;
        }
        let additional = match &schema.additional_properties {
            Some(Additional::Schema(schema)) => Some(&**schema),
            Some(Additional::Allowed(_)) | None => None,
        };
        let lists = [&schema.all_of, &schema.any_of, &schema.one_of].into_iter().flatten();
        let single = [schema.items.as_deref(), schema.not.as_deref(), additional].into_iter().flatten();
        schema.properties.values().chain(lists).chain(single).for_each(|inner| visit(inner, patterns));
    }
    let mut patterns = 0;
    catalog::entries().iter().for_each(|entry| visit(&entry.schema, &mut patterns));
    assert!(patterns > 40, "{patterns}");
}
