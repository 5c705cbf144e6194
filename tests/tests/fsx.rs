//! fsx from crates.io: random reads, writes, truncations and mappings against a model.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vdfs_tests::programs::{installed, run};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    fsx_finds_no_difference,
    #[ignore = "takes an hour"]
    fsx_finds_no_difference_on_two_mounts_long,
);

const OPERATIONS: u32 = 20_000;
const LONG_OPERATIONS: u32 = 500_000;

/// Everything that it can do.
const CONFIG: &str = "
[opsize]
max = 300000
[weights]
truncate = 10
invalidate = 10
fsync = 5
fdatasync = 5
close_open = 5
punch_hole = 5
copy_file_range = 5
sendfile = 5
posix_fadvise = 5
posix_fallocate = 5
";

fn fsx_finds_no_difference(way: Way) {
    let vdfs = way.start(options());
    let operations = way.share(OPERATIONS);
    for seed in 1..=3 {
        fsx(&vdfs.dir(), &vdfs.outside(), seed, operations);
    }
}

/// Each mount has its own file, which the other reads all the time.
fn fsx_finds_no_difference_on_two_mounts_long(way: Way) {
    let vdfs = way.start(options());
    let second = vdfs.second_mount();
    let outside = vdfs.outside();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let runs = [(vdfs.dir(), 1), (second.dir(), 2)].map(|(dir, seed)| {
            let outside = &outside;
            scope.spawn(move || fsx(&dir, outside, seed, LONG_OPERATIONS))
        });
        let readers = [(vdfs.dir(), 2), (second.dir(), 1)].map(|(dir, seed)| {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut read = 0;
                while !is_over.load(Ordering::Relaxed) {
                    // It comes to be, and it is there no more when its run has ended.
                    read += fs::read(file_in(&dir, seed)).map_or(0, |bytes| bytes.len());
                    thread::sleep(Duration::from_millis(20));
                }
                read
            })
        });
        let runs = runs.map(thread::ScopedJoinHandle::join);
        is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("reads") > 0, "nothing was read");
        }
        for run in runs {
            run.expect("no difference");
        }
    });
}

fn options() -> Options {
    Options {
        chunk_size: "64KiB",
        ..Options::default()
    }
}

fn file_in(dir: &Path, seed: u32) -> PathBuf {
    dir.join(format!("fsx-{seed}"))
}

fn fsx(dir: &Path, outside: &Path, seed: u32, operations: u32) {
    let program = installed("fsx", "0.3.2");
    let config = outside.join(format!("fsx-{seed}.toml"));
    fs::write(&config, CONFIG).expect("writes");
    let (operations, seed_argument) = (operations.to_string(), seed.to_string());
    let file = file_in(dir, seed);
    let options = ["-N", &operations, "-S", &seed_argument, "-f"].map(OsStr::new);
    let arguments = [&options[..], &[config.as_ref(), file.as_ref()]].concat();
    run(program.to_str().expect("plain"), &arguments, outside);
}
