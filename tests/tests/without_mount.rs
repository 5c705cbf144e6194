//! `vdfs put`, `get`, `ls`, `stat`, `cat`, `rm`, `locate`, `status` against a running `up`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use vdfs_tests::programs::{both_streams, vdfs};
use vdfs_tests::{Up, UpOptions, mount_tests_skipped, pattern};

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", both_streams(&output));
    String::from_utf8(output.stdout).expect("text")
}

fn json(output: Output) -> Value {
    serde_json::from_str(&ok(output)).expect("one JSON object")
}

#[test]
fn files_go_in_and_out_without_a_mount() {
    if mount_tests_skipped() {
        return;
    }
    let up = Up::start(UpOptions::default());
    let outside = up.outside();
    let local = outside.join("file");
    fs::write(&local, pattern::bytes(2, 0, 1_500_000)).expect("writes");
    fs::set_permissions(&local, fs::Permissions::from_mode(0o640)).expect("chmod");
    let local = local.to_str().expect("plain");

    ok(up.vdfs(&["put", local, "/file"]));
    let bytes = fs::read(up.mount().join("file")).expect("the mount sees it");
    pattern::assert_matches(2, 0, &bytes);
    let mode = fs::metadata(up.mount().join("file"))
        .expect("stats")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);

    fs::create_dir(up.mount().join("dir")).expect("makes");
    fs::write(up.mount().join("dir/from-mount"), b"bytes").expect("writes");
    assert_eq!(ok(up.vdfs(&["ls", "/dir"])).trim(), "from-mount");
    assert_eq!(ok(up.vdfs(&["cat", "/dir/from-mount"])), "bytes");
    assert!(ok(up.vdfs(&["stat", "/file"])).contains("1500000"));

    let back = outside.join("back");
    ok(up.vdfs(&["get", "/file", back.to_str().expect("plain")]));
    assert_eq!(fs::read(&back).expect("reads"), bytes);

    ok(up.vdfs(&["rm", "/file"]));
    assert!(!up.mount().join("file").exists());
    let missing = up.vdfs(&["cat", "/file"]);
    assert_eq!(missing.status.code(), Some(1), "{}", both_streams(&missing));
    assert!(
        both_streams(&missing).contains("vdfs: /file: no such file"),
        "{}",
        both_streams(&missing)
    );
}

#[test]
fn dash_is_standard_input_and_output() {
    if mount_tests_skipped() {
        return;
    }
    let up = Up::start(UpOptions::default());
    let mut put = Command::new(vdfs())
        .args(["put", "-", "/piped", "--state"])
        .arg(up.state())
        .stdin(Stdio::piped())
        .spawn()
        .expect("vdfs runs");
    let mut stdin = put.stdin.take().expect("is piped");
    stdin
        .write_all(&pattern::bytes(8, 0, 700_000))
        .expect("writes");
    drop(stdin);
    assert!(put.wait().expect("ends").success());
    let output = up.vdfs(&["get", "/piped", "-"]);
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 700_000);
    pattern::assert_matches(8, 0, &output.stdout);
}

#[test]
fn status_and_locate_say_what_is() {
    if mount_tests_skipped() {
        return;
    }
    let up = Up::start(UpOptions::default());
    fs::write(up.mount().join("file"), pattern::bytes(2, 0, 600_000)).expect("writes");
    let status = json(up.vdfs(&["status", "--json"]));
    assert_eq!(status["health"], "ok", "{status}");
    assert_eq!(
        status["volumes"].as_array().expect("a list").len(),
        2,
        "{status}"
    );
    assert_eq!(status["replicas"], 1);
    assert_eq!(status["chains"]["whole"], status["chains"]["total"]);
    assert!(
        status["used_bytes"].as_u64().expect("a number") >= 600_000,
        "{status}"
    );
    assert!(
        status["sessions"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    );

    let located = json(up.vdfs(&["locate", "/file", "--json"]));
    assert_eq!(located["size_bytes"], 600_000);
    assert_eq!(located["chunk_bytes"], 256 << 10);
    let chunks = located["chunks"].as_array().expect("a list");
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[2]["len_bytes"], 600_000 - 2 * (256 << 10));
    assert_eq!(chunks[0]["members"].as_array().expect("a list").len(), 1);
    let on_mount = up.mount().join("file");
    let same = json(up.vdfs(&["locate", on_mount.to_str().expect("plain"), "--json"]));
    assert_eq!(same, located);
}

#[test]
fn chunks_lie_in_tmpfs() {
    if mount_tests_skipped() {
        return;
    }
    let up = Up::start(UpOptions::default());
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let stats = rustix::fs::statfs(up.state().join("ram")).expect("statfs");
    assert_eq!(stats.f_type as i64, TMPFS_MAGIC);
}

#[test]
fn nobody_to_ask_is_said_within_three_seconds() {
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    up.stop();
    let start = std::time::Instant::now();
    let output = up.vdfs(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{}", both_streams(&output));
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}
