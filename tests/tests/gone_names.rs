//! What is held by a descriptor, or was found a moment ago, when its name goes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    removed_or_replaced_directory_still_has_attributes_for_its_descriptor,
    name_that_is_replaced_all_the_time_is_always_whole,
);

const FILE_BYTES: usize = 5000;

fn removed_or_replaced_directory_still_has_attributes_for_its_descriptor(way: Way) {
    let vdfs = way.start(Options::default());
    let (removed, replaced) = (vdfs.dir().join("removed"), vdfs.dir().join("replaced"));
    let other = vdfs.dir().join("other");
    for dir in [&removed, &replaced, &other] {
        fs::create_dir(dir).expect("a directory");
    }
    let open = [&removed, &replaced].map(|dir| File::open(dir).expect("a directory opens"));
    fs::remove_dir(&removed).expect("empty");
    fs::rename(&other, &replaced).expect("empty");
    for directory in open {
        let metadata = directory.metadata().expect("it is open");
        assert!(metadata.is_dir());
        assert_eq!(metadata.nlink(), 0);
        directory.sync_all().expect("nothing to do");
    }
}

fn name_that_is_replaced_all_the_time_is_always_whole(way: Way) {
    let vdfs = way.start(Options::default());
    let dir = vdfs.dir();
    replace(&dir, 0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 1..=2 {
            let (dir, is_over) = (&dir, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    replace(dir, writer);
                }
            });
        }
        let readers = [(); 2].map(|()| scope.spawn(|| read_for(&dir, Duration::from_secs(3))));
        let outcomes = readers.map(|reader| reader.join());
        is_over.store(true, Ordering::Relaxed);
        for opened in outcomes {
            assert!(opened.expect("no error") > 10);
        }
    });
}

/// Puts a file of one repeated byte under the name that all use.
fn replace(dir: &Path, writer: u8) {
    let beside = dir.join(format!("new-{writer}"));
    let mut file = File::create(&beside).expect("creates");
    file.write_all(&[writer; FILE_BYTES]).expect("writes");
    drop(file);
    fs::rename(beside, dir.join("target")).expect("replaces");
}

/// Looks at it in the ways programs do; gives how often.
fn read_for(dir: &Path, time: Duration) -> u32 {
    let (target, until) = (dir.join("target"), Instant::now() + time);
    let mut opened = 0;
    while Instant::now() < until {
        let mut bytes = Vec::new();
        let mut file = File::open(&target).expect("there is always one");
        file.read_to_end(&mut bytes).expect("reads");
        assert_eq!(bytes.len(), FILE_BYTES);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        let size = fs::metadata(&target).expect("there is always one").size();
        assert_eq!(size, FILE_BYTES as u64);
        opened += 1;
    }
    opened
}
