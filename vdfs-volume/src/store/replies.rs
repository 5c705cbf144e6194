//! Copies of retry records, so that a retry is recognised also after a restart: see
//! [`crate::chain`], which decides.
//!
//! The clean record of a chunk names the op that made it, and repairs this table at start.
//!
//! | bytes of a record | field | meaning |
//! |---|---|---|
//! | 0..8 | session | |
//! | 8..16 | seq | |
//! | 16..24 | epoch | of the version given |
//! | 24..32 | counter | of the version given |
//! | 32..34 | slot | |
//! | 34 | kind | 1 done, 2..5 refused ([`Refusal`]), 6 unknown to its chain |
//! | 36..40 | chain | of the chunk, plus 1; 0 if it is not known |
//! | 40..60 | | 0 |
//! | 60..64 | CRC32C | of bytes 0..60 |

use std::collections::BTreeMap;

use parking_lot::Mutex;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChainId, Epoch, OpId, SessionId, Version};

use super::table::Table;
use crate::chain::{Refusal, Reply};

pub(super) const REPLY_BYTES: usize = 64;
const CRC_AT: usize = REPLY_BYTES - 4;

/// A slot of a session.
type Slot = (SessionId, u16);

#[derive(Debug)]
pub(super) struct Replies {
    table: Table,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    of_slot: BTreeMap<Slot, Held>,
    /// What was found at start; the records that only chunks told have no place yet.
    found: BTreeMap<Slot, Reply>,
}

/// A slot's record.
#[derive(Clone, Copy, Debug)]
struct Held {
    place: u32,
    seq: u64,
}

impl Replies {
    /// Reads a table whose size is fixed.
    pub(super) fn load(table: Table) -> Self {
        let mut places = Places::default();
        let mut used = Vec::new();
        table.scan(|place, wire| {
            if let Some(reply) = decode(wire) {
                used.push(place);
                let slot = slot_of(reply.op);
                let seq = reply.op.seq;
                places.of_slot.insert(slot, Held { place, seq });
                places.found.insert(slot, reply);
            }
        });
        table.occupy(used.into_iter());
        Replies {
            table,
            places: Mutex::new(places),
        }
    }

    /// Records there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.table.capacity() as usize
    }

    /// Learns from a chunk's clean record what its op was answered, also if it was refused here before
    /// another member made it.
    pub(super) fn repair(&self, op: OpId, chain: ChainId, version: Version) {
        let mut places = self.places.lock();
        let slot = slot_of(op);
        let known = places.found.get(&slot);
        if known.is_none_or(|known| known.op.seq <= op.seq) {
            let reply = Reply {
                op,
                chain: Some(chain),
                outcome: Some(Ok(version)),
            };
            places.found.insert(slot, reply);
            if let Some(held) = places.of_slot.get_mut(&slot) {
                held.seq = op.seq;
                self.table.write(held.place, &encode(reply));
            }
        }
    }

    /// What was found at start.
    pub(super) fn found(&self) -> Vec<Reply> {
        self.places.lock().found.values().copied().collect()
    }

    /// Drops the records of all sessions but these, and writes down what repairs have brought.
    pub(super) fn keep_sessions(&self, is_kept: impl Fn(SessionId) -> bool) {
        let mut places = self.places.lock();
        let dropped: Vec<Slot> = places
            .of_slot
            .keys()
            .filter(|(session, _)| !is_kept(*session))
            .copied()
            .collect();
        for slot in dropped {
            self.erase(&mut places, slot);
        }
        for (slot, reply) in std::mem::take(&mut places.found) {
            let is_lacking = is_kept(slot.0) && !places.of_slot.contains_key(&slot);
            if is_lacking && let Some(place) = self.table.take_one() {
                self.table.write(place, &encode(reply));
                let seq = reply.op.seq;
                places.of_slot.insert(slot, Held { place, seq });
            }
        }
    }

    pub(super) fn forget_session(&self, session: SessionId) {
        let mut places = self.places.lock();
        let slots = places.of_slot.range((session, 0)..=(session, u16::MAX));
        let slots: Vec<Slot> = slots.map(|(slot, _)| *slot).collect();
        for slot in slots {
            self.erase(&mut places, slot);
        }
    }

    fn erase(&self, places: &mut Places, slot: Slot) {
        if let Some(held) = places.of_slot.remove(&slot) {
            self.table.write(held.place, &[0; REPLY_BYTES]);
            self.table.free(std::iter::once(held.place));
        }
    }

    /// Records a reply in the place of the slot's last one. Not if that is of a later op: threads bring
    /// them here in any order.
    pub(super) fn record(&self, reply: Reply) {
        let mut places = self.places.lock();
        let (slot, seq) = (slot_of(reply.op), reply.op.seq);
        let known = places.of_slot.get(&slot).copied();
        if known.is_some_and(|held| held.seq > seq) {
            return;
        }
        let place = known.map(|held| held.place);
        let place = place.or_else(|| self.table.take_one());
        let place = place.expect("the core takes in no more slots than there are places");
        places.of_slot.insert(slot, Held { place, seq });
        self.table.write(place, &encode(reply));
    }
}

fn slot_of(op: OpId) -> Slot {
    (op.session, op.slot)
}

fn encode(reply: Reply) -> [u8; REPLY_BYTES] {
    let Reply { op, chain, outcome } = reply;
    let chain = chain.map_or(0, |chain| chain.0 + 1);
    let mut wire = [0; REPLY_BYTES];
    wire[36..40].copy_from_slice(&chain.to_le_bytes());
    wire[0..8].copy_from_slice(&op.session.0.to_le_bytes());
    wire[8..16].copy_from_slice(&op.seq.to_le_bytes());
    wire[32..34].copy_from_slice(&op.slot.to_le_bytes());
    match outcome {
        Some(Ok(version)) => {
            wire[16..24].copy_from_slice(&version.epoch.0.to_le_bytes());
            wire[24..32].copy_from_slice(&version.counter.to_le_bytes());
            wire[34] = 1;
        }
        Some(Err(Refusal::NoSpace)) => wire[34] = 2,
        Some(Err(Refusal::DataLost)) => wire[34] = 3,
        Some(Err(Refusal::Gone)) => wire[34] = 4,
        Some(Err(Refusal::Corrupt)) => wire[34] = 5,
        None => wire[34] = 6,
    }
    let crc = crc32c(&wire[..CRC_AT]);
    wire[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    wire
}

fn decode(wire: &[u8]) -> Option<Reply> {
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
        1 => Some(Ok(version)),
        2 => Some(Err(Refusal::NoSpace)),
        3 => Some(Err(Refusal::DataLost)),
        4 => Some(Err(Refusal::Gone)),
        5 => Some(Err(Refusal::Corrupt)),
        6 => None,
        _ => return None,
    };
    let chain = u32::from_le_bytes(wire[36..40].try_into().expect("4 bytes"));
    let chain = chain.checked_sub(1).map(ChainId);
    Some(Reply { op, chain, outcome })
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use crate::chain::Outcome;

    fn version(counter: u64) -> Version {
        Version {
            epoch: Epoch(1),
            counter,
        }
    }

    const CHAIN: ChainId = ChainId(7);

    fn op(session: u64, slot: u16, seq: u64) -> OpId {
        OpId {
            session: SessionId(session),
            slot,
            seq,
        }
    }

    fn reply(op: OpId, outcome: Option<Outcome>) -> Reply {
        let chain = Some(CHAIN);
        Reply { op, chain, outcome }
    }

    fn done(op: OpId, counter: u64) -> Reply {
        reply(op, Some(Ok(version(counter))))
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

    #[test]
    fn replies_of_every_kind_are_found_again() {
        let file = file();
        let before = replies(&file);
        let outcomes = [
            Some(Ok(version(9))),
            Some(Err(Refusal::NoSpace)),
            Some(Err(Refusal::DataLost)),
            Some(Err(Refusal::Gone)),
            Some(Err(Refusal::Corrupt)),
            None,
        ];
        for (slot, outcome) in outcomes.into_iter().enumerate() {
            before.record(done(op(1, slot as u16, 4), 1));
            before.record(reply(op(1, slot as u16, 5), outcome));
        }
        let found = replies(&file).found();
        assert_eq!(found.len(), outcomes.len(), "one a slot");
        for (slot, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(found[slot], reply(op(1, slot as u16, 5), outcome));
        }
    }

    #[test]
    fn replies_of_a_later_op_stay_when_an_earlier_one_is_recorded() {
        let file = file();
        let before = replies(&file);
        before.record(done(op(1, 0, 9), 9));
        before.record(done(op(1, 0, 8), 8));
        assert_eq!(replies(&file).found(), [done(op(1, 0, 9), 9)]);
        let again = replies(&file);
        again.record(done(op(1, 0, 8), 8));
        assert_eq!(replies(&file).found(), [done(op(1, 0, 9), 9)]);
    }

    #[test]
    fn replies_of_ended_sessions_make_room() {
        let file = file();
        let replies = replies(&file);
        for slot in 0..64 {
            replies.record(done(op(1, slot, 1), 1));
        }
        replies.forget_session(SessionId(1));
        for slot in 0..64 {
            replies.record(done(op(2, slot, 1), 1));
        }
        replies.keep_sessions(|session| session != SessionId(2));
        replies.record(done(op(3, 0, 1), 1));
    }

    #[test]
    fn replies_repair_wins_only_with_a_larger_seq_and_is_kept_for_live_sessions() {
        let file = file();
        let before = replies(&file);
        before.record(done(op(1, 0, 5), 5));
        drop(before);
        let repaired = replies(&file);
        repaired.repair(op(1, 0, 4), CHAIN, version(4));
        repaired.repair(op(1, 1, 7), CHAIN, version(7));
        repaired.repair(op(2, 0, 1), CHAIN, version(1));
        assert_eq!(repaired.found().len(), 3);
        repaired.keep_sessions(|session| session == SessionId(1));
        drop(repaired);
        let found = replies(&file).found();
        let kept = [done(op(1, 0, 5), 5), done(op(1, 1, 7), 7)];
        assert_eq!(found, kept);
    }
}
