//! `vdfs install` into a root of its own, as an ordinary user.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vdfs_tests::programs::{self, both_streams};

fn install(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::vdfs());
    command.arg("install").arg("--root").arg(root);
    command.args(arguments).output().expect("vdfs runs")
}

fn installed(root: &Path, arguments: &[&str]) -> String {
    let output = install(root, arguments);
    assert!(output.status.success(), "{}", both_streams(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// Standard output of an installed program.
fn says(root: &Path, program: &str, argument: &str) -> String {
    let output = Command::new(root.join(program)).arg(argument).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{}", both_streams(&output));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn installed_programs_run_and_all_that_is_named_is_there() {
    let root = tempfile::tempdir().expect("a scratch directory");
    let said = installed(root.path(), &[]);
    let named = said.lines().take_while(|line| line.starts_with('/'));
    for path in named.clone() {
        assert!(
            fs::metadata(path).is_ok_and(|file| file.len() > 0),
            "{path}"
        );
    }
    assert!(named.count() > 20, "{said}");
    for program in ["usr/bin/vdfs", "usr/bin/vdfs-master", "usr/bin/vdfs-volume"] {
        assert!(says(root.path(), program, "--version").starts_with("vdfs"));
    }
    for program in ["sbin/mount.vdfs", "sbin/mount.fuse.vdfs"] {
        assert!(says(root.path(), program, "--help").contains("SOURCE"));
    }
}

#[test]
fn install_again_replaces_programs_and_keeps_configuration() {
    let root = tempfile::tempdir().expect("a scratch directory");
    let volume = ["--volume", "1", "--ram", "1GiB", "--master", "10.0.0.1"];
    installed(root.path(), &volume);
    installed(root.path(), &[]);
    let config = root.path().join("etc/vdfs/volume-1.toml");
    let before = fs::read_to_string(&config).expect("written");
    assert!(before.contains("master = [\"10.0.0.1\"]"), "{before}");
    fs::write(root.path().join("usr/bin/vdfs-master"), "old").expect("written");
    installed(root.path(), &[]);
    says(root.path(), "usr/bin/vdfs-master", "--version");

    let refused = install(
        root.path(),
        &["--volume", "1", "--ram", "2GiB", "--master", "10.0.0.2"],
    );
    assert_eq!(refused.status.code(), Some(1));
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(line.contains("is there already"), "{line}");
    assert_eq!(fs::read_to_string(&config).expect("there"), before);
}

#[test]
fn dry_run_names_files_and_writes_none() {
    let root = tempfile::tempdir().expect("a scratch directory");
    let said = installed(root.path(), &["--dry-run"]);
    assert!(said.contains("/usr/bin/vdfs\n"), "{said}");
    assert_eq!(fs::read_dir(root.path()).expect("there").count(), 0);
}

#[test]
fn install_of_a_program_that_lies_alone_names_what_is_missing() {
    let root = tempfile::tempdir().expect("a scratch directory");
    let alone = root.path().join("vdfs");
    fs::copy(programs::vdfs(), &alone).expect("copied");
    let mut command = Command::new(&alone);
    let output = command
        .arg("install")
        .arg("--root")
        .arg(root.path().join("tree"))
        .output();
    let output = output.expect("vdfs runs");
    assert_eq!(output.status.code(), Some(1), "{}", both_streams(&output));
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(line.contains("vdfs-master: is not there"), "{line}");
    assert!(!root.path().join("tree").exists());
}
