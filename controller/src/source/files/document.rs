//! One document of a file, as objects: found in the catalog, completed, checked, decoded.

use super::Error;
use crate::api;
use crate::cluster::Kind;
use crate::settings::DEFAULT_CLASS;
use crate::source::catalog::{self, Entry};
use crate::source::schema::{self, Path};
use crate::source::yaml::{self, Node, Place};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headgate_proxy::model::ObjectName;
use serde_json::{Value, json};
use std::path::Path as File;

/// Characters of an object's name at most; see RFC 1123 and Kubernetes' "Object Names and IDs".
const NAME_LENGTH: usize = 253;
/// Of names that become a label of a DNS name.
const LABEL_LENGTH: usize = 63;
/// What every namespace has for a label.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// An object without a mistake, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub entry: &'static Entry,
    pub name: ObjectName,
    pub place: Place,
    /// Complete except for the age.
    pub value: Value,
}

impl Found {
    pub(super) fn identity(&self) -> (Kind, ObjectName) {
        (self.entry.kind, self.name.clone())
    }
}

/// What a file's text holds: objects, and what is wrong with others.
pub(super) fn objects(file: &File, text: &str) -> (Vec<Found>, Vec<Error>) {
    let (documents, fault) = yaml::read(text);
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for document in &documents {
        expand(document, None, &mut |node, list| match object(node, list) {
            Ok(object) => found.push(object),
            Err(problems) => errors.extend(problems.into_iter().map(|problem| problem.in_file(file))),
        });
    }
    errors.extend(fault.map(|fault| Error {
        file: file.to_owned(),
        place: Some(fault.place),
        object: None,
        message: fault.message,
    }));
    (found, errors)
}

/// The objects of a `List`, or the object itself. Items of a list of one kind needn't say what they are.
fn expand<'a>(node: &'a Node, list: Option<&'a Node>, each: &mut dyn FnMut(&'a Node, Option<&'a Node>)) {
    let kind = node.field("kind").and_then(Node::text).unwrap_or_default();
    match node.field("items").and_then(Node::items) {
        Some(items) if kind.ends_with("List") => items.iter().for_each(|item| expand(item, Some(node), each)),
        Some(_) | None => each(node, list),
    }
}

/// A mistake, before the file is known.
struct Mistake {
    place: Place,
    object: Option<String>,
    message: String,
}

impl Mistake {
    fn in_file(self, file: &File) -> Error {
        let (place, file) = (Some(self.place), file.to_owned());
        Error { file, place, object: self.object, message: self.message }
    }
}

fn object(node: &Node, list: Option<&Node>) -> Result<Found, Vec<Mistake>> {
    let mut value = node.value();
    let entry = entry(node, list, &mut value)?;
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let namespace = match value["metadata"]["namespace"].as_str() {
        Some(namespace) if entry.namespaced && !namespace.is_empty() => namespace.to_owned(),
        Some(_) | None if entry.namespaced => "default".to_owned(),
        Some(_) | None => String::new(),
    };
    let name = ObjectName::new(namespace.as_str(), name.as_str());
    let title = title(entry, &name);
    let mistakes = |problems: Vec<schema::Problem>| -> Vec<Mistake> {
        let mistake = |problem: schema::Problem| Mistake {
            place: node.find(&problem.path),
            object: Some(title.clone()),
            message: problem.message,
        };
        problems.into_iter().map(mistake).collect()
    };
    if !node.field("metadata").is_some_and(|metadata| metadata.value().is_object()) {
        value["metadata"] = json!({});
    }
    if entry.namespaced {
        value["metadata"]["namespace"] = name.namespace.to_string().into();
    }
    entry.schema.complete(&mut value);
    let mut problems = names(entry, &value);
    problems.extend(entry.schema.check(&value));
    if !problems.is_empty() {
        return Err(mistakes(problems));
    }
    finish(entry, &name, &mut value);
    if let Err(why) = entry.kind.decode(value.to_string().as_bytes()) {
        // It may quote the value, which in a Secret is one.
        let why = if entry.kind == Kind::Secret { "can't be decoded".to_owned() } else { why };
        return Err(mistakes(vec![schema::Problem::new(&Path::default(), why)]));
    }
    Ok(Found { entry, name, place: node.place, value })
}

/// Kind, namespace and name, as far as there are.
pub(super) fn title(entry: &Entry, name: &ObjectName) -> String {
    match (&*name.namespace, &*name.name) {
        (_, "") => entry.kind.to_string(),
        ("", name) => format!("{} {name}", entry.kind),
        (namespace, name) => format!("{} {namespace}/{name}", entry.kind),
    }
}

/// The GatewayClass that is meant where files have none.
pub(super) fn implied_class(controller_name: &str) -> Option<Found> {
    let entry = catalog::find(api::GROUP, Kind::GatewayClass.name())?;
    let name = ObjectName::new("", DEFAULT_CLASS);
    let mut value = json!({
        "apiVersion": format!("{}/{}", entry.group, entry.versions.first()?),
        "kind": entry.kind.name(),
        "metadata": {"name": DEFAULT_CLASS},
        "spec": {"controllerName": controller_name},
    });
    entry.schema.complete(&mut value);
    finish(entry, &name, &mut value);
    Some(Found { entry, name, place: Place { line: 1, column: 1 }, value })
}

/// Which kind it is.
fn entry(node: &Node, list: Option<&Node>, value: &mut Value) -> Result<&'static Entry, Vec<Mistake>> {
    let mistake = |field: &str, message: String| {
        let place = node.find(&Path::default().field(field));
        vec![Mistake { place, object: None, message }]
    };
    if !value.is_object() {
        return Err(mistake(
            "",
            "not an object: a map with apiVersion, kind and metadata was expected".to_owned(),
        ));
    }
    let of_list = |field: &str| list.and_then(|list| list.field(field)).and_then(Node::text);
    let kind = match node.field("kind").and_then(Node::text) {
        Some(kind) => kind,
        None => of_list("kind")
            .and_then(|kind| kind.strip_suffix("List"))
            .filter(|kind| !kind.is_empty())
            .ok_or_else(|| mistake("kind", "kind: Required value".to_owned()))?,
    };
    let version = match node.field("apiVersion").and_then(Node::text) {
        Some(version) => version,
        None if node.field("kind").is_none() => of_list("apiVersion").unwrap_or_default(),
        None => "",
    };
    if version.is_empty() {
        return Err(mistake("apiVersion", "apiVersion: Required value".to_owned()));
    }
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let entry = catalog::find(group, kind).ok_or_else(|| {
        let name = |entry: &Entry| {
            if entry.group.is_empty() {
                entry.kind.name().to_owned()
            } else {
                format!("{}.{}", entry.kind, entry.group)
            }
        };
        let known: Vec<String> = catalog::entries().iter().map(name).collect();
        let unknown = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        mistake("kind", format!("kind {unknown} is not read from files; these are: {}", known.join(", ")))
    })?;
    if !entry.versions.iter().any(|known| known == version) {
        let message = format!(
            "apiVersion: version {version} of {kind} is not served; use {}",
            entry.versions.join(" or ")
        );
        return Err(mistake("apiVersion", message));
    }
    value["kind"] = kind.into();
    value["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
    Ok(entry)
}

/// What an API server checks of metadata, as far as it matters here.
fn names(entry: &Entry, value: &Value) -> Vec<schema::Problem> {
    let metadata = Path::default().field("metadata");
    let mut problems = Vec::new();
    let name = &value["metadata"]["name"];
    let is_label = matches!(entry.kind, Kind::Service | Kind::Namespace);
    if name.is_null() || name == "" {
        problems.push(schema::Problem::new(&metadata.field("name"), "Required value"));
    } else if let Some(name) = name.as_str() {
        let (max, valid) =
            if is_label { (LABEL_LENGTH, label(name)) } else { (NAME_LENGTH, name.split('.').all(label)) };
        if name.len() > max || !valid {
            let form = if is_label { "label" } else { "subdomain" };
            let message = format!(
                "Invalid value: {name:?}: must be a lowercase RFC 1123 {form}: letters, digits and '-'{}, at most {max} characters",
                if is_label { "" } else { " and '.'" }
            );
            problems.push(schema::Problem::new(&metadata.field("name"), message));
        }
    }
    if let Some(namespace) = value["metadata"]["namespace"].as_str() {
        if !entry.namespaced {
            let message = format!("Forbidden: a {} is in no namespace", entry.kind);
            problems.push(schema::Problem::new(&metadata.field("namespace"), message));
        } else if namespace.len() > LABEL_LENGTH || !label(namespace) {
            let message = format!("Invalid value: {namespace:?}: must be a lowercase RFC 1123 label");
            problems.push(schema::Problem::new(&metadata.field("namespace"), message));
        }
    }
    problems
}

fn label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.chars().all(inside)
}

/// What an API server adds and schemas don't say. Its own notes, in files that were written by `kubectl get`, are dropped.
fn finish(entry: &Entry, name: &ObjectName, value: &mut Value) {
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
        metadata.entry("uid").or_insert_with(|| title(entry, name).replace(' ', "/").into());
    }
    if entry.kind == Kind::Namespace {
        value["metadata"]["labels"][NAMESPACE_NAME] = name.name.to_string().into();
    }
    if entry.kind == Kind::Service {
        for port in value["spec"]["ports"].as_array_mut().into_iter().flatten() {
            if port["targetPort"].is_null() {
                port["targetPort"] = port["port"].clone();
            }
        }
    }
    if entry.kind == Kind::Secret
        && let Some(Value::Object(texts)) =
            value.as_object_mut().and_then(|secret| secret.remove("stringData"))
    {
        for (key, text) in texts {
            value["data"][key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
        }
    }
}
