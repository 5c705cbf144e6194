//! A writer that knows which of its bytes were acknowledged.
//!
//! It writes records into the slots of a file, round after round, each followed by `fdatasync`. A
//! record that was begun and not acknowledged may be there in part; every other slot must hold the
//! last record that was acknowledged there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::pattern;

/// No power of two, so that records cross blocks and chunks.
const RECORD_BYTES: usize = 3000;
const SLOTS: u64 = 4000;

/// A writer at work, on a thread of its own.
#[derive(Debug)]
pub struct Journal {
    seed: u64,
    progress: Arc<Progress>,
    writer: JoinHandle<Option<io::Error>>,
}

#[derive(Debug, Default)]
struct Progress {
    begun: AtomicU64,
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// What a writer has done: numbers of records.
#[derive(Debug)]
pub struct Written {
    seed: u64,
    begun: u64,
    pub acknowledged: u64,
    /// What ended the writer, if it was not told to.
    pub error: Option<io::Error>,
}

impl Journal {
    /// Creates the file at `path` and begins to write.
    pub fn start(path: &Path, seed: u64) -> Journal {
        let mut file = OpenOptions::new();
        let file = file.write(true).create_new(true).open(path).expect("opens");
        let progress = Arc::<Progress>::default();
        let theirs = Arc::clone(&progress);
        Journal {
            seed,
            progress,
            writer: thread::spawn(move || write_until_stop(&file, seed, &theirs).err()),
        }
    }

    /// How many records are acknowledged by now.
    pub fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends the writer after its record; waits for it.
    pub fn finish(self) -> Written {
        self.progress.stop.store(true, Ordering::Relaxed);
        let error = self.writer.join().expect("the writer does not panic");
        Written {
            seed: self.seed,
            begun: self.progress.begun.load(Ordering::Relaxed),
            acknowledged: self.progress.acknowledged.load(Ordering::Relaxed),
            error,
        }
    }
}

fn write_until_stop(file: &File, seed: u64, progress: &Progress) -> io::Result<()> {
    for record in 0u64.. {
        if progress.stop.load(Ordering::Relaxed) {
            break;
        }
        progress.begun.store(record + 1, Ordering::Relaxed);
        file.write_all_at(&bytes_of(seed, record), offset_of(record))?;
        file.sync_data()?;
        progress.acknowledged.store(record + 1, Ordering::Relaxed);
    }
    Ok(())
}

impl Written {
    /// Compares every slot of the file at `path`.
    pub fn check(&self, path: &Path) {
        let bytes = fs::read(path).expect("reads");
        let slots = self.acknowledged.min(SLOTS);
        let safe = slots as usize * RECORD_BYTES;
        assert!(bytes.len() >= safe, "{} bytes of {safe}", bytes.len());
        for slot in (0..slots).filter(|&slot| Some(slot) != self.slot_in_flight()) {
            let record = self.last_acknowledged(slot).expect("below `slots`");
            let found = &bytes[offset_of(slot) as usize..][..RECORD_BYTES];
            let expected = bytes_of(self.seed, record);
            assert!(found == expected, "record {record} is not what was written");
        }
        if let Some(slot) = self.slot_in_flight() {
            self.check_in_flight(slot, &bytes);
        }
    }

    /// True if a record was begun and not acknowledged.
    pub fn was_hit_in_flight(&self) -> bool {
        self.begun > self.acknowledged
    }

    fn slot_in_flight(&self) -> Option<u64> {
        self.was_hit_in_flight()
            .then_some(self.acknowledged % SLOTS)
    }

    fn last_acknowledged(&self, slot: u64) -> Option<u64> {
        let behind = self.acknowledged.checked_sub(slot + 1)?;
        Some(slot + behind / SLOTS * SLOTS)
    }

    /// What was in flight is there whole, in part, or not at all, but never something else.
    fn check_in_flight(&self, slot: u64, bytes: &[u8]) {
        let before = self.last_acknowledged(slot);
        let before = before.map_or(vec![0; RECORD_BYTES], |record| bytes_of(self.seed, record));
        let after = bytes_of(self.seed, self.acknowledged);
        let found = bytes.iter().skip(offset_of(slot) as usize);
        for (at, byte) in found.take(RECORD_BYTES).enumerate() {
            let known = *byte == before[at] || *byte == after[at];
            assert!(known, "byte {at} of slot {slot} is foreign");
        }
    }
}

fn offset_of(record: u64) -> u64 {
    record % SLOTS * RECORD_BYTES as u64
}

/// Every round has bytes of its own.
fn bytes_of(seed: u64, record: u64) -> Vec<u8> {
    let seed = (seed << 32) + record / SLOTS;
    pattern::bytes(seed, offset_of(record), RECORD_BYTES)
}
