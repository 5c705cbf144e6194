//! A writer that knows which of its bytes were acknowledged.
//!
//! It writes records into the slots of a file, round after round, each followed by `fdatasync`. A
//! record that was begun and not acknowledged may be there in part; every other slot must hold the
//! last record that was acknowledged there.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::{pattern, programs};

/// No power of two, so that records cross blocks and chunks.
const RECORD_BYTES: usize = 3000;
const SLOTS: u64 = 4000;

/// A writer at work: a process of its own, as a process with open files on a mount that does not
/// answer can start no other one (`execve` closes inherited files, and waits for the mount).
#[derive(Debug)]
pub struct Journal {
    seed: u64,
    child: Child,
    acknowledged: Arc<AtomicU64>,
    reader: JoinHandle<Option<i32>>,
}

/// What a writer has done: numbers of records.
#[derive(Debug)]
pub struct Written {
    seed: u64,
    pub acknowledged: u64,
    /// What ended the writer in the middle of a record, if it was not told to end.
    pub errno: Option<i32>,
}

impl Journal {
    /// Creates the file at `path` and begins to write.
    pub fn start(path: &Path, seed: u64) -> Journal {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(programs::journal_writer()).arg(path);
        command.arg(seed.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the writer starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let acknowledged = Arc::<AtomicU64>::default();
        let count = Arc::clone(&acknowledged);
        Journal {
            seed,
            child,
            acknowledged,
            reader: thread::spawn(move || follow(stdout, &count)),
        }
    }

    /// How many records are acknowledged by now.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends the writer after its record; waits for it.
    pub fn finish(mut self) -> Written {
        drop(self.child.stdin.take());
        let error = self.reader.join().expect("the reader does not panic");
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the writer: {status}");
        Written {
            seed: self.seed,
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            errno: error,
        }
    }
}

/// Counts what the writer says is acknowledged; gives the error that ended it, if one did.
fn follow(stdout: impl Read, acknowledged: &AtomicU64) -> Option<i32> {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(errno) = line.strip_prefix("errno ") {
            return errno.parse().ok();
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    None
}

/// The writer's process: a line of output for each record that is acknowledged, until standard input
/// ends or an error does; an error is the last line.
pub fn run_writer(path: &Path, seed: u64) -> io::Result<()> {
    let stop = Arc::<AtomicBool>::default();
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        told.store(true, Ordering::Relaxed);
    });
    let mut stdout = io::stdout();
    match write_until(&stop, path, seed, &mut stdout) {
        Ok(()) => Ok(()),
        Err(error) => writeln!(stdout, "errno {}", error.raw_os_error().unwrap_or_default()),
    }
}

fn write_until(
    stop: &AtomicBool,
    path: &Path,
    seed: u64,
    stdout: &mut impl Write,
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).open(path)?;
    for record in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        file.write_all_at(&bytes_of(seed, record), offset_of(record))?;
        file.sync_data()?;
        writeln!(stdout, "{record}")?;
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

    fn slot_in_flight(&self) -> Option<u64> {
        self.errno.map(|_| self.acknowledged % SLOTS)
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
