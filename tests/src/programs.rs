//! The programs under test, built once, and programs of others.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Directory of the built programs of this profile (`target/debug` or `target/release`).
fn program_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let dir = test
            .ancestors()
            .find(|dir| dir.join(".fingerprint").is_dir());
        let dir = dir
            .expect("a test lies below its profile's directory")
            .to_path_buf();
        // What is no test is run by hand, with the programs beside it.
        if test.parent().is_some_and(|parent| parent.ends_with("deps")) {
            build(dir.ends_with("release"));
        }
        dir
    })
}

/// `cargo test -p vdfs-tests` alone does not build the programs, and one from an earlier build would
/// test yesterday's code.
fn build(is_release: bool) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--bins"]);
    for package in [
        "vdfs-cli",
        "vdfs-fuse",
        "vdfs-master",
        "vdfs-volume",
        "vdfs-tests",
    ] {
        cargo.args(["-p", package]);
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if is_release {
        cargo.arg("--release");
    }
    assert!(
        cargo.status().expect("cargo runs").success(),
        "the programs do not build"
    );
}

pub fn vdfs() -> PathBuf {
    program_dir().join("vdfs")
}

pub fn vdfs_master() -> PathBuf {
    program_dir().join("vdfs-master")
}

pub fn vdfs_volume() -> PathBuf {
    program_dir().join("vdfs-volume")
}

pub fn mount_vdfs() -> PathBuf {
    program_dir().join("mount-vdfs")
}

pub(crate) fn journal_writer() -> PathBuf {
    program_dir().join("journal-writer")
}

pub(crate) fn linear() -> PathBuf {
    program_dir().join("linear")
}

pub(crate) fn locker() -> PathBuf {
    program_dir().join("locker")
}

pub(crate) fn lock_counter() -> PathBuf {
    program_dir().join("lock-counter")
}

/// A program of the pinned crate `name`, installed below `target/` on first use.
pub fn installed(name: &str, version: &str) -> PathBuf {
    let root = program_dir()
        .parent()
        .expect("a profile lies in target")
        .join("tools");
    let program = root.join("bin").join(name);
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        // What is built here goes to nobody else's directory.
        cargo.env_remove("CARGO_TARGET_DIR").args([
            "install",
            "--locked",
            "--quiet",
            "--version",
            version,
            "--root",
        ]);
        cargo.arg(&root).arg(name);
        assert!(
            cargo.status().expect("cargo runs").success(),
            "{name} {version} does not install"
        );
    }
    program
}

/// Runs a command to its end and panics with its output unless it succeeds.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S], dir: &Path) -> Output {
    let output = Command::new(program).args(args).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed here: {error}"));
    assert!(
        output.status.success(),
        "{program} failed: {}",
        both_streams(&output)
    );
    output
}

/// Runs a shell script with `set -e` and panics with its output and trace unless it succeeds; gives
/// what it printed.
pub fn shell(script: &str, dir: &Path) -> String {
    let output = run("sh", &["-exc", script], dir);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard output and standard error, for messages.
pub fn both_streams(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
