//! A mount stands still while others change what it holds, and then goes on.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::{mount_tests_skipped, pattern, within};

use crate::dead_client::{FILE_BYTES, assert_all_done, deed_number, do_all, hold_all};
use crate::{HELD_UP_MAX, cluster};

/// Longer than its lease, and than others wait for it.
const STOPPED: Duration = Duration::from_secs(16);

#[test]
fn stopped_mount_holds_nobody_up_and_writes_nothing_stale_afterwards() {
    stopped_for(STOPPED);
}

#[test]
#[ignore = "takes a minute"]
fn mount_stopped_for_30_s_writes_nothing_stale_afterwards() {
    stopped_for(Duration::from_secs(30));
}

fn stopped_for(time: Duration) {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let stopped = cluster.mounts[1].dir();
    let held = hold_all(&stopped);
    let begin = Instant::now();
    cluster.mounts[1].part.freeze();
    let longest = do_all(&cluster.dir(), HELD_UP_MAX);
    eprintln!("held up for {longest:?}");
    thread::sleep(time.saturating_sub(begin.elapsed()));
    cluster.mounts[1].part.thaw();

    // What it still holds belongs to a session that has ended: an error is in order, silence about
    // a loss is not, and neither is a byte that arrives late.
    let outcomes = within("the holders go on", Duration::from_secs(20), move || {
        held.into_iter().map(write_late).collect::<Vec<_>>()
    });
    eprintln!("late writes: {outcomes:?}");
    assert_all_done(&cluster.dir());
    let overwritten = fs::metadata(cluster.dir().join("overwrite")).expect("stats");
    let is_whole = overwritten.len() as usize == 2 * FILE_BYTES;
    let outcome = &outcomes[deed_number("overwrite")];
    assert!(is_whole || outcome.is_err(), "silence about a loss");
    assert_all_done(&cluster.add_mount().dir());
    within("it works again", Duration::from_secs(20), move || {
        assert_all_done(&stopped);
        assert_usable(&stopped);
    });
}

/// Tries to flush what the handle has taken before the stop.
fn write_late(file: File) -> std::io::Result<()> {
    file.sync_all()
}

fn assert_usable(dir: &Path) {
    let path = dir.join("afterwards");
    fs::write(&path, pattern::bytes(5, 0, 1 << 20)).expect("writes");
    let mut file = File::options().append(true).open(&path).expect("opens");
    file.write_all(b"more").expect("appends");
    let mut bytes = vec![0; (1 << 20) + 4];
    let file = File::open(&path).expect("opens");
    file.read_exact_at(&mut bytes, 0).expect("reads");
    pattern::assert_matches(5, 0, &bytes[..1 << 20]);
    assert_eq!(&bytes[1 << 20..], b"more");
}

#[test]
fn mount_stopped_for_less_than_its_lease_loses_nothing() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, cluster) = cluster();
    let path = cluster.mounts[1].dir().join("file");
    let file = File::create(path).expect("creates");
    file.write_all_at(&pattern::bytes(4, 0, 2 << 20), 0)
        .expect("is buffered");
    cluster.mounts[1].part.freeze();
    thread::sleep(Duration::from_secs(5));
    cluster.mounts[1].part.thaw();
    file.sync_all().expect("its session lives");
    let bytes = fs::read(cluster.dir().join("file")).expect("reads");
    assert_eq!(bytes.len(), 2 << 20);
    pattern::assert_matches(4, 0, &bytes);
}
