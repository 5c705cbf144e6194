//! Start, stop, kill, reboot: what is there afterwards.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use filetime::FileTime;
use rustix::process::Signal;
use vdfs_tests::programs::{both_streams, run, vdfs};
use vdfs_tests::up::unmount_lazily;
use vdfs_tests::{Up, UpOptions, eventually, mount_tests_skipped, pattern};

#[test]
fn kill_9_then_start_brings_everything_back() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    make_sample(&up.mount());
    up.kill9();
    assert!(
        fs::metadata(up.mount().join("big")).is_err(),
        "a dead mount does not answer"
    );
    up.run_again();
    assert_sample(&up.mount());
    assert!(
        up.started_in < Duration::from_secs(5),
        "ready after {:?}",
        up.started_in
    );
}

#[test]
fn stop_then_start_brings_everything_back_and_says_what_stays_in_ram() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    make_sample(&up.mount());
    let (status, stderr) = up.stop();
    assert!(status.success(), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("stay in RAM; free them with: vdfs down --destroy"),
        "{stderr}"
    );
    assert!(!is_mountpoint(&up.mount()));
    up.run_again();
    assert_sample(&up.mount());
}

#[test]
fn second_up_on_the_same_state_is_refused() {
    if mount_tests_skipped() {
        return;
    }
    let up = Up::start(UpOptions::default());
    let output = Command::new(vdfs())
        .args(up.arguments())
        .output()
        .expect("vdfs runs");
    assert_eq!(output.status.code(), Some(1), "{}", both_streams(&output));
    let expected = format!("already running as pid {}", up.pid().as_raw_nonzero());
    assert!(
        both_streams(&output).contains(&expected),
        "{}",
        both_streams(&output)
    );
    fs::write(up.mount().join("still"), b"works").expect("the first is untouched");
}

#[test]
fn down_stops_and_down_destroy_leaves_nothing() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    fs::write(up.mount().join("file"), b"bytes").expect("writes");
    let mount = up.mount();
    let output = up.vdfs(&["down", mount.to_str().expect("plain")]);
    assert!(output.status.success(), "{}", both_streams(&output));
    let (status, stderr) = up.wait(Duration::from_secs(10));
    assert!(status.success(), "{stderr}");
    let output = up.vdfs(&["down", "--destroy"]);
    assert!(output.status.success(), "{}", both_streams(&output));
    assert!(!is_mountpoint(&up.state().join("ram")));
    assert!(!up.state().join("log").exists(), "the names are gone too");
    up.run_again();
    assert_eq!(fs::read_dir(up.mount()).expect("lists").count(), 0);
}

#[test]
fn reboot_keeps_names_and_says_that_bytes_are_gone() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    make_sample(&up.mount());
    File::create(up.mount().join("empty")).expect("creates");
    up.stop();
    unmount_lazily(&up.state().join("ram"));
    up.run_again();
    let mount = up.mount();
    let error = fs::read(mount.join("big")).expect_err("lost bytes are never zeros");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!(
        fs::metadata(mount.join("big")).expect("stats").len(),
        BIG_BYTES as u64
    );
    assert_eq!(
        fs::read(mount.join("empty")).expect("an empty file is whole"),
        b""
    );
    fs::write(mount.join("empty"), b"new bytes").expect("an empty file has lost nothing");
    assert_eq!(fs::read(mount.join("empty")).expect("reads"), b"new bytes");
    assert_eq!(
        fs::read_link(mount.join("dir/link")).expect("reads"),
        Path::new("../big")
    );
    fs::write(mount.join("new"), b"after the reboot").expect("new files can be written");

    let output = up.vdfs(&["forget-lost"]);
    assert!(output.status.success(), "{}", both_streams(&output));
    assert!(!mount.join("big").exists());
    assert_eq!(
        fs::read(mount.join("new")).expect("reads"),
        b"after the reboot"
    );
    let (_, stderr) = up.stop();
    assert!(
        stderr.contains("had their data in RAM that is gone"),
        "{stderr}"
    );
}

#[test]
fn fresh_starts_empty_and_keeps_the_old_log() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    make_sample(&up.mount());
    up.stop();
    up.options_mut().extra = vec!["--fresh".into()];
    up.run_again();
    assert_eq!(fs::read_dir(up.mount()).expect("lists").count(), 0);
    let kept = fs::read_dir(up.state())
        .expect("lists")
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("log.old"));
    assert!(kept, "the old log is kept aside");
}

#[test]
fn busy_mount_is_detached_and_its_users_are_named() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    let mut user = Command::new("sleep")
        .arg("60")
        .current_dir(up.mount())
        .spawn()
        .expect("runs");
    let (status, stderr) = up.stop();
    drop(user.kill());
    drop(user.wait());
    assert!(status.success(), "{stderr}");
    assert!(
        stderr.contains("sleep") && stderr.contains(&user.id().to_string()),
        "{stderr}"
    );
    assert!(!is_mountpoint(&up.mount()));
}

#[test]
fn ctrl_c_stops_within_ten_seconds() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    fs::write(up.mount().join("file"), pattern::bytes(1, 0, 1 << 20)).expect("writes");
    up.signal(Signal::INT);
    let (status, stderr) = up.wait(Duration::from_secs(10));
    assert!(status.success(), "{stderr}");
}

#[test]
fn unflushed_writes_survive_a_clean_stop() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    // The writer still has the file open, and has called neither fsync nor close.
    let mut writer = Command::new("sh")
        .args([
            "-c",
            r#"exec 3> "$0"; printf 0123456789 >&3; touch "$1"; sleep 60"#,
        ])
        .arg(up.mount().join("file"))
        .arg(up.outside().join("written"))
        .spawn()
        .expect("runs");
    let written = up.outside().join("written");
    eventually("the writer has written", Duration::from_secs(10), || {
        written.exists()
    });
    up.stop();
    drop(writer.kill());
    drop(writer.wait());
    up.run_again();
    assert_eq!(
        fs::read(up.mount().join("file")).expect("reads"),
        b"0123456789"
    );
}

const BIG_BYTES: usize = 3_000_001;

/// A file over many chunks, small ones, links, modes, owners and times.
fn make_sample(root: &Path) {
    fs::write(root.join("big"), pattern::bytes(7, 0, BIG_BYTES)).expect("writes");
    fs::create_dir(root.join("dir")).expect("makes a directory");
    symlink("../big", root.join("dir/link")).expect("makes a symlink");
    fs::write(root.join("dir/small"), b"small").expect("writes");
    fs::hard_link(root.join("dir/small"), root.join("dir/other-name")).expect("links");
    fs::set_permissions(root.join("dir/small"), fs::Permissions::from_mode(0o4711)).expect("chmod");
    chown(root.join("big"), Some(1234), Some(5678)).expect("chown");
    let (atime, mtime) = (
        FileTime::from_unix_time(1, 2),
        FileTime::from_unix_time(-3, 999),
    );
    filetime::set_file_times(root.join("big"), atime, mtime).expect("utimensat");
    fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o1750)).expect("chmod");
}

fn assert_sample(root: &Path) {
    let bytes = fs::read(root.join("big")).expect("reads");
    assert_eq!(bytes.len(), BIG_BYTES);
    pattern::assert_matches(7, 0, &bytes);
    let big = fs::metadata(root.join("big")).expect("stats");
    assert_eq!((big.uid(), big.gid()), (1234, 5678));
    assert_eq!((big.mtime(), big.mtime_nsec()), (-3, 999));
    let small = fs::metadata(root.join("dir/small")).expect("stats");
    assert_eq!((small.mode() & 0o7777, small.nlink()), (0o4711, 2));
    assert_eq!(
        fs::read(root.join("dir/other-name")).expect("reads"),
        b"small"
    );
    assert_eq!(
        fs::read_link(root.join("dir/link")).expect("reads"),
        Path::new("../big")
    );
    assert_eq!(
        fs::metadata(root.join("dir")).expect("stats").mode() & 0o7777,
        0o1750
    );
}

fn is_mountpoint(dir: &Path) -> bool {
    let mounts = run("cat", &["/proc/self/mounts"], Path::new("/"));
    let text = String::from_utf8_lossy(&mounts.stdout).into_owned();
    let dir = dir.to_str().expect("plain");
    text.lines().any(|line| line.split(' ').nth(1) == Some(dir))
}
