//! Objects from files and folders, without a cluster.
//!
//! Files are read as `kubectl apply -f` reads them: of a folder its `.yaml`, `.yml` and `.json` files, not those of folders
//! in it; several documents in a file; `List` kinds. What an API server adds is added here: default values of the schema,
//! namespace `default`, `uid`, `generation`. A file has no time, so objects are as old as their position: what comes in an
//! earlier file (in the order of names within a folder), or earlier in a file, is older, unless it has a `creationTimestamp`.
//!
//! An object with a mistake in it is reported with file, line and field. [`load`] reads once; [`watch`] goes on reading, and
//! of an object or a file that has become wrong the last good version stays in force.

mod document;
mod listing;
mod state;
mod watch;

pub use super::yaml::Place;
pub use watch::{WatchError, watch};

use crate::cluster::{Change, Kind, Object};
use state::State;
use std::fmt;
use std::path::PathBuf;

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// What files hold.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Objects without a mistake, oldest first.
    pub objects: Vec<Object>,
    /// What is wrong with the others, in the order of files and lines.
    pub errors: Vec<Error>,
}

/// A mistake in a file, or a file that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The file, as it was named; `-` for standard input.
    pub file: PathBuf,
    /// Where in it.
    pub place: Option<Place>,
    /// Kind, namespace and name of the object, as far as they are known.
    pub object: Option<String>,
    /// What is wrong, with the path of the field.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = self.place {
            write!(f, ":{place}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Loaded {
    /// All of it as changes, one for each kind.
    pub fn into_changes(self) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for kind in Kind::ALL {
            let objects = self.objects.iter().filter(|object| object.kind() == *kind).cloned().collect();
            changes.push(Change::Replace { kind: *kind, objects, undecodable: Vec::new() });
        }
        changes
    }
}

/// Reads files and folders once; `-` is standard input. Nothing stops it: what is wrong is among [`Loaded::errors`]. Where
/// files have no GatewayClass, the usual one of this controller is meant.
pub fn load(paths: &[PathBuf], controller_name: &str) -> Loaded {
    let mut state = State::new(paths.to_vec(), controller_name);
    let update = state.read();
    Loaded { objects: state.objects().cloned().collect(), errors: update.errors }
}

#[cfg(test)]
mod tests;
