//! Heartbeats on busy cores: nobody is taken for dead while programs write as fast as they can.
//!
//! Longer: `cargo test -p vdfs-tests --test busy -- --ignored`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::{Replicated, mount_tests_skipped, pattern};

/// Chunks of the file whose chains are looked at.
const CHUNKS: usize = 200;
const CHUNK_BYTES: usize = 256 << 10;
/// Each writer keeps so many files of so many bytes.
const FILES: u64 = 8;
const FILE_BYTES: usize = 4 << 20;

fn write_until(dir: &Path, seed: u64, is_over: &AtomicBool) -> u64 {
    let bytes = pattern::bytes(seed, 0, FILE_BYTES);
    let mut written = 0;
    while !is_over.load(Ordering::Relaxed) {
        let path = dir.join(format!("{seed}-{}", written % FILES));
        let mut file = File::create(path).expect("makes a file");
        file.write_all(&bytes).expect("writes");
        file.sync_all().expect("syncs");
        written += 1;
    }
    written
}

fn write_for(time: Duration) {
    if mount_tests_skipped() {
        return;
    }
    let cluster = Replicated::start();
    let probe = pattern::bytes(1, 0, CHUNKS * CHUNK_BYTES);
    fs::write(cluster.dir().join("probe"), probe).expect("writes");
    let before = cluster.epochs("/probe");
    assert!(before.len() > 10, "{before:?}");
    let cores = thread::available_parallelism().expect("counted").get();
    let is_over = AtomicBool::new(false);
    let written: u64 = thread::scope(|scope| {
        let writers: Vec<_> = (0..2 * cores)
            .map(|seed| {
                let (dir, is_over) = (cluster.mounts[seed % 2].dir(), &is_over);
                scope.spawn(move || write_until(&dir, seed as u64, is_over))
            })
            .collect();
        let begin = Instant::now();
        while begin.elapsed() < time {
            thread::sleep(Duration::from_millis(500));
        }
        is_over.store(true, Ordering::Relaxed);
        let written = writers.into_iter().map(|writer| writer.join());
        written.map(|files| files.expect("writes")).sum()
    });
    let after = cluster.epochs("/probe");
    eprintln!(
        "{written} files of 4 MiB in {time:?}, {} chains",
        after.len()
    );
    assert_eq!(before, after, "an epoch has changed");
    cluster.wait_until_whole();
}

#[test]
fn no_epoch_changes_while_all_cores_write() {
    write_for(Duration::from_secs(15));
}

#[test]
#[ignore = "takes a minute"]
fn no_epoch_changes_while_all_cores_write_long() {
    write_for(Duration::from_secs(60));
}
