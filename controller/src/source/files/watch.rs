//! Files as they change.
//!
//! Folders are watched, not files: editors, `kubectl`-like tools and Kubernetes' own mounts replace files, or links to them.
//! Since not every file system tells of changes, files are also looked at every now and then.

use super::Error;
use super::listing::{files, folders};
use super::state::State;
use crate::cluster::Change;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};

/// Files are read when nothing has happened for this long: a writer may not be done.
pub(super) const QUIET: Duration = Duration::from_millis(50);
/// But after this long they are, whatever happens.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often files are looked at where nothing tells of changes (network file systems, some mounts in virtual machines).
const LOOK: Duration = Duration::from_secs(5);

/// Why files aren't followed any more.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Reading them panicked.
    #[error("reading files failed: {0}")]
    Read(#[from] tokio::task::JoinError),
}

/// Reads files and folders, and goes on doing so when they change, until the receiver is gone. What is wrong with them is
/// logged, each mistake once as long as it lasts. Where files have no GatewayClass, the usual one of this controller is
/// meant.
///
/// # Errors
/// Reading panicked.
pub async fn watch(
    paths: Vec<PathBuf>,
    controller_name: String,
    changes: mpsc::Sender<Vec<Change>>,
) -> Result<(), WatchError> {
    let (ring, mut bell) = mpsc::channel(1);
    let mut watched = Watched::new(ring);
    let mut logged = BTreeSet::new();
    let mut state = State::new(paths.clone(), &controller_name);
    let mut look = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        // Before reading: what changes from here on is told.
        watched.follow(&paths);
        let seen = fingerprint(&paths);
        let update;
        // Files may be slow, and standard input waits for somebody.
        let reading = tokio::task::spawn_blocking(move || {
            let update = state.read();
            (state, update)
        });
        (state, update) = reading.await?;
        log(&mut logged, &update.errors);
        let batch =
            if std::mem::replace(&mut first, false) { complete(update.changes) } else { update.changes };
        if !batch.is_empty() && changes.send(batch).await.is_err() {
            return Ok(());
        }
        loop {
            tokio::select! {
                _ = bell.recv() => break,
                _ = look.tick() => if seen != fingerprint(&paths) {
                    break;
                },
                () = changes.closed() => return Ok(()),
            }
        }
        settle(&mut bell, &paths).await;
    }
}

/// Every kind, also without objects.
fn complete(changes: Vec<Change>) -> Vec<Change> {
    let objects = changes.into_iter().filter_map(|change| match change {
        Change::Upsert(object) => Some(object),
        Change::Delete(..) | Change::Replace { .. } | Change::Undecodable(..) | Change::Host(..) => None,
    });
    super::Loaded { objects: objects.collect(), errors: Vec::new() }.into_changes()
}

/// Waits until writers seem to be done. One that has emptied a file is about to fill it: most write in place.
async fn settle(bell: &mut mpsc::Receiver<()>, paths: &[PathBuf]) {
    let until = Instant::now() + PATIENCE;
    loop {
        match timeout_at(until, timeout(QUIET, bell.recv())).await {
            Ok(Ok(Some(()))) => {}
            Ok(Err(_)) if has_empty(paths) => {}
            Ok(Ok(None) | Err(_)) | Err(_) => return,
        }
    }
}

fn has_empty(paths: &[PathBuf]) -> bool {
    files(paths).0.iter().any(|file| file.metadata().is_ok_and(|metadata| metadata.len() == 0))
}

/// When it was changed, its length, and its inode.
type Looks = (SystemTime, u64, u64);

/// What shows that a file is another one.
fn fingerprint(paths: &[PathBuf]) -> Vec<(PathBuf, Option<Looks>)> {
    let look = |file: &Path| {
        let metadata = file.metadata().ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    files(paths).0.into_iter().map(|file| (file.clone(), look(&file))).collect()
}

fn log(logged: &mut BTreeSet<String>, errors: &[Error]) {
    let now: BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
    for error in errors.iter().map(ToString::to_string).filter(|error| !logged.contains(error)) {
        tracing::error!("{error}");
    }
    if now.is_empty() && !logged.is_empty() {
        tracing::info!("all files are in order again");
    }
    *logged = now;
}

/// The folders that are watched.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<(PathBuf, u64)>,
}

impl Watched {
    fn new(ring: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and would make the next one.
            let reads = |kind: AccessKind| kind != AccessKind::Close(AccessMode::Write);
            if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(kind) if reads(kind))) {
                return;
            }
            // One waiting says it all.
            let _ = ring.try_send(());
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "changes of files are not told; looking at them every {} s", LOOK.as_secs());
        }
        Self { watcher: watcher.ok(), folders: BTreeSet::new() }
    }

    fn follow(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = folders(paths);
        for (folder, _) in self.folders.difference(&wanted) {
            // It may be gone, and its watch with it.
            let _ = watcher.unwatch(folder);
        }
        let mut now: BTreeSet<_> = self.folders.intersection(&wanted).cloned().collect();
        for entry in wanted.difference(&self.folders) {
            let folder = &entry.0;
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(now.insert(entry.clone())),
                Err(error) => tracing::warn!(
                    folder = %folder.display(), %error,
                    "changes in a folder are not told; looking every {} s", LOOK.as_secs()
                ),
            }
        }
        self.folders = now;
    }
}
