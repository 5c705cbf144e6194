//! Crashes at every operation of the disk, with every subset of what was not synced.
//!
//! All sequences of up to [`OPERATIONS_MAX`] operations; for each, the crash points within its last
//! operation (those before are the crash points of a shorter sequence); for each, every length of
//! the list of name changes that survived, and of the unsynced sectors and truncations every subset
//! up to [`EXHAUSTIVE_CHANGES`] of them, [`SAMPLES`] random subsets beyond.

use std::sync::Arc;

use super::local::{LocalLog, LogOptions, look, purge};
use super::{Fault, LogError, LogOpenError, OpLog};
use crate::disk::fake::{DiskState, FakeDisk};

const OPERATIONS_MAX: usize = 3;
const EXHAUSTIVE_CHANGES: usize = 10;
const SAMPLES: usize = 1000;
const SEGMENT_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    AppendSmall,
    /// Three sectors and a bit.
    AppendLarge,
    Sync,
    Rotate,
    /// A checkpoint of what is durable, and the purge below it.
    Purge,
    Mark,
}

const OPERATIONS: [Operation; 6] = [
    Operation::AppendSmall,
    Operation::AppendLarge,
    Operation::Sync,
    Operation::Rotate,
    Operation::Purge,
    Operation::Mark,
];

fn options(after: u64) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        after,
        synced: after,
    }
}

/// Records with their numbers.
type Visited = Vec<(u64, Vec<u8>)>;

/// Opens the log and returns the records it visited.
fn open(disk: &FakeDisk, after: u64) -> Result<(LocalLog, Visited), LogOpenError> {
    let mut records = Vec::new();
    let log = LocalLog::open(
        Arc::new(disk.clone()),
        options(after),
        &mut |number, bytes| {
            records.push((number, bytes.to_vec()));
            Ok(())
        },
    )?;
    Ok((log, records))
}

fn record(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (number as usize * 31 + at * 7) as u8)
        .collect()
}

struct Run {
    disk: FakeDisk,
    log: LocalLog,
    written: Vec<Vec<u8>>,
    after: u64,
}

impl Run {
    fn new() -> Self {
        let disk = FakeDisk::default();
        let (log, _) = open(&disk, 0).expect("an empty disk");
        Run {
            disk,
            log,
            written: Vec::new(),
            after: 0,
        }
    }

    fn append(&mut self, sizes: &[usize]) {
        let next = self.written.len() as u64 + 1;
        let records: Vec<_> = sizes
            .iter()
            .zip(next..)
            .map(|(&bytes, number)| record(number, bytes))
            .collect();
        self.log.append(&records).expect("there is room");
        self.written.extend(records);
    }

    fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::AppendSmall => self.append(&[11]),
            Operation::AppendLarge => self.append(&[700, 30, 900]),
            Operation::Sync => self.log.flush().expect("syncs"),
            Operation::Rotate => self.log.rotate().expect("there is room"),
            Operation::Mark => self.log.mark_here().expect("there is room"),
            Operation::Purge => {
                self.after = self.log.durable();
                purge(&self.disk, self.after).expect("purges");
            }
        }
    }

    /// The log, after a crash, holds a prefix that has all of what was synced, and goes on.
    fn check_crash(&self, crashed: &FakeDisk, durable: u64, what: &dyn std::fmt::Debug) {
        let (log, records) = match open(crashed, self.after) {
            Ok(opened) => opened,
            Err(error) => panic!("{what:?}: refused: {error}"),
        };
        let end = log.records();
        assert!(
            end >= durable,
            "{what:?}: {end} records of {durable} synced"
        );
        assert!(
            end <= self.written.len() as u64,
            "{what:?}: {end} records, resurrected"
        );
        assert_eq!(records.len() as u64, end - self.after, "{what:?}");
        self.check_records(&records);
        self.check_second_crash(crashed, log, what);
    }

    /// What the second start found is on the disk: its own crash takes at most what it wrote.
    fn check_second_crash(&self, disk: &FakeDisk, mut log: LocalLog, what: &dyn std::fmt::Debug) {
        let end = log.records();
        assert_eq!(
            log.durable(),
            end,
            "{what:?}: what a start has read is durable"
        );
        let further = record(end + 1, 600);
        log.append(std::slice::from_ref(&further))
            .expect("there is room");
        drop(log);
        let state = disk.state();
        for skipped in 0..=state.unsynced_changes() {
            for names in [0, state.unsynced_names()] {
                let crashed = state.crash(|change| change != skipped, names);
                let (log, records) = open(&crashed, self.after).expect("the second crash is one");
                assert!((end..=end + 1).contains(&log.records()), "{what:?}");
                self.check_records(&records[..(end - self.after) as usize]);
                let is_whole =
                    records.get((end - self.after) as usize) == Some(&(end + 1, further.clone()));
                assert_eq!(is_whole, log.records() > end, "{what:?}: a tail came back");
            }
        }
    }

    fn check_records(&self, records: &[(u64, Vec<u8>)]) {
        for ((number, bytes), expected) in records.iter().zip(self.after + 1..) {
            assert_eq!(*number, expected);
            assert_eq!(*bytes, self.written[expected as usize - 1]);
        }
    }
}

/// Which of `count` changes survive, for every crash to try.
fn subsets(count: usize) -> Vec<u64> {
    if count <= EXHAUSTIVE_CHANGES {
        return (0..1 << count).collect();
    }
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let samples = (0..SAMPLES).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    samples.chain([0, u64::MAX]).collect()
}

fn sweep_crashes(run: &Run, state: &DiskState, durable: u64, what: &dyn std::fmt::Debug) -> usize {
    let subsets = subsets(state.unsynced_changes());
    for names in 0..=state.unsynced_names() {
        for &subset in &subsets {
            let crashed = state.crash(|change| subset >> (change % 64) & 1 == 1, names);
            run.check_crash(&crashed, durable, &(what, names, format!("{subset:b}")));
        }
    }
    subsets.len() * (state.unsynced_names() + 1)
}

/// Runs `sequence` and crashes within its last operation; returns how many crashes that were.
fn sweep_sequence(sequence: &[Operation]) -> usize {
    let mut run = Run::new();
    let (last, before) = sequence.split_last().expect("at least one operation");
    before.iter().for_each(|&operation| run.perform(operation));
    let durable_before = run.log.durable();
    run.disk.record();
    run.perform(*last);
    let history = run.disk.history();
    let mut crashes = 0;
    for (point, state) in history.iter().enumerate() {
        let is_done = point + 1 == history.len();
        let durable = if is_done {
            run.log.durable()
        } else {
            durable_before
        };
        crashes += sweep_crashes(&run, state, durable, &(sequence, point));
    }
    crashes
}

fn sequences(length: usize) -> Vec<Vec<Operation>> {
    (0..length).fold(vec![Vec::new()], |shorter, _| {
        let longer = |sequence: &Vec<Operation>| {
            OPERATIONS.map(|operation| [sequence.as_slice(), &[operation]].concat())
        };
        shorter.iter().flat_map(longer).collect()
    })
}

#[test]
fn log_after_any_crash_holds_what_was_synced_and_nothing_behind_a_gap() {
    let mut crashes = 0;
    for length in 1..=OPERATIONS_MAX {
        crashes += sequences(length)
            .iter()
            .map(|s| sweep_sequence(s))
            .sum::<usize>();
    }
    println!("{crashes} crashes");
    assert!(crashes > 10_000, "only {crashes} crashes were tried");
}

#[test]
fn log_after_a_kill_and_then_a_crash_holds_what_the_start_between_had_read() {
    for sequence in sequences(OPERATIONS_MAX) {
        let mut run = Run::new();
        sequence
            .iter()
            .for_each(|&operation| run.perform(operation));
        let (killed, _) = open(&run.disk, run.after).expect("nothing is lost by a kill");
        assert_eq!(killed.records(), run.written.len() as u64, "{sequence:?}");
        let state = run.disk.state();
        run.check_crash(&state.crash(|_| false, 0), killed.records(), &sequence);
    }
}

#[test]
fn log_after_a_crash_while_it_is_made_is_empty() {
    let disk = FakeDisk::default();
    disk.record();
    drop(open(&disk, 0).expect("an empty disk"));
    let run = Run {
        disk: disk.clone(),
        ..Run::new()
    };
    for (point, state) in disk.history().iter().enumerate() {
        sweep_crashes(&run, state, 0, &point);
    }
}

#[test]
fn log_after_a_crash_following_a_cut_and_another_start_is_whole() {
    let mut run = Run::new();
    run.perform(Operation::AppendSmall);
    run.perform(Operation::Sync);
    run.perform(Operation::AppendLarge);
    run.disk.set_room(Some(600));
    assert!(run.log.append(&[record(5, 1500)]).is_err(), "a torn batch");
    run.disk.set_room(None);
    run.disk.record();
    run.perform(Operation::AppendLarge);
    for (point, state) in run.disk.history().iter().enumerate() {
        sweep_crashes(&run, state, 1, &point);
    }
}

/// Three synced batches, one in a second segment, a mark, and nothing in memory.
fn synced_disk() -> FakeDisk {
    let mut run = Run::new();
    run.perform(Operation::AppendSmall);
    run.perform(Operation::AppendLarge);
    run.perform(Operation::Rotate);
    run.perform(Operation::AppendSmall);
    run.perform(Operation::Sync);
    run.perform(Operation::Mark);
    run.disk
}

const FIRST: &str = "wal-00000000000000000001";
const SECOND: &str = "wal-00000000000000000005";

fn refusal(disk: &FakeDisk) -> LogOpenError {
    open(disk, 0)
        .map(|(log, _)| log.records())
        .expect_err("damage below the mark is refused")
}

#[test]
fn log_with_any_flipped_bit_below_the_mark_is_refused_with_file_and_offset() {
    let second_batch = 48 + 4 + 11;
    for (file, len) in [
        (FIRST, second_batch + 48 + 12 + 1630),
        (SECOND, 48 + 4 + 11),
    ] {
        for at in (0..len).step_by(3) {
            let disk = synced_disk();
            disk.damage(file, |bytes| {
                assert_eq!(bytes.len(), len);
                bytes[at] ^= 1 << (at % 8);
            });
            let batch = if file == FIRST && at >= second_batch {
                second_batch
            } else {
                0
            };
            match refusal(&disk) {
                LogOpenError::Damaged {
                    file: named,
                    offset,
                    ..
                } => {
                    assert_eq!(
                        (named.ends_with(file), offset),
                        (true, batch as u64),
                        "{at}"
                    );
                }
                other => panic!("{at}: {other}"),
            }
        }
    }
}

#[test]
fn log_truncated_below_the_mark_is_refused_with_file_and_offset() {
    let disk = synced_disk();
    disk.damage(SECOND, |bytes| bytes.truncate(20));
    assert!(matches!(
        refusal(&disk),
        LogOpenError::Damaged {
            fault: Fault::HeaderCut,
            ..
        }
    ));
    let disk = synced_disk();
    disk.damage(SECOND, Vec::clear);
    let message = refusal(&disk).to_string();
    assert!(
        message.contains(SECOND) && message.contains("offset 0:"),
        "{message}"
    );
    let disk = synced_disk();
    disk.damage(FIRST, |bytes| bytes.truncate(48 + 4 + 11));
    assert!(matches!(
        refusal(&disk),
        LogOpenError::Missing { record: 2, .. }
    ));
}

#[test]
fn log_with_a_missing_segment_is_refused() {
    use crate::disk::Disk;
    for (name, record) in [(FIRST, 1), (SECOND, 5)] {
        let disk = synced_disk();
        disk.remove(name).expect("is there");
        match refusal(&disk) {
            LogOpenError::Missing {
                record: missing, ..
            } => assert_eq!(missing, record),
            LogOpenError::Damaged {
                record: missing, ..
            } => assert_eq!(missing, record),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn log_with_a_damaged_id_is_refused() {
    let disk = synced_disk();
    disk.damage("id", |bytes| bytes[3] ^= 1);
    assert!(matches!(refusal(&disk), LogOpenError::BadId { .. }));
}

#[test]
fn log_with_damage_behind_the_mark_is_cut_and_says_so() {
    let mut run = Run::new();
    run.perform(Operation::AppendSmall);
    run.perform(Operation::Sync);
    run.perform(Operation::AppendSmall);
    run.perform(Operation::AppendSmall);
    run.disk.damage(FIRST, |bytes| bytes[63 + 50] ^= 1);
    let (log, records) = open(&run.disk, 0).expect("only what was not synced is damaged");
    assert_eq!(records.len(), 1);
    let cut = log.cut().expect("something was cut");
    assert_eq!(
        (cut.offset, cut.bytes, cut.fault),
        (63, 126, Fault::BodySum)
    );
}

#[test]
fn log_without_room_keeps_nothing_of_the_batch_and_goes_on_when_there_is_room() {
    let mut run = Run::new();
    run.append(&[100]);
    run.disk.set_room(Some(700));
    assert!(matches!(
        run.log.reserve(4096),
        Err(LogError::NoRoom { .. })
    ));
    assert!(matches!(
        run.log.append(&[record(2, 2000)]),
        Err(LogError::NoRoom { .. })
    ));
    run.disk.set_room(None);
    run.log.reserve(4096).expect("there is room again");
    run.append(&[100]);
    drop(run.log);
    let (log, records) = open(&run.disk, 0).expect("nothing torn");
    assert_eq!((records.len(), log.cut()), (2, None));
}

#[test]
fn log_ends_a_segment_before_it_grows_beyond_its_bound() {
    use crate::disk::Disk;
    let mut run = Run::new();
    for _ in 0..5 {
        run.append(&[SEGMENT_BYTES as usize / 2 - 100]);
    }
    let segments = run
        .disk
        .names()
        .expect("lists")
        .iter()
        .filter(|n| n.starts_with("wal-"))
        .count();
    assert_eq!(segments, 3);
    drop(run.log);
    assert_eq!(open(&run.disk, 0).expect("opens").1.len(), 5);
}

#[test]
fn log_that_is_looked_at_is_not_written_to() {
    let mut run = Run::new();
    run.append(&[5, 6]);
    let unsynced = run.disk.state().unsynced_changes();
    assert!(unsynced > 0);
    let mut seen = 0;
    let (records, cut) = look(&run.disk, 0, 0, &mut |_, _| {
        seen += 1;
        Ok(())
    })
    .expect("whole");
    assert_eq!((records, seen, cut), (2, 2, None));
    assert_eq!(run.disk.state().unsynced_changes(), unsynced);
}

#[test]
fn log_syncs_within_the_interval_and_leaves_a_mark_when_idle() {
    let mut run = Run::new();
    let (told, tells) = std::sync::mpsc::channel();
    let observer = move |outcome: Result<u64, _>| told.send(outcome).expect("the test listens");
    run.log.start_syncing(Box::new(observer)).expect("a thread");
    run.append(&[5]);
    let deadline = std::time::Duration::from_secs(10);
    let durable = tells
        .recv_timeout(deadline)
        .expect("in time")
        .expect("synced");
    assert_eq!((durable, run.log.durable()), (1, 1));
    let until = std::time::Instant::now() + deadline;
    let truncated = || {
        let crashed = run.disk.state().crash(|_| false, 0);
        crashed.damage(FIRST, Vec::clear);
        open(&crashed, 0).is_err()
    };
    while !truncated() {
        assert!(std::time::Instant::now() < until, "no mark in time");
        std::thread::yield_now();
    }
}

#[test]
fn log_tells_of_a_failed_sync_once_and_tries_no_more() {
    let mut run = Run::new();
    let (told, tells) = std::sync::mpsc::channel();
    let observer = move |outcome: Result<u64, _>| told.send(outcome).expect("the test listens");
    run.log.start_syncing(Box::new(observer)).expect("a thread");
    run.disk.set_fails_sync(true);
    run.append(&[5]);
    let deadline = std::time::Duration::from_secs(10);
    assert!(tells.recv_timeout(deadline).expect("in time").is_err());
    run.disk.set_fails_sync(false);
    run.append(&[5]);
    assert!(
        tells.recv_timeout(deadline).is_err(),
        "the thread has ended"
    );
    assert!(
        run.log.flush().is_err(),
        "what a failed sync leaves is unknown"
    );
    assert_eq!(run.log.durable(), 0);
}

#[test]
fn log_cut_off_does_not_come_back_behind_a_new_batch() {
    let mut run = Run::new();
    run.append(&[10]);
    run.perform(Operation::Sync);
    run.append(&[10]);
    run.append(&[10]);
    run.disk.damage(FIRST, |bytes| bytes[62 + 50] ^= 1);
    let (mut log, _) = open(&run.disk, 0).expect("only what was not synced is damaged");
    log.append(&[record(9, 10)]).expect("there is room");
    let state = run.disk.state();
    for skipped in 0..=state.unsynced_changes() {
        let crashed = state.crash(|change| change != skipped, 0);
        let (log, _) = open(&crashed, 0).expect("a crash, not damage");
        assert!(log.records() <= 2, "record 3 was cut off");
    }
}

#[test]
fn log_flush_does_not_speak_for_a_sync_that_is_under_way() {
    let mut run = Run::new();
    run.log.start_syncing(Box::new(|_| ())).expect("a thread");
    run.disk.set_holds_log_syncs(true);
    run.append(&[5]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !run.disk.is_holding() {
        assert!(std::time::Instant::now() < until, "no sync in time");
        std::thread::yield_now();
    }
    let disk = run.disk.clone();
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        disk.set_holds_log_syncs(false);
    });
    run.log.flush().expect("syncs");
    let crashed = run.disk.state().crash(|_| false, 0);
    let (log, _) = open(&crashed, 0).expect("a crash");
    assert_eq!((log.records(), run.log.durable()), (1, 1), "on the disk");
    release.join().expect("ran");
}
