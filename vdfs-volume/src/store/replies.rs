//! What each op was answered, so that a retry is recognised: also after a restart.
//!
//! One record for each (session, slot); the larger seq wins; kept until the session ends. Definite
//! refusals are recorded like versions: an answer that a client has acted on never changes. A retry
//! of an op in progress waits for it. The clean record of a chunk names the op that made it, and
//! repairs this table at start.
//!
//! | bytes of a record | field | meaning |
//! |---|---|---|
//! | 0..8 | session | |
//! | 8..16 | seq | |
//! | 16..24 | epoch | of the version given |
//! | 24..32 | counter | of the version given |
//! | 32..34 | slot | |
//! | 34 | kind | 1 done, 2.. refused ([`Refusal`]) |
//! | 35..60 | | 0 |
//! | 60..64 | CRC32C | of bytes 0..60 |

use std::collections::HashMap;

use parking_lot::{Condvar, Mutex};
use vdfs_proto::sums::crc32c;
use vdfs_proto::{Epoch, OpId, SessionId, Status, Version};

use super::table::Table;

pub(super) const REPLY_BYTES: usize = 64;
const CRC_AT: usize = REPLY_BYTES - 4;

/// A definite refusal: the op was not executed and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSpace,
    DataLost,
    Gone,
    Corrupt,
}

impl Refusal {
    /// `None` for what the same op may still get past: another epoch, a lease, a fence.
    fn of(status: Status) -> Option<Self> {
        match status {
            Status::NoSpace => Some(Refusal::NoSpace),
            Status::DataLost => Some(Refusal::DataLost),
            Status::Gone => Some(Refusal::Gone),
            Status::Corrupt => Some(Refusal::Corrupt),
            _ => None,
        }
    }

    fn status(self) -> Status {
        match self {
            Refusal::NoSpace => Status::NoSpace,
            Refusal::DataLost => Status::DataLost,
            Refusal::Gone => Status::Gone,
            Refusal::Corrupt => Status::Corrupt,
        }
    }
}

/// What an op was answered.
type Outcome = Result<Version, Refusal>;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Where the record lies; none if it was only read off a chunk.
    place: Option<u32>,
    done: Option<(u64, Outcome)>,
    running: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Replies {
    table: Table,
    slots: Mutex<HashMap<(SessionId, u16), Slot>>,
    ended: Condvar,
}

/// What is to be done about an op that has arrived.
#[derive(Debug)]
pub(super) enum Begin<'a> {
    /// It is a retry: the first answer.
    Answered(Result<Version, Status>),
    /// It is new: execute it, [`Ticket::record`] that, then [`Ticket::finish`].
    Run(Ticket<'a>),
}

impl Replies {
    /// Reads a table whose size is fixed.
    pub(super) fn load(table: Table) -> Self {
        let mut slots = HashMap::new();
        let mut used = Vec::new();
        table.scan(|place, wire| {
            if let Some((op, outcome)) = decode(wire) {
                used.push(place);
                let slot = Slot {
                    place: Some(place),
                    done: Some((op.seq, outcome)),
                    running: None,
                };
                slots.insert((op.session, op.slot), slot);
            }
        });
        table.occupy(used.into_iter());
        Replies {
            table,
            slots: Mutex::new(slots),
            ended: Condvar::new(),
        }
    }

    /// Learns from a chunk's clean record what its op was answered.
    pub(super) fn repair(&self, op: OpId, version: Version) {
        let mut slots = self.slots.lock();
        let slot = slots.entry((op.session, op.slot)).or_default();
        if slot.done.is_none_or(|(seq, _)| seq < op.seq) {
            slot.done = Some((op.seq, Ok(version)));
            if let Some(place) = slot.place {
                self.table.write(place, &encode(op, Ok(version)));
            }
        }
    }

    /// Drops the records of all sessions but these, and writes down what repairs have brought.
    pub(super) fn keep_sessions(&self, is_kept: impl Fn(SessionId) -> bool) {
        let mut slots = self.slots.lock();
        slots.retain(|(session, _), slot| {
            let keep = is_kept(*session) || slot.running.is_some();
            if !keep {
                self.erase(slot);
            }
            keep
        });
        for ((session, number), slot) in slots.iter_mut() {
            let (None, Some((seq, outcome))) = (slot.place, slot.done) else {
                continue;
            };
            let op = OpId {
                session: *session,
                slot: *number,
                seq,
            };
            slot.place = self.take_place();
            if let Some(place) = slot.place {
                self.table.write(place, &encode(op, outcome));
            }
        }
    }

    pub(super) fn forget_session(&self, session: SessionId) {
        self.keep_sessions(|kept| kept != session);
    }

    fn erase(&self, slot: &Slot) {
        if let Some(place) = slot.place {
            self.table.write(place, &[0; REPLY_BYTES]);
            self.table.free(std::iter::once(place));
        }
    }

    fn take_place(&self) -> Option<u32> {
        self.table.take_one()
    }

    /// Recognises a retry, waits while its first copy runs, or begins a new op.
    ///
    /// `StaleRequest` if the slot has moved on, `Busy` if the table is full.
    pub(super) fn begin(&self, op: OpId) -> Result<Begin<'_>, Status> {
        let mut slots = self.slots.lock();
        let mut slot = slots
            .get(&(op.session, op.slot))
            .copied()
            .unwrap_or_default();
        while slot.running.is_some() {
            self.ended.wait(&mut slots);
            slot = slots
                .get(&(op.session, op.slot))
                .copied()
                .unwrap_or_default();
        }
        match slot.done {
            Some((seq, outcome)) if seq == op.seq => {
                let answer = outcome.map_err(Refusal::status);
                return Ok(Begin::Answered(answer));
            }
            Some((seq, _)) if seq > op.seq => return Err(Status::StaleRequest),
            Some(_) | None => {}
        }
        if slot.place.is_none() {
            slot.place = Some(self.take_place().ok_or(Status::Busy)?);
        }
        slot.running = Some(op.seq);
        slots.insert((op.session, op.slot), slot);
        Ok(Begin::Run(Ticket { replies: self, op }))
    }

    fn end(&self, op: OpId, outcome: Option<Outcome>) {
        let mut slots = self.slots.lock();
        let slot = slots
            .get_mut(&(op.session, op.slot))
            .expect("a running op keeps its slot");
        assert_eq!(slot.running, Some(op.seq), "one op of a slot at a time");
        slot.running = None;
        if let Some(outcome) = outcome {
            slot.done = Some((op.seq, outcome));
        }
        self.ended.notify_all();
    }

    fn place_of(&self, op: OpId) -> u32 {
        let slots = self.slots.lock();
        let slot = slots.get(&(op.session, op.slot));
        slot.and_then(|slot| slot.place)
            .expect("a running op has a place")
    }
}

/// The right to execute one op. Dropped without an outcome, a retry executes it.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    replies: &'a Replies,
    op: OpId,
}

/// The answer of an op that was executed, on record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded(Version);

impl Recorded {
    pub(super) fn version(self) -> Version {
        self.0
    }
}

impl Ticket<'_> {
    /// To be called before another op can change the same bytes: after a kill the chunk's record names
    /// only the last op, and a retry of this one would overwrite what came after it.
    pub(super) fn record(&self, version: Version) -> Recorded {
        self.write(Ok(version));
        Recorded(version)
    }

    /// Lets a retry have the outcome, unless it is one that a retry may get past.
    pub(super) fn finish(self, outcome: Result<Recorded, Status>) {
        let done = match outcome {
            Ok(Recorded(version)) => Ok(version),
            Err(status) => match Refusal::of(status) {
                Some(refusal) => Err(refusal),
                None => return,
            },
        };
        if done.is_err() {
            self.write(done);
        }
        self.replies.end(self.op, Some(done));
        std::mem::forget(self);
    }

    fn write(&self, outcome: Outcome) {
        let place = self.replies.place_of(self.op);
        self.replies.table.write(place, &encode(self.op, outcome));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.replies.end(self.op, None);
    }
}

fn encode(op: OpId, outcome: Outcome) -> [u8; REPLY_BYTES] {
    let mut wire = [0; REPLY_BYTES];
    wire[0..8].copy_from_slice(&op.session.0.to_le_bytes());
    wire[8..16].copy_from_slice(&op.seq.to_le_bytes());
    wire[32..34].copy_from_slice(&op.slot.to_le_bytes());
    match outcome {
        Ok(version) => {
            wire[16..24].copy_from_slice(&version.epoch.0.to_le_bytes());
            wire[24..32].copy_from_slice(&version.counter.to_le_bytes());
            wire[34] = 1;
        }
        Err(Refusal::NoSpace) => wire[34] = 2,
        Err(Refusal::DataLost) => wire[34] = 3,
        Err(Refusal::Gone) => wire[34] = 4,
        Err(Refusal::Corrupt) => wire[34] = 5,
    }
    let crc = crc32c(&wire[..CRC_AT]);
    wire[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    wire
}

fn decode(wire: &[u8]) -> Option<(OpId, Outcome)> {
    let word = |at: usize| u64::from_le_bytes(wire[at..at + 8].try_into().expect("8 bytes"));
    if crc32c(&wire[..CRC_AT]).to_le_bytes() != wire[CRC_AT..] {
        return None;
    }
    let op = OpId {
        session: SessionId(word(0)),
        slot: u16::from_le_bytes([wire[32], wire[33]]),
        seq: word(8),
    };
    let version = Version {
        epoch: Epoch(word(16)),
        counter: word(24),
    };
    let outcome = match wire[34] {
        1 => Ok(version),
        2 => Err(Refusal::NoSpace),
        3 => Err(Refusal::DataLost),
        4 => Err(Refusal::Gone),
        5 => Err(Refusal::Corrupt),
        _ => return None,
    };
    Some((op, outcome))
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn op(session: u64, slot: u16, seq: u64) -> OpId {
        OpId {
            session: SessionId(session),
            slot,
            seq,
        }
    }

    fn version(counter: u64) -> Version {
        Version {
            epoch: Epoch(1),
            counter,
        }
    }

    fn replies(file: &std::fs::File) -> Replies {
        let budget = Budget::new(64 << 20);
        let file = file.try_clone().expect("cloned");
        let table = Table::open(file, REPLY_BYTES as u64, &budget).expect("opened");
        table.preallocate(64, &budget).expect("room");
        Replies::load(table)
    }

    fn file() -> std::fs::File {
        tempfile::tempfile_in("/dev/shm").expect("tmpfs")
    }

    fn run(replies: &Replies, op: OpId, outcome: Result<Version, Status>) {
        match replies.begin(op) {
            Ok(Begin::Run(ticket)) => {
                let recorded = outcome.map(|version| ticket.record(version));
                ticket.finish(recorded);
            }
            other => panic!("expected to run {op:?}: {other:?}"),
        }
    }

    fn answer(replies: &Replies, op: OpId) -> Result<Version, Status> {
        match replies.begin(op) {
            Ok(Begin::Answered(answer)) => answer,
            other => panic!("expected an answer to {op:?}: {other:?}"),
        }
    }

    #[test]
    fn replies_retry_gets_the_first_answer_also_after_a_restart() {
        let file = file();
        let before = replies(&file);
        let outcomes = [
            Ok(version(9)),
            Err(Status::NoSpace),
            Err(Status::DataLost),
            Err(Status::Gone),
            Err(Status::Corrupt),
        ];
        for (slot, outcome) in outcomes.into_iter().enumerate() {
            run(&before, op(1, slot as u16, 5), outcome);
        }
        drop(before);
        let after = replies(&file);
        for (slot, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(answer(&after, op(1, slot as u16, 5)), outcome);
        }
        let late = after.begin(op(1, 0, 4)).err();
        assert_eq!(late, Some(Status::StaleRequest));
    }

    #[test]
    fn replies_refusal_that_may_pass_is_not_recorded() {
        let replies = replies(&file());
        run(&replies, op(1, 0, 1), Err(Status::NotServing));
        run(&replies, op(1, 0, 1), Ok(version(1)));
        assert_eq!(answer(&replies, op(1, 0, 1)), Ok(version(1)));
    }

    #[test]
    fn replies_retry_of_an_op_in_progress_waits_for_it() {
        let replies = replies(&file());
        let Ok(Begin::Run(ticket)) = replies.begin(op(1, 0, 1)) else {
            panic!("new");
        };
        std::thread::scope(|scope| {
            let retry = scope.spawn(|| answer(&replies, op(1, 0, 1)));
            let recorded = ticket.record(version(3));
            ticket.finish(Ok(recorded));
            assert_eq!(retry.join().expect("no panic"), Ok(version(3)));
        });
    }

    #[test]
    fn replies_of_a_full_table_are_busy_until_a_session_ends() {
        let replies = replies(&file());
        for slot in 0..64 {
            run(&replies, op(1, slot, 1), Ok(version(1)));
        }
        assert_eq!(replies.begin(op(2, 0, 1)).err(), Some(Status::Busy));
        run(&replies, op(1, 63, 2), Ok(version(2)));
        replies.forget_session(SessionId(1));
        run(&replies, op(2, 0, 1), Ok(version(1)));
    }

    #[test]
    fn replies_repair_wins_only_with_a_larger_seq_and_is_kept_for_live_sessions() {
        let file = file();
        let before = replies(&file);
        run(&before, op(1, 0, 5), Ok(version(5)));
        before.repair(op(1, 0, 4), version(4));
        before.repair(op(1, 1, 7), version(7));
        before.repair(op(2, 0, 1), version(1));
        before.keep_sessions(|session| session == SessionId(1));
        drop(before);
        let after = replies(&file);
        assert_eq!(answer(&after, op(1, 0, 5)), Ok(version(5)));
        assert_eq!(answer(&after, op(1, 1, 7)), Ok(version(7)));
        run(&after, op(2, 0, 1), Ok(version(1)));
    }
}
