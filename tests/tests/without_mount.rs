//! `vdfs put`, `get`, `ls`, `stat`, `cat`, `rm`, `locate`, `status` without any use of the mount.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use vdfs_tests::programs::{both_streams, vdfs};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(
    files_go_in_and_out_without_a_mount,
    dash_is_standard_input_and_output,
    status_and_locate_say_what_is,
    chunks_lie_in_tmpfs,
    nobody_to_ask_is_said_within_three_seconds,
);

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", both_streams(&output));
    String::from_utf8(output.stdout).expect("text")
}

fn json(output: Output) -> Value {
    serde_json::from_str(&ok(output)).expect("one JSON object")
}

fn files_go_in_and_out_without_a_mount(way: Way) {
    let vdfs = way.start(Options::default());
    let outside = vdfs.outside();
    let local = outside.join("file");
    fs::write(&local, pattern::bytes(2, 0, 1_500_000)).expect("writes");
    fs::set_permissions(&local, fs::Permissions::from_mode(0o640)).expect("chmod");
    let local = local.to_str().expect("plain");

    ok(vdfs.cli(&["put", local, "/file"]));
    let bytes = fs::read(vdfs.dir().join("file")).expect("the mount sees it");
    pattern::assert_matches(2, 0, &bytes);
    let mode = fs::metadata(vdfs.dir().join("file"))
        .expect("stats")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);

    fs::create_dir(vdfs.dir().join("dir")).expect("makes");
    fs::write(vdfs.dir().join("dir/from-mount"), b"bytes").expect("writes");
    assert_eq!(ok(vdfs.cli(&["ls", "/dir"])).trim(), "from-mount");
    assert_eq!(ok(vdfs.cli(&["cat", "/dir/from-mount"])), "bytes");
    assert!(ok(vdfs.cli(&["stat", "/file"])).contains("1500000"));

    let back = outside.join("back");
    ok(vdfs.cli(&["get", "/file", back.to_str().expect("plain")]));
    assert_eq!(fs::read(&back).expect("reads"), bytes);

    ok(vdfs.cli(&["rm", "/file"]));
    assert!(!vdfs.dir().join("file").exists());
    let missing = vdfs.cli(&["cat", "/file"]);
    assert_eq!(missing.status.code(), Some(1), "{}", both_streams(&missing));
    assert!(
        both_streams(&missing).contains("vdfs: /file: no such file"),
        "{}",
        both_streams(&missing)
    );
}

fn dash_is_standard_input_and_output(way: Way) {
    let filesystem = way.start(Options::default());
    let mut put = Command::new(vdfs())
        .args(["put", "-", "/piped"])
        .args(filesystem.access())
        .stdin(Stdio::piped())
        .spawn()
        .expect("vdfs runs");
    let mut stdin = put.stdin.take().expect("is piped");
    stdin
        .write_all(&pattern::bytes(8, 0, 700_000))
        .expect("writes");
    drop(stdin);
    assert!(put.wait().expect("ends").success());
    let output = filesystem.cli(&["get", "/piped", "-"]);
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 700_000);
    pattern::assert_matches(8, 0, &output.stdout);
}

fn status_and_locate_say_what_is(way: Way) {
    let vdfs = way.start(Options::default());
    fs::write(vdfs.dir().join("file"), pattern::bytes(2, 0, 600_000)).expect("writes");
    let status = json(vdfs.cli(&["status", "--json"]));
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

    let located = json(vdfs.cli(&["locate", "/file", "--json"]));
    assert_eq!(located["size_bytes"], 600_000);
    assert_eq!(located["chunk_bytes"], 256 << 10);
    let chunks = located["chunks"].as_array().expect("a list");
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[2]["len_bytes"], 600_000 - 2 * (256 << 10));
    assert_eq!(chunks[0]["members"].as_array().expect("a list").len(), 1);
    let on_mount = vdfs.dir().join("file");
    let same = json(vdfs.cli(&["locate", on_mount.to_str().expect("plain"), "--json"]));
    assert_eq!(same, located);
}

fn chunks_lie_in_tmpfs(way: Way) {
    let vdfs = way.start(Options::default());
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    for ram in vdfs.ram_dirs() {
        let stats = rustix::fs::statfs(ram).expect("statfs");
        assert_eq!(stats.f_type as i64, TMPFS_MAGIC);
    }
}

fn nobody_to_ask_is_said_within_three_seconds(way: Way) {
    let mut vdfs = way.start(Options::default());
    vdfs.stop();
    let start = std::time::Instant::now();
    let output = vdfs.cli(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{}", both_streams(&output));
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}
