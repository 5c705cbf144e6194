//! pjdfstest from crates.io: what POSIX says of each call, its errors and the times it touches.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use vdfs_tests::programs::{both_streams, installed};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    pjdfstest_finds_no_difference_from_posix,
    pjdfstest_finds_no_difference_from_posix_when_read_only,
);

/// Everything that the suite knows on Linux is on.
const FEATURES: &str = "
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
";

/// What may be skipped: `pathconf(3)` knows no limit of links for FUSE.
const NO_LIMIT_KNOWN: &str = "link::link_count_max";

/// Cases that make the filesystem read-only have a run of their own: others leave files open for
/// writing, and the kernel refuses to.
const READ_ONLY: &str = "::erofs_";

fn pjdfstest_finds_no_difference_from_posix(way: Way) {
    let results = run_suite(way, "allow_remount = false", &[]);
    let skipped = results.skipped.iter();
    let unexpected: Vec<_> = skipped
        .filter(|name| *name != NO_LIMIT_KNOWN && !name.contains(READ_ONLY))
        .collect();
    assert!(unexpected.is_empty(), "skipped: {unexpected:?}");
    // Fewer would mean that a part of the suite did not run.
    assert!(results.passed >= 380, "only {} passed", results.passed);
}

fn pjdfstest_finds_no_difference_from_posix_when_read_only(way: Way) {
    let results = run_suite(way, "allow_remount = true", &[READ_ONLY]);
    assert!(results.skipped.is_empty(), "{:?}", results.skipped);
    assert!(results.passed >= 13, "only {} passed", results.passed);
}

/// Runs the cases whose names contain one of `patterns`, all without any; panics if one fails.
fn run_suite(way: Way, setting: &str, patterns: &[&str]) -> Results {
    let vdfs = way.start(Options::default());
    let other_fs = TempDir::new_in("/dev/shm").expect("another filesystem");
    let config = vdfs.outside().join("pjdfstest.toml");
    let settings = format!("[settings]\nnaptime = 0.02\n{setting}\n");
    fs::write(&config, [FEATURES, &settings, &users()].concat()).expect("writes");
    let mut command = Command::new(installed("pjdfstest", "0.2.2"));
    command.arg("-c").arg(config);
    command.arg("-p").arg(vdfs.dir());
    command.arg("-s").arg(other_fs.path());
    command.arg("--").args(patterns);
    command.env("PATH", path_with_patient_mount(&vdfs.outside()));
    command.env("NO_COLOR", "1").current_dir("/");
    let output = command.output().expect("pjdfstest runs");
    let results = Results::of(&output);
    assert!(
        output.status.success() && results.failed.is_empty(),
        "{:?} failed: {}",
        results.failed,
        both_streams(&output)
    );
    results
}

/// Two unprivileged users that every system has, each with its own group, whatever its name.
fn users() -> String {
    let passwd = fs::read_to_string("/etc/passwd").expect("users");
    let groups = fs::read_to_string("/etc/group").expect("groups");
    let entries = ["nobody", "daemon"].map(|user| {
        let id = field(3, line_with(&passwd, 0, user));
        let group = field(0, line_with(&groups, 2, id));
        format!("[\"{user}\", \"{group}\"]")
    });
    format!("[dummy_auth]\nentries = [{}]\n", entries.join(", "))
}

/// The line of passwd(5) or group(5) whose field `number` is `value`.
fn line_with<'a>(table: &'a str, number: usize, value: &str) -> &'a str {
    let mut lines = table.lines();
    let line = lines.find(|line| field(number, line) == value);
    line.unwrap_or_else(|| panic!("no {value} among the users and groups"))
}

fn field(number: usize, line: &str) -> &str {
    line.split(':').nth(number).unwrap_or_default()
}

/// A `PATH` with a `mount` that needs no helper program for the filesystem's type, and asks again
/// while the mount is busy: a file that was open for writing keeps it so until FUSE has released
/// the file, which is after `close(2)`.
fn path_with_patient_mount(dir: &Path) -> String {
    let script = "#!/bin/sh\n\
                  for attempt in $(seq 100); do\n\
                  /bin/mount -i \"$@\" && exit 0\n\
                  sleep 0.02\n\
                  done\n\
                  exit 1\n";
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("a directory");
    let mount = bin.join("mount");
    fs::write(&mount, script).expect("writes");
    fs::set_permissions(&mount, fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = std::env::var("PATH").expect("a PATH");
    format!("{}:{path}", bin.display())
}

/// What the suite says of each case: its name and a word.
#[derive(Debug, Default)]
struct Results {
    passed: usize,
    skipped: Vec<String>,
    failed: Vec<String>,
}

impl Results {
    fn of(output: &Output) -> Results {
        let text = String::from_utf8_lossy(&output.stdout);
        let mut results = Results::default();
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [_, "ok"] => results.passed += 1,
                [name, "skipped"] => results.skipped.push(name.into()),
                [name, "FAILED"] => results.failed.push(name.into()),
                _ => {}
            }
        }
        results
    }
}
