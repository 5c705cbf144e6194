//! `kill -9` in the middle of writes: every acknowledged byte is compared.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vdfs_tests::{Up, UpOptions, eventually, mount_tests_skipped, pattern};

const RECORD_BYTES: usize = 3000;
const RECORDS: u64 = 20_000;

/// Runs as a child process: writes one record after another, and says on standard output which one
/// it begins (`b N`) and which one is acknowledged (`a N`).
fn writer(path: &Path) {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = file.expect("opens");
    for record in 0..RECORDS {
        say("b", record);
        let offset = record * RECORD_BYTES as u64;
        let bytes = pattern::bytes(11, offset, RECORD_BYTES);
        let outcome = file
            .write_all_at(&bytes, offset)
            .and_then(|()| file.sync_data());
        if outcome.is_err() {
            return;
        }
        say("a", record);
    }
}

fn say(what: &str, record: u64) {
    writeln!(std::io::stdout(), "{what} {record}").expect("the log takes a line");
}

#[test]
fn kill_9_amid_writes_loses_no_acknowledged_byte() {
    if let Some(path) = std::env::var_os("VDFS_TEST_WRITER") {
        writer(Path::new(&path));
        return;
    }
    if mount_tests_skipped() {
        return;
    }
    let mut up = Up::start(UpOptions::default());
    let mut hit_in_flight = 0;
    for round in 0..5 {
        let path = up.mount().join(format!("log-{round}"));
        let log = up.outside().join(format!("acknowledged-{round}"));
        let mut child = spawn_writer(&path, &log);
        let enough = 50 + 40 * round;
        eventually("the writer is at work", Duration::from_secs(30), || {
            fs::read_to_string(&log).is_ok_and(|text| text.matches("a ").count() > enough)
        });
        up.kill9();
        child.wait().expect("the writer ends");
        up.run_again();
        hit_in_flight += u32::from(check(&path, &log));
    }
    assert!(
        hit_in_flight > 0,
        "no kill met a write in flight: that proves nothing"
    );
}

fn spawn_writer(path: &Path, log: &Path) -> Child {
    let test = std::env::current_exe().expect("a test has a path");
    let name = "kill_9_amid_writes_loses_no_acknowledged_byte";
    let mut command = Command::new(test);
    command
        .args(["--exact", name, "--nocapture"])
        .env("VDFS_TEST_WRITER", path);
    command
        .stdout(fs::File::create(log).expect("a log"))
        .stderr(Stdio::null());
    command.spawn().expect("the writer starts")
}

/// Compares every acknowledged record; gives whether one was begun and not acknowledged.
fn check(path: &Path, log: &Path) -> bool {
    let (mut begun, mut acknowledged) = (0u64, 0u64);
    for line in BufReader::new(fs::File::open(log).expect("the log")).lines() {
        match line.expect("text").split_once(' ') {
            Some(("b", _)) => begun += 1,
            Some(("a", _)) => acknowledged += 1,
            _ => {}
        }
    }
    let bytes = fs::read(path).expect("reads after the restart");
    let safe = acknowledged as usize * RECORD_BYTES;
    assert!(
        bytes.len() >= safe,
        "{} bytes of {safe} acknowledged ones",
        bytes.len()
    );
    pattern::assert_matches(11, 0, &bytes[..safe]);
    // What was in flight is there whole, in part, or not at all, but never something else.
    let tail = &bytes[safe..];
    let expected = pattern::bytes(11, safe as u64, tail.len());
    for (at, (&byte, &own)) in tail.iter().zip(&expected).enumerate() {
        assert!(byte == own || byte == 0, "byte {} is foreign", safe + at);
    }
    begun > acknowledged
}
