//! Structural schemas, as CRDs have them: default values, and what is wrong with a value.
//!
//! What an API server does before it stores an object, except CEL rules: those are not evaluated. Messages are worded like
//! the API server's, so that they can be searched for. Knows values and paths, nothing of files or kinds.

mod check;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// An item of a list, from 0.
    Item(usize),
}

/// The way to a field: `spec.rules[0].matches`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// The way to something within what this leads to.
    pub fn join(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// A field of what this leads to.
    pub fn field(&self, name: impl Into<String>) -> Self {
        self.join(Step::Field(name.into()))
    }

    /// The steps, outermost first.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(item) => write!(f, "[{item}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: Path,
    /// What, with the path in it.
    pub message: String,
}

impl Problem {
    /// A field that isn't as it has to be.
    pub fn new(path: &Path, message: impl fmt::Display) -> Self {
        let at = if path.steps().is_empty() { "object".to_owned() } else { path.to_string() };
        Self { path: path.clone(), message: format!("{at}: {message}") }
    }
}

/// The JSON types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// A structural schema: what [apiextensions/v1 `JSONSchemaProps`] has of it.
///
/// [apiextensions/v1 `JSONSchemaProps`]: https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/#JSONSchemaProps
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schema {
    #[serde(rename = "type")]
    kind: Option<Type>,
    nullable: bool,
    properties: BTreeMap<String, Self>,
    additional_properties: Option<Additional>,
    items: Option<Box<Self>>,
    required: Vec<String>,
    #[serde(deserialize_with = "present")]
    default: Option<Value>,
    #[serde(rename = "enum")]
    one_of_values: Vec<Value>,
    pattern: Option<Pattern>,
    format: Option<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    max_properties: Option<usize>,
    all_of: Vec<Self>,
    any_of: Vec<Self>,
    one_of: Vec<Self>,
    not: Option<Box<Self>>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserve_unknown_fields: bool,
}

/// What fields may have that aren't named.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Additional {
    Allowed(bool),
    Schema(Box<Schema>),
}

/// A regular expression, compiled when a value first needs it.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self { text, compiled: OnceLock::new() }
    }
}

impl Pattern {
    fn compiled(&self) -> Option<&Regex> {
        // CRDs are checked when they are built in (see the tests): there is no pattern that can't be compiled.
        self.compiled.get_or_init(|| Regex::new(&self.text).ok()).as_ref()
    }
}

/// `default: null` is a default.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl Schema {
    /// A schema from its JSON.
    ///
    /// # Errors
    /// The JSON isn't a structural schema.
    pub fn new(json: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(json)
    }

    /// Puts default values where nothing is, and drops `null` where it means that nothing is.
    pub fn complete(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, value| !value.is_null() || self.may_be_null(name));
                for (name, schema) in &self.properties {
                    if let Some(default) = &schema.default
                        && !fields.contains_key(name)
                    {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in fields {
                    if let Some(schema) = self.of_field(name) {
                        schema.complete(value);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.complete(item));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// What is wrong with a value that is complete.
    pub fn check(&self, value: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.visit(value, &Path::default(), &mut problems);
        problems
    }

    fn of_field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional_properties {
            Some(Additional::Schema(schema)) => Some(schema),
            Some(Additional::Allowed(_)) | None => None,
        })
    }

    /// Unknown fields stay as they are, for their name to be reported.
    fn may_be_null(&self, name: &str) -> bool {
        self.of_field(name).is_none_or(|schema| schema.nullable)
    }
}

#[cfg(test)]
mod tests;
