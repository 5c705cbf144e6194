//! Programs on the mounts of a cluster whose volumes change under them: what they have been told is there
//! must be there.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::journal::Journal;
use crate::replicated::WHOLE_WITHIN;
use crate::{Cluster, eventually, pattern};

/// Files of one writer, each written, synced and then read by the other mount.
#[derive(Debug)]
pub struct Load {
    /// Number and length of each file, whose name is its number.
    pub written: Vec<(u64, usize)>,
    /// That one of them took.
    pub longest: Duration,
}

/// Until it is over; the numbers of two writers differ if their seeds are 0 and 1.
pub fn write_files(dir: &Path, seed: u64, is_over: &AtomicBool) -> Load {
    let mut load = Load {
        written: Vec::new(),
        longest: Duration::ZERO,
    };
    let mut number = seed;
    while !is_over.load(Ordering::Relaxed) {
        let len = 1 + (number as usize * 7919) % 300_000;
        let begun = Instant::now();
        pattern::write_file(&dir.join(number.to_string()), number, len);
        load.longest = load.longest.max(begun.elapsed());
        load.written.push((number, len));
        thread::sleep(Duration::from_millis(5));
        number += 2;
    }
    load
}

/// Every file has the bytes that were written.
pub fn check_files(dir: &Path, written: &[(u64, usize)]) {
    for (number, len) in written {
        let bytes = fs::read(dir.join(number.to_string())).expect("reads");
        assert!(
            bytes == pattern::bytes(*number, 0, *len),
            "file {number} differs"
        );
    }
}

/// One on each mount.
#[derive(Debug)]
pub struct Journals([Journal; 2]);

impl Journals {
    const NAMES: [&str; 2] = ["journal-1", "journal-2"];

    pub fn start(cluster: &Cluster) -> Journals {
        Journals([0, 1].map(|seed| {
            let dir = cluster.mounts[seed].dir();
            Journal::start(&dir.join(Self::NAMES[seed]), seed as u64)
        }))
    }

    /// Waits until each has so many more records acknowledged.
    pub fn go_on(&self, records: u64) {
        let acknowledged = || self.0.each_ref().map(Journal::acknowledged);
        let before = acknowledged();
        eventually("the journals are written", WHOLE_WITHIN, || {
            let mut both = acknowledged().into_iter().zip(before);
            both.all(|(now, before)| now > before + records)
        });
    }

    /// No program has noticed, and all that was acknowledged is there, on each mount.
    pub fn check(self, cluster: &Cluster) {
        for (journal, name) in self.0.into_iter().zip(Self::NAMES) {
            let written = journal.finish();
            assert_eq!(written.errno, None, "no program notices");
            for mount in &cluster.mounts {
                written.check(&mount.dir().join(name));
            }
        }
    }
}
