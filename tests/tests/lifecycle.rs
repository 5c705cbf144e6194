//! Start, stop, kill, reboot: what is there afterwards.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use filetime::FileTime;
use vdfs_tests::programs::both_streams;
use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(
    kill_9_then_start_brings_everything_back,
    stop_then_start_brings_everything_back,
    reboot_keeps_names_and_never_gives_zeros,
    unflushed_writes_survive_a_clean_stop,
);

fn kill_9_then_start_brings_everything_back(way: Way) {
    let mut vdfs = way.start(Options::default());
    make_sample(&vdfs.dir());
    vdfs.kill9();
    assert!(
        fs::metadata(vdfs.dir().join("big")).is_err(),
        "a dead mount does not answer"
    );
    vdfs.run_again();
    assert_sample(&vdfs.dir());
    assert!(
        vdfs.started_in < Duration::from_secs(5),
        "ready after {:?}",
        vdfs.started_in
    );
}

fn stop_then_start_brings_everything_back(way: Way) {
    let mut vdfs = way.start(Options::default());
    make_sample(&vdfs.dir());
    vdfs.stop();
    assert!(!vdfs_tests::mount::is_mountpoint(&vdfs.dir()));
    vdfs.run_again();
    assert_sample(&vdfs.dir());
}

fn reboot_keeps_names_and_never_gives_zeros(way: Way) {
    let mut vdfs = way.start(Options::default());
    make_sample(&vdfs.dir());
    File::create(vdfs.dir().join("empty")).expect("creates");
    vdfs.stop();
    vdfs.lose_ram();
    vdfs.run_again();
    let mount = vdfs.dir();
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

    let output = vdfs.cli(&["forget-lost"]);
    assert!(output.status.success(), "{}", both_streams(&output));
    assert!(!mount.join("big").exists());
    assert_eq!(
        fs::read(mount.join("new")).expect("reads"),
        b"after the reboot"
    );
}

fn unflushed_writes_survive_a_clean_stop(way: Way) {
    let mut vdfs = way.start(Options::default());
    // The writer still has the file open, and has called neither fsync nor close.
    let mut writer = Command::new("sh")
        .args([
            "-c",
            r#"exec 3> "$0"; printf 0123456789 >&3; touch "$1"; sleep 60"#,
        ])
        .arg(vdfs.dir().join("file"))
        .arg(vdfs.outside().join("written"))
        .spawn()
        .expect("runs");
    let written = vdfs.outside().join("written");
    eventually("the writer has written", Duration::from_secs(10), || {
        written.exists()
    });
    vdfs.stop();
    drop(writer.kill());
    drop(writer.wait());
    vdfs.run_again();
    assert_eq!(
        fs::read(vdfs.dir().join("file")).expect("reads"),
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
