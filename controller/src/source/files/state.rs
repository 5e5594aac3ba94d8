//! What was read last, file by file, and what is different now.
//!
//! The rule of files with a mistake: objects that are right count, objects that aren't found any more stay until the file is
//! right again. So a slip of the finger takes nothing out of service.

use super::document::{self, Found};
use super::listing::{files, unreadable};
use super::{Error, Place, STDIN};
use crate::cluster::{Change, Kind, Object};
use headgate_proxy::model::ObjectName;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes of a file at most. 10,000 routes with a dozen lines each are 5 MB.
const LARGEST_FILE: u64 = 64 << 20;

type Identity = (Kind, ObjectName);

/// What is known of files.
#[derive(Debug)]
pub(super) struct State {
    paths: Vec<PathBuf>,
    /// Where files have none.
    class: Option<Found>,
    /// Standard input can be read once.
    stdin: Option<String>,
    read: HashMap<PathBuf, Held>,
    /// Oldest first.
    order: Vec<Identity>,
    objects: HashMap<Identity, Known>,
}

/// A file as it was read.
#[derive(Debug, Default)]
struct Held {
    text: Option<String>,
    found: Vec<Found>,
    errors: Vec<Error>,
}

#[derive(Debug)]
struct Known {
    object: Object,
    /// Of which the object was made, without a generation.
    value: Value,
    generation: i64,
}

/// What is different.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub changes: Vec<Change>,
    /// All there are, not only new ones.
    pub errors: Vec<Error>,
}

impl State {
    pub(super) fn new(paths: Vec<PathBuf>, controller_name: &str) -> Self {
        let class = document::implied_class(controller_name);
        Self { paths, class, stdin: None, read: HashMap::new(), order: Vec::new(), objects: HashMap::new() }
    }

    /// Oldest first.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.order.iter().filter_map(|identity| self.objects.get(identity)).map(|known| &known.object)
    }

    /// Reads what is different.
    pub(super) fn read(&mut self) -> Update {
        let (files, mut errors) = files(&self.paths);
        // Of a folder that can't be listed, what was in it stays.
        let lost: Vec<PathBuf> = errors.iter().map(|error| error.file.clone()).collect();
        let mut before = std::mem::take(&mut self.read);
        for file in &files {
            let held = before.remove(file).unwrap_or_default();
            let held = match self.text(file) {
                Ok(text) if held.text.as_ref() == Some(&text) => held,
                Ok(text) => held.with(file, text),
                Err(error) => held.without(file, &error),
            };
            self.read.insert(file.clone(), held);
        }
        let mut kept: Vec<PathBuf> = Vec::new();
        for (file, held) in before {
            if lost.iter().any(|folder| file.parent() == Some(folder)) {
                kept.push(file.clone());
                self.read.insert(file, held);
            }
        }
        kept.sort();
        let files: Vec<PathBuf> = files.into_iter().chain(kept).collect();
        errors
            .extend(files.iter().filter_map(|file| self.read.get(file)).flat_map(|held| held.errors.clone()));
        let changes = self.merge(&files, &mut errors);
        Update { changes, errors }
    }

    fn text(&mut self, file: &Path) -> io::Result<String> {
        let too_large = || io::Error::other(format!("larger than {} MiB", LARGEST_FILE >> 20));
        let mut text = String::new();
        if file.as_os_str() == STDIN {
            if let Some(text) = &self.stdin {
                return Ok(text.clone());
            }
            io::stdin().lock().take(LARGEST_FILE + 1).read_to_string(&mut text)?;
            self.stdin = Some(text.clone());
        } else {
            let open = File::open(file)?;
            if !open.metadata()?.is_file() {
                return Err(io::Error::other("neither a file nor a folder"));
            }
            open.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
        }
        if text.len() as u64 > LARGEST_FILE { Err(too_large()) } else { Ok(text) }
    }

    /// Makes objects of what files hold, and tells what is different from before.
    fn merge(&mut self, files: &[PathBuf], errors: &mut Vec<Error>) -> Vec<Change> {
        let mut before = std::mem::take(&mut self.objects);
        let (mut order, mut changes) = (Vec::new(), Vec::new());
        let mut places: BTreeMap<Identity, (PathBuf, Place)> = BTreeMap::new();
        let held = files.iter().filter_map(|file| Some((file, self.read.get(file)?)));
        let mut all: Vec<(&PathBuf, &Found)> =
            held.flat_map(|(file, held)| held.found.iter().map(move |found| (file, found))).collect();
        let nowhere = PathBuf::new();
        if all.iter().all(|(_, found)| found.entry.kind != Kind::GatewayClass) {
            all.extend(self.class.iter().map(|class| (&nowhere, class)));
        }
        for (file, found) in all {
            let identity = found.identity();
            if let Some((first, at)) = places.get(&identity) {
                errors.push(twice(file, found, first, *at));
                continue;
            }
            places.insert(identity.clone(), (file.clone(), found.place));
            let value = aged(found, order.len());
            let known = match before.remove(&identity) {
                Some(known) if known.value == value => known,
                known => {
                    let known = Known::new(found, value, known.as_ref());
                    changes.push(Change::Upsert(known.object.clone()));
                    known
                }
            };
            order.push(identity.clone());
            self.objects.insert(identity, known);
        }
        let mut gone: Vec<Identity> = before.into_keys().collect();
        gone.sort();
        changes.extend(gone.into_iter().map(|(kind, name)| Change::Delete(kind, name)));
        self.order = order;
        changes
    }
}

impl Held {
    /// The file says something else now.
    fn with(self, file: &Path, text: String) -> Self {
        let (mut found, errors) = document::objects(file, &text);
        if !errors.is_empty() {
            let new: HashSet<Identity> = found.iter().map(Found::identity).collect();
            found.extend(self.found.into_iter().filter(|old| !new.contains(&old.identity())));
        }
        Self { text: Some(text), found, errors }
    }

    /// The file can't be read now. That may pass; but a file that isn't there holds nothing.
    fn without(self, file: &Path, error: &io::Error) -> Self {
        let found = if error.kind() == io::ErrorKind::NotFound { Vec::new() } else { self.found };
        Self { text: None, found, errors: vec![unreadable(file, error)] }
    }
}

impl Known {
    fn new(found: &Found, value: Value, before: Option<&Self>) -> Self {
        // Nobody else counts: each change is a generation.
        let given = value["metadata"]["generation"].as_i64().unwrap_or(1);
        let generation = before.map_or(given, |before| given.max(before.generation + 1));
        let mut complete = value.clone();
        complete["metadata"]["generation"] = generation.into();
        let decoded = found.entry.kind.decode(complete.to_string().as_bytes());
        let object = decoded.expect("it was decoded before; only its age and generation are new");
        Self { object, value, generation }
    }
}

/// With an age: a second younger than what comes before it.
fn aged(found: &Found, position: usize) -> Value {
    let mut value = found.value.clone();
    if value["metadata"]["creationTimestamp"].is_null() {
        let seconds = i64::try_from(position).unwrap_or_default();
        let time = Timestamp::from_second(seconds).unwrap_or_default();
        value["metadata"]["creationTimestamp"] = time.to_string().into();
    }
    value
}

fn twice(file: &Path, found: &Found, first: &Path, at: Place) -> Error {
    let message = format!("is in {}:{at} already; that one counts, remove one of them", first.display());
    Error {
        file: file.to_owned(),
        place: Some(found.place),
        object: Some(document::title(found.entry, &found.name)),
        message,
    }
}
