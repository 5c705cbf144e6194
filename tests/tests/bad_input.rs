//! Bad input, each with its exit status and its line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vdfs_tests::programs::{both_streams, shell, vdfs};
use vdfs_tests::{Filesystem, Options, Way, mount_tests_skipped, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    log_with_a_flipped_bit_is_refused_with_file_and_offset,
    truncated_log_is_refused,
    log_of_another_cluster_is_refused,
    full_disk_under_the_log_is_no_space_and_goes_on_when_there_is_room,
);

/// Runs `vdfs ARGS`, and panics unless it ends with `status` and says `expected` on standard error.
fn refused(args: &[&str], status: i32, expected: &str) {
    let output = Command::new(vdfs()).args(args).output().expect("vdfs runs");
    assert_refused(&output, status, expected, args);
}

fn assert_refused(output: &Output, status: i32, expected: &str, args: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{args:?}: {}",
        both_streams(output)
    );
    assert!(
        stderr.contains(expected),
        "{args:?}: no {expected:?} in {stderr:?}"
    );
    assert!(
        output.stdout.is_empty(),
        "{args:?}: {}",
        both_streams(output)
    );
    if status == 1 {
        assert!(stderr.starts_with("vdfs"), "{stderr}");
    }
}

#[test]
fn unusable_arguments_are_refused_with_status_2() {
    let cases: &[(&[&str], &str)] = &[
        (&["up"], "DIR"),
        (&["up", "/tmp/x", "--no-such-flag"], "--no-such-flag"),
        (&["up", "/tmp/x", "--ram", "4"], "4GiB"),
        (&["up", "/tmp/x", "--ram", "many"], "many"),
        (&["up", "/tmp/x", "--chunk-size", "3MiB"], "power of two"),
        (&["up", "/tmp/x", "--chunk-size", "512MiB"], "256MiB"),
        (&["up", "/tmp/x", "--volumes", "0"], "0"),
        (&["no-such-command"], "no-such-command"),
    ];
    for (args, expected) in cases {
        refused(args, 2, expected);
    }
}

#[test]
fn unusable_mountpoints_and_sizes_are_refused_with_status_1() {
    if mount_tests_skipped() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| {
        scratch
            .path()
            .join(name)
            .to_str()
            .expect("plain")
            .to_owned()
    };
    fs::write(path("file"), b"").expect("writes");
    fs::create_dir_all(path("full/sub")).expect("makes directories");
    let state = path("state");
    let up = |dir: &str, ram: &str, expected: &str| {
        refused(&["up", dir, "--ram", ram, "--state", &state], 1, expected);
    };
    up(&path("file"), "64MiB", "not a directory");
    up(&path("full"), "64MiB", "not empty");
    up(&path("mnt"), "100TiB", "--ram");
    assert!(
        !is_mounted_below(scratch.path()),
        "a refused start leaves no mount"
    );
}

#[test]
fn no_cluster_is_named_with_the_ways_to_name_one() {
    let scratch = tempfile::tempdir().expect("a directory");
    let output = Command::new(vdfs())
        .arg("status")
        .env("HOME", scratch.path())
        .env("XDG_STATE_HOME", scratch.path())
        .args([
            "--state",
            scratch.path().join("none").to_str().expect("plain"),
        ])
        .output()
        .expect("vdfs runs");
    assert_refused(&output, 1, "none", &["status"]);
}

fn log_of_another_cluster_is_refused(way: Way) {
    let mut first = way.start(Options::default());
    let mut second = way.start(Options::default());
    fs::write(first.dir().join("file"), b"bytes").expect("writes");
    first.stop();
    second.stop();
    // The log of one with the identities of the other.
    let (log, foreign) = (first.log_dir(), second.log_dir());
    shell(
        &format!("rm -r {log:?}; cp -a {foreign:?} {log:?}"),
        Path::new("/"),
    );
    assert_start_fails(&first, "another cluster");
}

fn log_with_a_flipped_bit_is_refused_with_file_and_offset(way: Way) {
    let mut vdfs = way.start(Options::default());
    for number in 0..200 {
        fs::write(vdfs.dir().join(number.to_string()), b"bytes").expect("writes");
    }
    shell("sync -f . || true; sleep 0.3", &vdfs.dir());
    vdfs.kill9();
    let segment = newest_segment(&vdfs.log_dir());
    let mut bytes = fs::read(&segment).expect("reads");
    let middle = written_len(&bytes) / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, &bytes).expect("writes");
    assert_start_fails(
        &vdfs,
        segment
            .file_name()
            .and_then(|name| name.to_str())
            .expect("plain"),
    );
    assert_start_fails(&vdfs, "offset");
    bytes[middle] ^= 0x10;
    fs::write(&segment, &bytes).expect("writes");
    vdfs.run_again();
    assert_eq!(fs::read(vdfs.dir().join("199")).expect("reads"), b"bytes");
}

fn truncated_log_is_refused(way: Way) {
    let mut vdfs = way.start(Options::default());
    for number in 0..200 {
        fs::write(vdfs.dir().join(number.to_string()), b"bytes").expect("writes");
    }
    vdfs.stop();
    // What is cut off here was synced, and a later segment or checkpoint says so.
    let segment = newest_segment(&vdfs.log_dir());
    let len = written_len(&fs::read(&segment).expect("reads"));
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .expect("opens");
    file.set_len(len as u64 / 2).expect("truncates");
    let output = vdfs.refused_start();
    assert_eq!(output.status.code(), Some(1), "{}", both_streams(&output));
}

fn full_disk_under_the_log_is_no_space_and_goes_on_when_there_is_room(way: Way) {
    let mut vdfs = way.start(Options::default());
    vdfs.stop();
    let log = vdfs.log_dir();
    let script = format!(
        "mv {log:?} {log:?}.kept; mkdir {log:?}; mount -t tmpfs -o size=80m none {log:?}; \
         cp -a {log:?}.kept/. {log:?}/"
    );
    shell(&script, Path::new("/"));
    let unmount = Unmount(log.clone());
    vdfs.run_again();
    fs::write(vdfs.dir().join("before"), b"bytes").expect("writes");
    shell("dd if=/dev/zero of=filler bs=1M status=none || true", &log);
    let mut refused = None;
    for number in 0..200_000 {
        if let Err(error) = fs::create_dir(vdfs.dir().join(number.to_string())) {
            refused = error.raw_os_error();
            break;
        }
    }
    assert_eq!(refused, Some(libc::ENOSPC));
    assert_eq!(
        fs::read(vdfs.dir().join("before")).expect("reads are served"),
        b"bytes"
    );
    fs::remove_file(log.join("filler")).expect("makes room");
    let limit = std::time::Duration::from_secs(5);
    vdfs_tests::eventually("mutations are taken again", limit, || {
        fs::create_dir(vdfs.dir().join("after")).is_ok()
    });
    vdfs.stop();
    drop(unmount);
}

/// Starts the keeper of the names and panics unless it is refused with status 1 and `expected`.
fn assert_start_fails(vdfs: &Filesystem, expected: &str) {
    assert_refused(&vdfs.refused_start(), 1, expected, &["start"]);
}

fn newest_segment(log: &Path) -> PathBuf {
    let entries = fs::read_dir(log).expect("lists");
    let paths = entries.flatten().map(|entry| entry.path());
    let segments = paths.filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("wal-"))
    });
    segments.max().expect("a segment")
}

/// Length without the zeros of preallocated room.
fn written_len(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}

fn is_mounted_below(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("reads");
    mounts.contains(dir.to_str().expect("plain"))
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        vdfs_tests::mount::unmount_lazily(&self.0);
    }
}
