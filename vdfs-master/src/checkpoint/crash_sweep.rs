//! Crashes, damage and failures of the disk while checkpoints are written beside a growing log.
//!
//! A core makes files; its records go to the log, and now and then a checkpoint is written, named,
//! and what it makes needless removed. Whatever the disk does, a start finds a state that some
//! prefix of the records gives, with everything in it that was known to be on the disk.

use std::sync::Arc;

use vdfs_proto::handshake::Role;
use vdfs_proto::meta::{Create, MutateRequest, Mutation, NewKind};
use vdfs_proto::session::{OpenSession, SessionReply, SessionRequest};
use vdfs_proto::{ChunkSize, ClusterId, FileName, Ino, OpId, SessionId, Timestamp};

use crate::checkpoint;
use crate::core::{Core, CoreReply, CoreRequest, Effect, FsConfig, Input, Now, Peer, Ticket};
use crate::disk::fake::{DiskState, Failure, FakeDisk};
use crate::disk::{Disk, read_whole};
use crate::log::{LocalLog, LogError, OpLog};
use crate::shell::{MasterError, restore};

/// So short that every batch has a segment of its own.
const SEGMENT_BYTES: u64 = 200;
/// All subsets of so many changes are tried, beyond it a sample.
const EXHAUSTIVE_CHANGES: usize = 6;
const SAMPLES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Change,
    Sync,
    /// Beside a change that is not synced.
    Checkpoint,
}

const SCRIPT: [Step; 11] = [
    Step::Change,
    Step::Sync,
    Step::Change,
    Step::Checkpoint,
    Step::Change,
    Step::Change,
    Step::Checkpoint,
    Step::Sync,
    Step::Change,
    Step::Checkpoint,
    Step::Change,
];

/// The process has ended itself: what the disk holds is unknown.
#[derive(Debug)]
struct Died;

fn config() -> FsConfig {
    FsConfig {
        cluster: ClusterId(5),
        chunk_size: ChunkSize::DEFAULT,
        replicas: Some(1),
        hash_key: [3; 16],
        root_uid: 0,
        root_gid: 0,
        files_max: 1000,
    }
}

fn now() -> Now {
    Now {
        wall: Timestamp { secs: 9, nanos: 0 },
        boot_ms: 1000,
    }
}

fn peer() -> Peer {
    Peer {
        role: Role::Client,
        node: "c".into(),
    }
}

fn start(disk: &FakeDisk) -> Result<restore::Restored, MasterError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    restore::restore(&disk, &config(), SEGMENT_BYTES, now())
}

struct Run {
    disk: FakeDisk,
    log: LocalLog,
    core: Core,
    /// All that were decided.
    records: Vec<Vec<u8>>,
    /// What each number of them gives.
    dumps: Vec<String>,
    session: SessionId,
    seq: u64,
}

impl Run {
    fn new() -> Self {
        let disk = FakeDisk::default();
        let made = start(&disk).expect("an empty disk");
        let (_, first) = Core::format(config(), now());
        let mut run = Run {
            disk,
            log: made.log,
            dumps: vec![String::new(), made.core.dump()],
            core: made.core,
            records: vec![first],
            session: SessionId(0),
            seq: 0,
        };
        run.open_session();
        run
    }

    fn open_session(&mut self) {
        let mut effects = Vec::new();
        self.core.start(now(), true, &mut effects);
        let open = SessionRequest::OpenSession(OpenSession {
            identity: "a".to_owned(),
            after: None,
            host: "h".to_owned(),
            mount: "m".to_owned(),
        });
        let input = Input::Request {
            ticket: Ticket(1),
            request: CoreRequest::Session(peer(), open),
        };
        self.core.step(now(), input, &mut effects);
        let opened = effects.iter().find_map(|effect| match effect {
            Effect::Reply {
                outcome: Ok(CoreReply::Session(SessionReply::OpenSession(opened))),
                ..
            } => Some(opened.session),
            _ => None,
        });
        self.session = opened.expect("opened at once");
        let batch = self.take_records(effects);
        self.log.append(&batch).expect("there is room");
    }

    fn take_records(&mut self, effects: Vec<Effect>) -> Vec<Vec<u8>> {
        let records = effects.into_iter().filter_map(|effect| match effect {
            Effect::Append(record) => Some(record),
            _ => None,
        });
        let batch: Vec<Vec<u8>> = records.collect();
        self.records.extend(batch.iter().cloned());
        let mut core = Core::from_first_record(&self.records[0]).expect("a format record");
        for (number, record) in self.records.iter().enumerate().skip(1) {
            core.replay(record).expect("a good record");
            if number >= self.dumps.len() - 1 {
                self.dumps.push(core.dump());
            }
        }
        batch
    }

    /// A turn of the core: one file more.
    fn decide(&mut self) -> Vec<Vec<u8>> {
        self.seq += 1;
        let name = format!("file {}", self.seq);
        let create = Mutation::Create(Create {
            parent: Ino::ROOT,
            name: FileName::new(name.as_bytes()).expect("a good name"),
            kind: NewKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            umask: 0,
            open: None,
            exclusive: true,
        });
        let op = OpId {
            session: self.session,
            slot: 0,
            seq: self.seq,
        };
        let request = MutateRequest {
            op,
            mutation: create,
        };
        let input = Input::Request {
            ticket: Ticket(self.seq),
            request: CoreRequest::Mutate(peer(), request),
        };
        let mut effects = Vec::new();
        self.core.step(now(), input, &mut effects);
        self.take_records(effects)
    }

    /// As the keeper does: what is decided is tried until it is written.
    fn change(&mut self) -> Result<(), Died> {
        if self.log.reserve(1000).is_err() {
            // Refused before anything was decided.
            return Ok(());
        }
        let batch = self.decide();
        for _ in 0..3 {
            match self.log.append(&batch) {
                Ok(()) => return Ok(()),
                Err(LogError::NoRoom { .. } | LogError::Write { .. }) => {}
                Err(LogError::Broken { .. } | LogError::Sync(_)) => return Err(Died),
            }
        }
        panic!("the disk fails once");
    }

    fn perform(&mut self, step: Step) -> Result<(), Died> {
        match step {
            Step::Change => self.change(),
            Step::Sync => self.log.flush().map_err(|_| Died),
            Step::Checkpoint => {
                self.log.flush().map_err(|_| Died)?;
                self.write_checkpoint()
            }
        }
    }

    fn write_checkpoint(&mut self) -> Result<(), Died> {
        let image = self.core.image();
        self.change()?;
        let written = checkpoint::write(&self.disk, config().cluster, image);
        let outcome = written
            .and_then(|finished| finished.publish())
            .and_then(|()| checkpoint::retire(&self.disk));
        match outcome {
            Err(error) if error.concerns_log() => Err(Died),
            // The next one may do better.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A start finds what some number of records, at least `durable`, gives; and so does the next.
    fn check_start(&self, disk: &FakeDisk, durable: u64, what: &dyn std::fmt::Debug) -> u64 {
        let restored = start(disk).unwrap_or_else(|error| panic!("{what:?}: {error}"));
        let records = restored.core.records();
        let bounds = durable..=self.records.len() as u64;
        assert!(
            bounds.contains(&records),
            "{what:?}: {records} of {bounds:?}"
        );
        assert!(
            !restored.is_new && restored.log.records() == records,
            "{what:?}"
        );
        let is_same = restored.core.dump() == self.dumps[records as usize];
        assert!(is_same, "{what:?}: {records} records give another state");
        records
    }

    /// What a start has found is on the disk.
    fn check_crash(&self, crashed: &FakeDisk, durable: u64, what: &dyn std::fmt::Debug) {
        let records = self.check_start(crashed, durable, what);
        let again = crashed.state().crash(|_| false, 0);
        assert_eq!(self.check_start(&again, records, what), records, "{what:?}");
    }
}

/// Sets of changes that survive, as bits.
fn subsets(count: usize, seed: u64) -> Vec<u64> {
    if count <= EXHAUSTIVE_CHANGES {
        return (0..1 << count).collect();
    }
    let mut state = seed | 1;
    let samples = (0..SAMPLES).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    samples.chain([0, u64::MAX]).collect()
}

fn has(subset: u64, change: usize) -> bool {
    subset >> (change % 64) & 1 == 1
}

/// Every subset of unsynced sectors with every subset of unsynced names. Gives how many they were.
fn sweep(run: &Run, state: &DiskState, durable: u64, what: &dyn std::fmt::Debug) -> usize {
    let seed = 0x9e37_79b9_7f4a_7c15;
    let sectors = subsets(state.unsynced_changes(), seed);
    let names = subsets(state.unsynced_names(), seed);
    for &of_names in &names {
        for &of_sectors in &sectors {
            let crashed = state.crash_keeping(
                |change| has(of_sectors, change),
                |change| has(of_names, change),
            );
            run.check_crash(&crashed, durable, &(what, of_names, of_sectors));
        }
    }
    sectors.len() * names.len()
}

#[test]
fn checkpoint_crashed_anywhere_leaves_a_state_with_all_that_was_synced() {
    let mut run = Run::new();
    let mut crashes = 0;
    for (number, step) in SCRIPT.into_iter().enumerate() {
        if step != Step::Checkpoint {
            run.perform(step).expect("the disk is good");
            continue;
        }
        run.log.flush().expect("the disk is good");
        let durable = run.log.durable();
        run.disk.record();
        run.write_checkpoint().expect("the disk is good");
        for (point, state) in run.disk.history().iter().enumerate() {
            crashes += sweep(&run, state, durable, &(number, point));
        }
    }
    println!("{crashes} crashes");
    assert!(crashes > 5_000, "only {crashes} crashes were tried");
}

/// Two checkpoints, the older of which is not the first, and a log behind them.
fn two_generations() -> (Run, [String; 2]) {
    let mut run = Run::new();
    for step in SCRIPT {
        run.perform(step).expect("the disk is good");
    }
    let generations = checkpoint::list(&run.disk).expect("lists");
    assert_eq!(generations.len(), 2);
    let first = run.disk.open("wal-00000000000000000001");
    assert!(first.is_err(), "the log is purged");
    let name = |records: &u64| format!("checkpoint-{records:020}");
    let names = [name(&generations[0]), name(&generations[1])];
    (run, names)
}

fn copy(run: &Run) -> FakeDisk {
    let state = run.disk.state();
    state.crash(|_| true, state.unsynced_names())
}

fn length(run: &Run, name: &str) -> usize {
    let file = run.disk.open(name).expect("is there");
    read_whole(&*file).expect("reads").len()
}

#[test]
fn checkpoint_with_any_flipped_bit_or_missing_end_costs_nothing() {
    let (run, names) = two_generations();
    let all = run.records.len() as u64;
    for name in &names {
        for at in 0..length(&run, name) {
            let flipped = copy(&run);
            flipped.damage(name, |bytes| bytes[at] ^= 1 << (at % 8));
            run.check_start(&flipped, all, &(name, at));
            let cut = copy(&run);
            cut.damage(name, |bytes| bytes.truncate(at));
            run.check_start(&cut, all, &(name, at));
        }
    }
}

#[test]
fn checkpoint_damaged_that_was_the_only_one_is_no_generation() {
    let mut run = Run::new();
    run.perform(Step::Checkpoint).expect("the disk is good");
    let name = checkpoint::list(&run.disk).expect("lists");
    let name = format!("checkpoint-{:020}", name[0]);
    run.disk.damage(&name, |bytes| bytes[50] ^= 1);
    let all = run.records.len() as u64;
    run.check_start(&run.disk, all, &"the log is whole");
    let left = checkpoint::list(&run.disk).expect("lists");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn checkpoints_damaged_both_are_refused_with_the_file_and_the_way_out() {
    let (run, names) = two_generations();
    let disk = copy(&run);
    for name in &names {
        disk.damage(name, |bytes| bytes[50] ^= 1);
    }
    let error = start(&disk).expect_err("nothing good is left").to_string();
    let is_plain = names.iter().any(|name| error.contains(name)) && error.contains("copy");
    assert!(is_plain, "{error}");
}

/// Runs the script on a disk that fails once; gives the run, and whether the process has ended
/// itself.
fn run_failing(after: usize, failure: Failure) -> (Run, bool) {
    let mut run = Run::new();
    run.disk.fail(after, failure);
    let died = SCRIPT.into_iter().any(|step| run.perform(step).is_err());
    (run, died)
}

#[test]
fn disk_that_fails_once_anywhere_takes_nothing_that_was_acknowledged() {
    let (mut points, mut deaths) = (0, 0);
    for failure in [Failure::NoRoom, Failure::Short, Failure::Io] {
        for after in 0.. {
            let (run, died) = run_failing(after, failure);
            if run.disk.failed() == 0 {
                break;
            }
            points += 1;
            deaths += usize::from(died);
            let what = (failure, after);
            let (written, durable) = (run.log.records(), run.log.durable());
            let crashed = run.disk.state().crash(|_| false, 0);
            run.check_crash(&crashed, durable, &what);
            run.check_start(&run.disk, written, &what);
        }
    }
    println!("{points} failures, {deaths} of which ended the process");
    assert!(
        points > 100 && deaths > 10,
        "{points} failures, {deaths} deaths"
    );
}

#[test]
fn log_whose_sync_failed_is_on_the_disk_after_the_next_start() {
    let mut run = Run::new();
    run.change().expect("there is room");
    run.disk.set_fails_sync(true);
    run.log.flush().expect_err("a sync that fails");
    run.disk.set_fails_sync(false);
    let all = run.records.len() as u64;
    run.check_start(&run.disk, all, &"killed");
    let crashed = run.disk.state().crash(|_| false, 0);
    // Names of segments are synced as a whole; that one was made durable by the start.
    run.check_start(&crashed, all, &"a crash after the start");
}
