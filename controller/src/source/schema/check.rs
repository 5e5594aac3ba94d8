//! What is wrong with a value, keyword by keyword.

use super::{Additional, Path, Problem, Schema, Step, Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Values are quoted in messages up to here, in characters.
const QUOTED: usize = 80;

impl Schema {
    pub(super) fn visit(&self, value: &Value, path: &Path, problems: &mut Vec<Problem>) {
        if value.is_null() && self.nullable {
            return;
        }
        if !self.has_type(value) {
            let wanted = self.kind.map_or("integer or string", Type::name);
            let mut message = format!("Invalid value: must be of type {wanted}, not {}", type_name(value));
            if self.kind == Some(Type::String) && (value.is_boolean() || value.is_number()) {
                message.push_str("; put it in quotes");
            }
            problems.push(Problem::new(path, message));
            return;
        }
        if !self.one_of_values.is_empty() && !self.one_of_values.contains(value) {
            let known: Vec<String> = self.one_of_values.iter().map(quoted).collect();
            let message =
                format!("Unsupported value: {}: supported values: {}", quoted(value), known.join(", "));
            problems.push(Problem::new(path, message));
        }
        let mut invalid = |message: String| problems.push(Problem::new(path, message));
        match value {
            Value::String(text) => self.visit_text(text, &mut invalid),
            Value::Number(number) => {
                self.visit_number(number.as_f64().unwrap_or_default(), value, &mut invalid)
            }
            Value::Array(items) => self.visit_items(items, path, problems),
            Value::Object(fields) => self.visit_fields(fields, path, problems),
            Value::Null | Value::Bool(_) => {}
        }
        self.visit_branches(value, path, problems);
    }

    fn has_type(&self, value: &Value) -> bool {
        if self.int_or_string {
            return value.is_i64() || value.is_u64() || value.is_string();
        }
        let Some(kind) = self.kind else { return true };
        match kind {
            Type::Object => value.is_object(),
            Type::Array => value.is_array(),
            Type::String => value.is_string(),
            Type::Integer => value.is_i64() || value.is_u64(),
            Type::Number => value.is_number(),
            Type::Boolean => value.is_boolean(),
        }
    }

    fn visit_text(&self, text: &str, invalid: &mut dyn FnMut(String)) {
        let shown = quoted(&Value::from(text));
        let length = text.chars().count();
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            invalid(format!("Too long: may not be more than {max} characters"));
        }
        if let Some(min) = self.min_length.filter(|min| length < *min) {
            invalid(format!("Invalid value: {shown}: should be at least {min} characters long"));
        }
        if let Some(pattern) = &self.pattern
            && pattern.compiled().is_some_and(|regex| !regex.is_match(text))
        {
            invalid(format!("Invalid value: {shown}: should match '{}'", pattern.text));
        }
        let wrong = match self.format.as_deref() {
            Some("ipv4") => text.parse::<Ipv4Addr>().is_err().then_some("an IPv4 address"),
            Some("ipv6") => text.parse::<Ipv6Addr>().is_err().then_some("an IPv6 address"),
            Some("date-time") => text.parse::<Timestamp>().is_err().then_some("a time as in RFC 3339"),
            // Only Secrets and ConfigMaps have those: the value is not for logs.
            Some("byte") => {
                if STANDARD.decode(text.as_bytes()).is_err() {
                    invalid("Invalid value: must be base64".to_owned());
                }
                None
            }
            Some(_) | None => None,
        };
        if let Some(wrong) = wrong {
            invalid(format!("Invalid value: {shown}: must be {wrong}"));
        }
    }

    fn visit_number(&self, number: f64, value: &Value, invalid: &mut dyn FnMut(String)) {
        if let Some(min) = self.minimum.filter(|min| number < *min) {
            invalid(format!("Invalid value: {value}: should be greater than or equal to {min}"));
        }
        if let Some(max) = self.maximum.filter(|max| number > *max) {
            invalid(format!("Invalid value: {value}: should be less than or equal to {max}"));
        }
        if self.format.as_deref() == Some("int32") && value.as_i64().is_none_or(|n| i32::try_from(n).is_err())
        {
            invalid(format!("Invalid value: {value}: must be a 32-bit integer"));
        }
    }

    fn visit_items(&self, items: &[Value], path: &Path, problems: &mut Vec<Problem>) {
        let count = items.len();
        if let Some(max) = self.max_items.filter(|max| count > *max) {
            problems.push(Problem::new(path, format!("Too many: {count}: must have at most {max} items")));
        }
        if let Some(min) = self.min_items.filter(|min| count < *min) {
            problems.push(Problem::new(
                path,
                format!("Invalid value: {count}: should have at least {min} items"),
            ));
        }
        let mut known: Vec<Value> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = path.join(Step::Item(index));
            if let Some(schema) = &self.items {
                schema.visit(item, &path, problems);
            }
            let Some(identity) = self.identity(item) else { continue };
            if known.contains(&identity) {
                problems.push(Problem::new(&path, format!("Duplicate value: {}", quoted(&identity))));
            }
            known.push(identity);
        }
    }

    /// What may be in a list once.
    fn identity(&self, item: &Value) -> Option<Value> {
        match self.list_type.as_deref() {
            Some("set") => Some(item.clone()),
            Some("map") => {
                let key = |key: &String| Some((key.clone(), item.get(key)?.clone()));
                Some(Value::Object(self.list_map_keys.iter().filter_map(key).collect()))
            }
            Some(_) | None => None,
        }
    }

    fn visit_fields(&self, fields: &Map<String, Value>, path: &Path, problems: &mut Vec<Problem>) {
        if let Some(max) = self.max_properties.filter(|max| fields.len() > *max) {
            let message = format!("Too many: {}: must have at most {max} items", fields.len());
            problems.push(Problem::new(path, message));
        }
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            problems.push(Problem::new(&path.field(name), "Required value"));
        }
        // Branches of `oneOf` and the like name some fields only, and have no type.
        let closed = self.kind == Some(Type::Object)
            && !self.properties.is_empty()
            && !self.preserve_unknown_fields
            && matches!(self.additional_properties, None | Some(Additional::Allowed(false)));
        for (name, value) in fields {
            let path = path.field(name);
            match self.of_field(name) {
                Some(schema) => schema.visit(value, &path, problems),
                None if closed => {
                    problems.push(Problem { message: format!("unknown field \"{path}\""), path });
                }
                None => {}
            }
        }
    }

    fn visit_branches(&self, value: &Value, path: &Path, problems: &mut Vec<Problem>) {
        self.all_of.iter().for_each(|schema| schema.visit(value, path, problems));
        for (branches, exactly_one) in [(&self.any_of, false), (&self.one_of, true)] {
            if branches.is_empty() {
                continue;
            }
            let wrong: Vec<Vec<Problem>> = branches
                .iter()
                .map(|schema| {
                    let mut wrong = Vec::new();
                    schema.visit(value, path, &mut wrong);
                    wrong
                })
                .collect();
            let valid = wrong.iter().filter(|wrong| wrong.is_empty()).count();
            if valid == 0 {
                problems.extend(alternatives(wrong, exactly_one));
            } else if exactly_one && valid > 1 {
                let message =
                    format!("Invalid value: {}: fits {valid} forms, and may fit one only", quoted(value));
                problems.push(Problem::new(path, message));
            }
        }
        if let Some(schema) = &self.not {
            let mut wrong = Vec::new();
            schema.visit(value, path, &mut wrong);
            if wrong.is_empty() {
                problems.push(Problem::new(
                    path,
                    format!("Invalid value: {}: is what it must not be", quoted(value)),
                ));
            }
        }
    }
}

/// What to say when no branch fits: of `oneOf` the first is the usual one, those of `anyOf` are equals.
fn alternatives(wrong: Vec<Vec<Problem>>, exactly_one: bool) -> Vec<Problem> {
    let mut wrong = wrong.into_iter();
    let mut first = wrong.next().unwrap_or_default();
    if let [problem] = &mut first[..]
        && !exactly_one
    {
        for other in wrong.filter_map(|branch| branch.into_iter().next()) {
            let what = other.message.rsplit(": ").next().unwrap_or_default();
            problem.message.push_str(" or ");
            problem.message.push_str(what.strip_prefix("must be ").unwrap_or(what));
        }
    }
    first
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
