//! What only `vdfs up` does.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use vdfs_tests::mount::{is_mountpoint, unmount_lazily};
use vdfs_tests::programs::both_streams;
use vdfs_tests::{Options, Up, mount_tests_skipped, pattern};

#[test]
fn second_up_on_the_same_state_is_refused() {
    if mount_tests_skipped() {
        return;
    }
    let up = Up::start(Options::default());
    let output = up.part.run();
    assert_eq!(output.status.code(), Some(1), "{}", both_streams(&output));
    let expected = format!("already running as pid {}", up.pid().as_raw_nonzero());
    assert!(
        both_streams(&output).contains(&expected),
        "{}",
        both_streams(&output)
    );
    fs::write(up.mount().join("still"), b"works").expect("the first is untouched");
}

/// Nobody on another machine can even send it something.
#[test]
fn sockets_are_bound_to_the_loopback_alone() {
    if mount_tests_skipped() {
        return;
    }
    let up = Up::start(Options::default());
    let pid = up.pid().as_raw_nonzero();
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let links = fds.filter_map(|fd| fs::read_link(fd.expect("listed").path()).ok());
    let sockets: Vec<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            Some(inode.trim_end_matches(']').to_owned())
        })
        .collect();
    let mut bound = Vec::new();
    for table in ["udp", "udp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if sockets.iter().any(|inode| inode == fields[9]) {
                bound.push(fields[1].to_owned());
            }
        }
    }
    // Two of the master at one port, two of each volume.
    let expected = 2 + 2 * Options::default().volumes as usize;
    assert_eq!(bound.len(), expected, "{bound:?}");
    let is_loopback = |addr: &String| addr.starts_with("0100007F:");
    assert!(bound.iter().all(is_loopback), "{bound:?}");
}

#[test]
fn down_stops_and_down_destroy_leaves_nothing() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(Options::default());
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
fn fresh_starts_empty_and_keeps_the_old_log() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(Options::default());
    fs::write(up.mount().join("file"), b"bytes").expect("writes");
    up.stop();
    up.add_argument("--fresh");
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
    let mut up = Up::start(Options::default());
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
    let mut up = Up::start(Options::default());
    fs::write(up.mount().join("file"), pattern::bytes(1, 0, 1 << 20)).expect("writes");
    up.signal(Signal::INT);
    let (status, stderr) = up.wait(Duration::from_secs(10));
    assert!(status.success(), "{stderr}");
}

#[test]
fn stop_says_what_stays_in_ram_and_a_start_after_a_reboot_what_is_gone() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(Options::default());
    fs::write(up.mount().join("file"), pattern::bytes(1, 0, 3 << 20)).expect("writes");
    let (status, stderr) = up.stop();
    assert!(status.success(), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("stay in RAM; free them with: vdfs down --destroy"),
        "{stderr}"
    );
    unmount_lazily(&up.state().join("ram"));
    up.run_again();
    let stderr = up.part.stderr();
    assert!(
        stderr.contains("had their data in RAM that is gone"),
        "{stderr}"
    );
}
