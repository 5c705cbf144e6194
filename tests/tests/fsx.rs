//! fsx from crates.io: random reads, writes, truncations and mappings against a model.

use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vdfs_tests::programs::{installed, run};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    fsx_finds_no_difference,
    #[ignore = "takes half an hour"]
    fsx_finds_no_difference_on_two_mounts_long,
);

const OPERATIONS: u32 = 20_000;
/// 500,000 operations on each mount. In one run each would take longer than the one before: fsx keeps
/// its mappings.
const LONG_RUNS: u32 = 10;
const LONG_OPERATIONS: u32 = 50_000;

const FIRST_SEEDS: Range<u32> = 1..1 + LONG_RUNS;
const SECOND_SEEDS: Range<u32> = FIRST_SEEDS.end..FIRST_SEEDS.end + LONG_RUNS;

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
        let runs = [(vdfs.dir(), FIRST_SEEDS), (second.dir(), SECOND_SEEDS)].map(|(dir, seeds)| {
            let outside = &outside;
            scope.spawn(move || {
                for seed in seeds {
                    fsx(&dir, outside, seed, LONG_OPERATIONS);
                }
            })
        });
        let readers =
            [(vdfs.dir(), SECOND_SEEDS), (second.dir(), FIRST_SEEDS)].map(|(dir, seeds)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut read = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        // One of them comes to be, and is there no more when its run has ended.
                        let files = seeds.clone().map(|seed| fs::read(file_in(&dir, seed)));
                        read += files.flatten().map(|bytes| bytes.len()).sum::<usize>();
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
