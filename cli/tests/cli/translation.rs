//! `headgate translate` for the tests: its output, and what it says about objects.

use crate::process::output;
use serde_json::Value;
use std::ffi::OsStr;

/// What `headgate translate` prints for these paths, which must be without mistakes.
pub fn translate<P: AsRef<OsStr>>(paths: &[P]) -> Value {
    let mut arguments = vec![OsStr::new("translate"), OsStr::new("--output=json")];
    for path in paths {
        arguments.extend([OsStr::new("-f"), path.as_ref()]);
    }
    let done = output(&arguments);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{arguments:?}: {said}");
    serde_json::from_slice(&done.stdout).expect("--output=json is JSON")
}

/// A condition, and whose.
#[derive(Debug)]
pub struct Condition {
    /// Such as `Gateway default/gateway listener http`.
    pub of: String,
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// All conditions of all objects.
pub fn conditions(translated: &Value) -> Vec<Condition> {
    let mut found = Vec::new();
    for object in translated["statuses"].as_array().expect("a list of objects") {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().map(|namespace| format!("{namespace}/"));
        let of =
            format!("{} {}{}", text(&object["kind"]), namespace.unwrap_or_default(), text(&metadata["name"]));
        collect(&object["status"], &of, &mut found);
    }
    found
}

/// Conditions may stand in the status itself, or in that of each listener, parent or ancestor.
fn collect(value: &Value, of: &str, found: &mut Vec<Condition>) {
    for condition in value["conditions"].as_array().into_iter().flatten() {
        found.push(Condition {
            of: of.to_owned(),
            kind: text(&condition["type"]),
            status: text(&condition["status"]),
            reason: text(&condition["reason"]),
            message: text(&condition["message"]),
        });
    }
    for listener in value["listeners"].as_array().into_iter().flatten() {
        collect(listener, &format!("{of} listener {}", text(&listener["name"])), found);
    }
    for (list, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
        for parent in value[list].as_array().into_iter().flatten() {
            collect(parent, &format!("{of} parent {}", text(&parent[reference]["name"])), found);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text was expected, not {value}")).to_owned()
}

impl Condition {
    /// Whether all is well, as far as this one says.
    pub fn is_good(&self) -> bool {
        match self.kind.as_str() {
            "Conflicted" | "PartiallyInvalid" | "OverlappingTLSConfig" => self.status == "False",
            _ => self.status == "True",
        }
    }
}
