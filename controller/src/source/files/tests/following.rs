//! Files that change while they are followed. Each step waits for the batch that it leads to.

use super::*;
use crate::cluster::{Change, Cluster, Packed};
use headgate_proxy::model::ObjectName;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

struct Followed {
    folder: TempDir,
    cluster: Cluster,
    changes: mpsc::Receiver<Vec<Change>>,
    task: JoinHandle<Result<(), WatchError>>,
}

impl Followed {
    /// What `prepare` makes of an empty folder, at `path` in it.
    async fn new(path: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let (sender, changes) = mpsc::channel(8);
        let task = tokio::spawn(watch(vec![folder.path().join(path)], CONTROLLER_NAME.to_owned(), sender));
        let mut followed = Self { folder, cluster: Cluster::default(), changes, task };
        followed.next().await;
        assert!(followed.cluster.is_complete(Kind::ALL));
        followed
    }

    async fn next(&mut self) {
        for change in self.changes.recv().await.unwrap() {
            self.cluster.apply(change);
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Name, host and generation of each route.
    fn routes(&self) -> Vec<(String, String, i64)> {
        let told = |(name, route): (&ObjectName, &Arc<Packed<HttpRoute>>)| {
            let route = route.unpack();
            let host = route.spec.hostnames.as_ref().unwrap()[0].clone();
            (name.name.to_string(), host, route.metadata.generation.unwrap())
        };
        self.cluster.http_routes.iter().map(told).collect()
    }

    /// The source ends when nobody listens.
    async fn end(self) {
        drop(self.changes);
        self.task.await.unwrap().unwrap();
    }
}

fn named(name: &str, host: &str) -> String {
    route(&format!("  hostnames: [{host}]")).replace("name: r", &format!("name: {name}"))
}

fn told(name: &str, host: &str, generation: i64) -> (String, String, i64) {
    (name.to_owned(), host.to_owned(), generation)
}

#[tokio::test]
async fn edits_count_and_are_new_generations() {
    let mut followed = Followed::new("", |at| fs::write(at.join("a.yaml"), named("a", "one")).unwrap()).await;
    assert_eq!(followed.routes(), [told("a", "one", 1)]);
    fs::write(followed.at("a.yaml"), named("a", "two")).unwrap();
    followed.next().await;
    assert_eq!(followed.routes(), [told("a", "two", 2)]);
    followed.end().await;
}

#[tokio::test]
async fn files_come_and_go_with_their_objects() {
    let mut followed = Followed::new("", |at| fs::write(at.join("a.yaml"), named("a", "one")).unwrap()).await;
    fs::write(followed.at("b.yaml"), named("b", "two")).unwrap();
    followed.next().await;
    assert_eq!(followed.routes(), [told("a", "one", 1), told("b", "two", 1)]);
    fs::remove_file(followed.at("b.yaml")).unwrap();
    followed.next().await;
    assert_eq!(followed.routes(), [told("a", "one", 1)]);
    followed.end().await;
}

#[tokio::test]
async fn a_file_can_be_replaced_by_another() {
    let mut followed =
        Followed::new("a.yaml", |at| fs::write(at.join("a.yaml"), named("a", "one")).unwrap()).await;
    for (host, generation) in [("two", 2), ("three", 3)] {
        fs::write(followed.at("a.new"), named("a", host)).unwrap();
        fs::rename(followed.at("a.new"), followed.at("a.yaml")).unwrap();
        followed.next().await;
        assert_eq!(followed.routes(), [told("a", host, generation)]);
    }
    followed.end().await;
}

/// As Kubernetes mounts ConfigMaps: files are links through `..data`, which is a link that is replaced.
#[tokio::test]
async fn links_can_be_swapped() {
    let version = |at: &Path, version: &str, host: &str| {
        fs::create_dir(at.join(version)).unwrap();
        fs::write(at.join(version).join("a.yaml"), named("a", host)).unwrap();
    };
    let mut followed = Followed::new("mount/a.yaml", |at| {
        let mount = at.join("mount");
        fs::create_dir(&mount).unwrap();
        version(&mount, "..1", "one");
        symlink("..1", mount.join("..data")).unwrap();
        symlink("..data/a.yaml", mount.join("a.yaml")).unwrap();
    })
    .await;
    let mount = followed.at("mount");
    for (next, host, generation) in [("..2", "two", 2), ("..3", "three", 3)] {
        version(&mount, next, host);
        symlink(next, mount.join("..tmp")).unwrap();
        fs::rename(mount.join("..tmp"), mount.join("..data")).unwrap();
        followed.next().await;
        assert_eq!(followed.routes(), [told("a", host, generation)]);
    }
    followed.end().await;
}

/// A link that leads elsewhere: what is at its other end counts.
#[tokio::test]
async fn the_file_at_the_end_of_a_link_is_followed() {
    let mut followed = Followed::new("in", |at| {
        fs::create_dir(at.join("in")).unwrap();
        fs::create_dir(at.join("out")).unwrap();
        fs::write(at.join("out/real"), named("a", "one")).unwrap();
        symlink("../out/real", at.join("in/a.yaml")).unwrap();
    })
    .await;
    fs::write(followed.at("out/real"), named("a", "two")).unwrap();
    followed.next().await;
    assert_eq!(followed.routes(), [told("a", "two", 2)]);
    followed.end().await;
}

#[tokio::test]
async fn what_has_become_wrong_stays_as_it_was() {
    let two = |a: &str, b: &str| format!("{}---\n{}", named("a", a), named("b", b));
    let mut followed = Followed::new("", |at| fs::write(at.join("f.yaml"), two("one", "one")).unwrap()).await;
    // `b` is wrong, `a` isn't.
    fs::write(followed.at("f.yaml"), two("two", "NO")).unwrap();
    followed.next().await;
    assert_eq!(followed.routes(), [told("a", "two", 2), told("b", "one", 1)]);
    // Nothing can be read: nothing is gone. What shows it is the change of another file.
    fs::write(followed.at("f.yaml"), "a: [").unwrap();
    fs::write(followed.at("g.yaml"), named("c", "one")).unwrap();
    followed.next().await;
    assert_eq!(followed.routes(), [told("a", "two", 2), told("b", "one", 1), told("c", "one", 1)]);
    // All is well: what isn't there is gone.
    fs::write(followed.at("f.yaml"), named("b", "three")).unwrap();
    followed.next().await;
    let routes = followed.routes();
    assert_eq!(
        routes.iter().map(|(name, host, _)| (&name[..], &host[..])).collect::<Vec<_>>(),
        [("b", "three"), ("c", "one")]
    );
    followed.end().await;
}

/// Most programs empty a file before they fill it, and some are slow: what it held isn't gone.
#[tokio::test]
async fn a_file_that_is_being_written_is_not_empty() {
    let mut followed =
        Followed::new("", |folder| fs::write(folder.join("r.yaml"), named("r", "a.example")).unwrap()).await;
    let file = fs::File::create(followed.at("r.yaml")).unwrap();
    tokio::time::sleep(super::super::watch::QUIET * 4).await;
    std::io::Write::write_all(&mut &file, named("r", "b.example").as_bytes()).unwrap();
    followed.next().await;
    assert_eq!(followed.routes(), [("r".to_owned(), "b.example".to_owned(), 2)]);
    followed.end().await;
}
