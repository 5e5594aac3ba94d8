//! Exit codes, as docs/cli.md has them.

use crate::manifests::{Folder, gateway};
use crate::process::{Process, headgate, output};
use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

fn code(arguments: &[&str]) -> (Option<i32>, String) {
    let done = output(arguments);
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn done_is_0() {
    for arguments in [&["version"][..], &["crds"], &["--help"], &["run", "--help"]] {
        assert_eq!(code(arguments).0, Some(0), "{arguments:?}");
    }
    let folder = Folder::with(&[("gateway.yaml", &gateway(8080))]);
    assert_eq!(code(&["translate", "-f", &folder.path().display().to_string()]), (Some(0), String::new()));
}

#[test]
fn failed_is_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = Folder::with(&[("gateway.yaml", &gateway(8080))]);
    let path = folder.path().display().to_string();
    let mut headgate = Process::start(["run", "--admin-address", &address, "-f", &path]);
    let said = headgate.line_with("headgate: ");
    assert!(said.contains(&address), "{said}");
    assert_eq!(headgate.ended().0.code(), Some(1));
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [
        &["serve"][..],
        &["run", "--thread=2"],
        &["run", "--threads=none"],
        &["run", "--port-range=80-90"],
        &["translate"],
        &["translate", "-f", ".", "--output=xml"],
        &["echo"],
    ] {
        let (code, said) = code(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains("error:"), "{said}");
    }
}

#[test]
fn files_at_fault_are_3_and_all_their_mistakes_are_told() {
    let folder = Folder::with(&[
        ("a.yaml", "kind: Gateway\n"),
        ("b.yaml", "kind: {"),
        ("c.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {port: 80}\n"),
    ]);
    let (number, said) = code(&["translate", "-f", &folder.path().display().to_string()]);
    assert_eq!(number, Some(3), "{said}");
    for told in ["3 errors", "a.yaml:1:1: apiVersion: Required", "b.yaml:1:", "unknown field \"spec.port\""] {
        assert!(said.contains(told), "{told} in {said}");
    }
    let missing = folder.path().join("missing.yaml").display().to_string();
    let (number, said) = code(&["translate", "-f", &missing]);
    assert_eq!(number, Some(3), "{said}");
    assert!(said.contains("missing.yaml"), "{said}");
}

/// As in `kubectl get … -o yaml | headgate translate -f -`.
#[test]
fn standard_input_is_a_file_too() {
    let mut command = headgate();
    command.args(["translate", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let list =
        format!("apiVersion: v1\nkind: List\nitems:\n- {}", gateway(8080).trim_end().replace('\n', "\n  "));
    child.stdin.take().expect("piped").write_all(list.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("it is our child");
    assert_eq!(done.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&done.stdout).contains("name: gateway"));
}
