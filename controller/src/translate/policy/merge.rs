//! What several policies of a kind come to together, field by field: a pure function, for all kinds.
//!
//! A policy is cut into fields ([`Shape`]). They go down the hierarchy level by level (Gateway, listener, route, rule): the
//! more specific level wins, unless a policy above says `Override`. Within a level the older policy wins. Whatever doesn't
//! come into force although nothing more specific replaces it is told in [`Merged::refused`]: nothing is silent.

use super::resolve::Resolved;
use headgate_proxy::model::{ObjectName, Text};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The entry of each named one that says whether it acts: put there from the policy's `mode`.
pub(super) const MODE: &str = "mode";
/// What it is when the policy is only watched.
pub(super) const SHADOW: &str = "Shadow";
/// The entry by which a named one is left out.
pub(super) const DISABLED: &str = "disabled";

/// The way to a field of a policy, from `spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(Vec<Text>);

impl Path {
    /// Of these steps.
    pub(super) fn of(steps: &[&str]) -> Self {
        Self(steps.iter().map(|step| (*step).into()).collect())
    }

    /// Whether it is the entry that says whether its siblings act.
    pub(super) fn is_mode(&self) -> bool {
        self.0.last().is_some_and(|last| **last == *MODE)
    }

    /// What people are told of: an entry instead of whether it acts.
    pub(super) fn said(&self) -> Self {
        let steps = self.0.len() - usize::from(self.is_mode());
        Self(self.0[..steps].to_vec())
    }

    fn join(&self, step: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }

    /// Whether it is what an entry is, and not how.
    pub(super) fn is_kind(&self) -> bool {
        self.0.len() == 3 && !self.is_mode() && self.0.last().is_some_and(|last| **last != *DISABLED)
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec.{}", self.0.join("."))
    }
}

/// How a kind of policy is cut into fields. In ways to fields `*` is any name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Objects whose members are fields each by itself; all else is one field.
    pub(super) open: &'static [&'static str],
    /// Of those, maps of entries by names that users choose. An entry that a policy with `Override` has is fixed as a
    /// whole: a `when` or an exemption that somebody adds would change it, too.
    pub(super) named: &'static [&'static str],
    /// What is fixed as a whole by a policy with `Override` that has any of it, entries that it doesn't have included; and
    /// what is fixed along with that.
    pub(super) fixed: &'static [(&'static str, &'static [&'static str])],
}

impl Shape {
    fn opens(&self, path: &Path, named_above: bool) -> bool {
        let matches = |open: &&str| {
            let mut steps = open.split('.');
            let same =
                path.0.iter().all(|step| steps.next().is_some_and(|open| open == "*" || *open == **step));
            same && steps.next().is_none()
        };
        named_above || self.open.iter().any(matches)
    }

    /// The fields of a policy.
    pub(super) fn fields(&self, spec: Value, mode: &str) -> BTreeMap<Path, Value> {
        let mut fields = BTreeMap::new();
        if let Value::Object(members) = spec {
            self.cut(&Path::default(), members, mode, &mut fields);
        }
        fields
    }

    fn cut(&self, at: &Path, members: Map<String, Value>, mode: &str, fields: &mut BTreeMap<Path, Value>) {
        let entries = self.is_named(&at.0);
        for (name, value) in members {
            let path = at.join(&name);
            match value {
                Value::Null => {}
                Value::Object(members) if self.opens(&path, entries) => {
                    if entries {
                        fields.insert(path.join(MODE), mode.into());
                    }
                    self.cut(&path, members, mode, fields);
                }
                value @ (Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_)) => drop(fields.insert(path, value)),
            }
        }
    }

    /// Whether that is a map of entries by names that users choose.
    fn is_named(&self, steps: &[Text]) -> bool {
        self.named.iter().any(|named| named.split('.').eq(steps.iter().map(|step| &**step)))
    }

    /// What is fixed together with a field.
    fn unit(&self, path: &Path) -> Path {
        let whole = path.0.first().filter(|first| self.fixed.iter().any(|(fixed, _)| **fixed == ***first));
        let named = (1..path.0.len()).find(|steps| self.is_named(&path.0[..*steps]));
        let steps = match (whole, named) {
            (Some(_), _) => 1,
            (None, Some(named)) => named + 1,
            (None, None) => path.0.len(),
        };
        Path(path.0[..steps].to_vec())
    }

    /// What a field of a policy with `Override` fixes.
    fn fixes(&self, path: &Path) -> impl Iterator<Item = Path> {
        let along =
            self.fixed.iter().filter(|(fixed, _)| path.0.first().is_some_and(|first| **first == **fixed));
        let along = along.flat_map(|(_, others)| others.iter().map(|other| Path::of(&[other])));
        std::iter::once(self.unit(path)).chain(along)
    }
}

/// What one policy says.
#[derive(Debug, PartialEq)]
pub(super) struct Source {
    pub(super) name: ObjectName,
    /// Whether it is only watched.
    pub(super) shadow: bool,
    /// Whether more specific policies may not change it.
    pub(super) overrides: bool,
    /// Its fields.
    pub(super) fields: BTreeMap<Path, Value>,
    /// What its references come to.
    pub(super) resolved: Resolved,
    /// Whether it guards, and can't be honoured whole: what it is for is closed.
    pub(super) broken: bool,
}

/// The policies of one target.
#[derive(Debug, PartialEq)]
pub(super) struct Level {
    /// The target, for people and as the name of counters.
    pub(super) target: Text,
    /// The older first.
    pub(super) sources: Vec<Arc<Source>>,
}

impl Level {
    /// What policies of this target say that an older one says otherwise: whose, which field, and who wins.
    pub(super) fn conflicts(&self) -> Vec<Refused> {
        let mut conflicts = Vec::new();
        for (n, source) in self.sources.iter().enumerate() {
            for (path, value) in &source.fields {
                // What is only tried is in nobody's way who acts.
                let mut older = self.sources[..n].iter().filter(|older| source.shadow || !older.shadow);
                let first = older.find(|older| older.fields.contains_key(path));
                if let Some(first) = first.filter(|first| first.fields[path] != *value) {
                    conflicts.push(Refused::new(source, path, &first.name));
                }
            }
        }
        conflicts
    }
}

/// A field that isn't in force, because of another policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refused {
    pub(super) loser: ObjectName,
    pub(super) path: Path,
    pub(super) winner: ObjectName,
}

impl Refused {
    fn new(source: &Source, path: &Path, winner: &ObjectName) -> Self {
        Self { loser: source.name.clone(), path: path.clone(), winner: winner.clone() }
    }
}

/// A field that is in force.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) value: Value,
    /// Whose it is.
    pub(super) policy: ObjectName,
    /// The target that it was said of.
    pub(super) target: Text,
    /// How specific that is: the higher, the more.
    pub(super) depth: usize,
}

/// What policies come to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Merged {
    pub(super) fields: BTreeMap<Path, Field>,
    /// What less specific policies don't let be said.
    pub(super) refused: Vec<Refused>,
}

/// Merges levels, the least specific first, as if there were only the policies that count.
pub(super) fn merge(shape: &Shape, levels: &[&Level], counts: impl Fn(&Source) -> bool) -> Merged {
    let mut merged = Merged::default();
    let mut fixed = BTreeMap::<Path, ObjectName>::new();
    for (depth, level) in levels.iter().enumerate() {
        let mut own = BTreeMap::<&Path, (&Value, &Source)>::new();
        for source in level.sources.iter().filter(|source| counts(source)) {
            for (path, value) in &source.fields {
                own.entry(path).or_insert((value, source));
            }
        }
        let mut newly = Vec::new();
        for (path, (value, source)) in own {
            let unit = shape.unit(path);
            if let Some(winner) = fixed.get(&unit) {
                let in_force = merged.fields.get(path).map(|field| &field.value);
                let refused = |source: &&Arc<Source>| {
                    counts(source) && source.fields.get(path).is_some_and(|value| Some(value) != in_force)
                };
                let losers = level.sources.iter().filter(refused);
                merged.refused.extend(losers.map(|loser| Refused::new(loser, path, winner)));
                continue;
            }
            if source.overrides {
                newly.extend(shape.fixes(path).map(|fixed| (fixed, source.name.clone())));
            }
            let (policy, target) = (source.name.clone(), level.target.clone());
            merged.fields.insert(path.clone(), Field { value: value.clone(), policy, target, depth });
        }
        fixed.extend(newly);
    }
    merged
}

impl Merged {
    /// The fields below a map of named entries, by entry, without those that are left out.
    pub(super) fn entries(&self, map: &str) -> BTreeMap<&Text, Vec<(&Path, &Field)>> {
        let mut entries = BTreeMap::<_, Vec<_>>::new();
        let above = Path(map.split('.').map(Into::into).collect());
        let depth = above.0.len();
        for (path, field) in &self.fields {
            if path.starts_with(&above)
                && let [name, _, ..] = &path.0[depth..]
            {
                entries.entry(name).or_default().push((path, field));
            }
        }
        let disabled = |fields: &Vec<(&Path, &Field)>| {
            fields
                .iter()
                .any(|(path, field)| *path.0[depth + 1] == *DISABLED && field.value == Value::Bool(true))
        };
        entries.retain(|_, fields| !disabled(fields));
        entries
    }

    /// A member of `spec` as it is in force.
    pub(super) fn member(&self, name: &str) -> Value {
        assemble(self.fields.iter().filter(|(path, _)| *path.0[0] == *name), 1)
    }
}

/// An object of fields, whose ways lead on from step `skip`.
pub(super) fn assemble<'a>(fields: impl Iterator<Item = (&'a Path, &'a Field)>, skip: usize) -> Value {
    let mut whole = Value::Null;
    for (path, field) in fields {
        let mut at = &mut whole;
        for step in &path.0[skip..] {
            at = &mut at[&**step];
        }
        *at = field.value.clone();
    }
    whole
}

#[cfg(test)]
mod tests;
