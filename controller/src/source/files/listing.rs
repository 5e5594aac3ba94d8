//! Which files there are: paths as they were given become files, and the folders in which a change may matter.

use super::{Error, STDIN};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is read of a folder, as kubectl does.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Symbolic links that are followed to find where a file is; Linux follows 40.
const LINKS: usize = 40;

/// The files that paths stand for, each once: paths in the order given, within a folder in the order of names.
pub(super) fn files(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Error>) {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        if path.as_os_str() == STDIN || !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        match of_folder(path) {
            Ok(inside) => files.extend(inside),
            Err(error) => errors.push(unreadable(path, &error)),
        }
    }
    let mut known = BTreeSet::new();
    files.retain(|file| known.insert(file.clone()));
    (files, errors)
}

fn of_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let wanted =
            path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
        // A link may lead to a folder.
        if wanted && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The folders in which something can happen that changes what is read: of each path and file the folder it is in, the
/// folder it is, and the folders of all links on the way to it. With the number that tells a folder from another one that
/// has taken its place.
pub(super) fn folders(paths: &[PathBuf]) -> BTreeSet<(PathBuf, u64)> {
    let mut folders = BTreeSet::new();
    let (files, _) = files(paths);
    for path in paths.iter().chain(&files).filter(|path| path.as_os_str() != STDIN) {
        trail(path, LINKS, &mut folders);
    }
    let number = |folder: PathBuf| Some((folder.metadata().ok()?.ino(), folder));
    folders.into_iter().filter_map(number).map(|(number, folder)| (folder, number)).collect()
}

/// By their real paths: a folder that is watched twice would be forgotten once.
fn trail(path: &Path, links: usize, folders: &mut BTreeSet<PathBuf>) {
    let inside = if path.is_dir() { Some(path.to_owned()) } else { None };
    folders.extend(inside.into_iter().chain([parent(path)]).filter_map(|folder| folder.canonicalize().ok()));
    // Links may be in the middle of a path, as `..data` is in the folders that Kubernetes mounts.
    for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        if links > 0
            && let Ok(target) = part.read_link()
        {
            folders.extend(parent(part).canonicalize());
            trail(&parent(part).join(target), links - 1, folders);
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error { file: path.to_owned(), place: None, object: None, message: format!("can't be read: {error}") }
}
