//! What the documentation refers to is there: files, flags, targets of make, and places in the source.

use crate::manifests::{Folder, examples};
use crate::process::output;
use crate::translation::{conditions, translate};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page, by its path.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["", "docs", "examples", "bench", "e2e"] {
        for entry in fs::read_dir(root().join(folder)).expect("it is there") {
            let path = entry.expect("readable").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

/// What stands between `before` and `after`, each time.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split_once(after).map(|(found, _)| found))
}

/// The files that a clone of the repository has, or will have: none where this isn't one.
fn tracked() -> Option<HashSet<PathBuf>> {
    let root = root().canonicalize().expect("it is there");
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let names = String::from_utf8(listed.stdout).expect("names are text");
    Some(names.lines().map(|name| root.join(name)).collect())
}

#[test]
fn links_lead_to_files() {
    let tracked = tracked();
    for (page, text) in pages() {
        for target in between(&text, "](", ")") {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let path = page.parent().expect("a file").join(file);
            assert!(path.exists(), "{} links to {target}", page.display());
            let path = path.canonicalize().expect("it is there");
            let known = tracked.as_ref().is_none_or(|files| path.is_dir() || files.contains(&path));
            assert!(known, "{} links to {target}, which git ignores", page.display());
        }
    }
}

#[test]
fn places_in_the_repository_are_there() {
    let folders = [
        "crds/",
        "controller/",
        "proxy/",
        "cli/",
        "charts/",
        "e2e/",
        "bench/",
        "docs/",
        "examples/",
        "hack/",
    ];
    for (page, text) in pages() {
        let prose: String = text.split("```").step_by(2).collect();
        for place in prose.split('`').skip(1).step_by(2) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            if folders.iter().any(|folder| place.starts_with(folder)) && place.chars().all(plain) {
                assert!(root().join(place).exists(), "{} names {place}", page.display());
            }
        }
    }
}

#[test]
fn targets_of_make_are_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("text");
    for (page, text) in pages() {
        let commands = text.lines().filter_map(|line| line.trim_start().strip_prefix("make "));
        for command in commands.chain(between(&text, "`make ", "`")) {
            let target = command.split_whitespace().next().unwrap_or_default();
            assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", page.display());
        }
    }
}

#[test]
fn every_flag_is_described() {
    let described = fs::read_to_string(root().join("docs/cli.md")).expect("text");
    for command in ["run", "translate", "crds", "echo", "version"] {
        assert!(described.contains(&format!("## headgate {command}\n")), "{command}");
        let help = output([command, "--help"]);
        let help = String::from_utf8(help.stdout).expect("text");
        let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let flags = lines.filter_map(|line| line.split("--").nth(1));
        for flag in flags.map(|flag| flag.split([' ', '.']).next().unwrap_or_default()) {
            let known = matches!(flag, "help" | "version") || described.contains(&format!("--{flag}"));
            assert!(known, "docs/cli.md lacks --{flag} of {command}");
        }
    }
}

#[test]
fn what_an_ingress_becomes_is_accepted() {
    let page = fs::read_to_string(root().join("docs/migrating-from-ingress-nginx.md")).expect("text");
    let after = between(&page, "```yaml\n# After", "```").next().expect("it has the example");
    let folder = Folder::with(&[("after.yaml", &format!("# {after}"))]);
    let backends = [examples().join("quickstart/backends.yaml"), examples().join("tls/certificate.yaml")];
    let conditions = conditions(&translate(&[folder.path(), &backends[0], &backends[1]]));
    let bad: Vec<_> = conditions.iter().filter(|condition| !condition.is_good()).collect();
    assert!(conditions.len() > 6 && bad.is_empty(), "{bad:#?}");
}
