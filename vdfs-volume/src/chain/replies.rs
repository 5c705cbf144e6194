//! What each op was answered, so that a retry is recognised: also by another member, and after a
//! restart.
//!
//! One record for each (session, slot); the larger seq wins; kept until the session ends. Definite
//! refusals are recorded like versions: an answer that somebody has acted on never changes. The
//! store keeps a copy of each record in RAM, made before the answer leaves.

use std::collections::BTreeMap;

use vdfs_proto::{ChainId, Epoch, OpId, SessionId, Status, Version};

/// A definite refusal: the op was not executed and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSpace,
    DataLost,
    Gone,
    Corrupt,
}

impl Refusal {
    /// `None` for what the same op may still get past: another epoch, a lease, a fence.
    pub fn of(status: Status) -> Option<Self> {
        match status {
            Status::NoSpace => Some(Refusal::NoSpace),
            Status::DataLost => Some(Refusal::DataLost),
            Status::Gone => Some(Refusal::Gone),
            Status::Corrupt => Some(Refusal::Corrupt),
            _ => None,
        }
    }

    pub fn status(self) -> Status {
        match self {
            Refusal::NoSpace => Status::NoSpace,
            Refusal::DataLost => Status::DataLost,
            Refusal::Gone => Status::Gone,
            Refusal::Corrupt => Status::Corrupt,
        }
    }
}

/// What an op was answered.
pub type Outcome = Result<Version, Refusal>;

/// What an op was answered, and in which chain its chunk lies, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub op: OpId,
    pub chain: Option<ChainId>,
    /// None if the chain never had it: earlier ops of the slot are over all the same.
    pub outcome: Option<Outcome>,
}

/// A slot of a session: it has one op at a time.
pub(super) type Slot = (SessionId, u16);

pub(super) fn slot_of(op: OpId) -> Slot {
    (op.session, op.slot)
}

/// What is known of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Answered(Outcome),
    /// The slot has moved on: a late duplicate.
    Stale,
}

#[derive(Debug)]
pub(super) struct Replies {
    /// `None`: the slot's first op is under way. With the epoch in which the change came here; 0 for
    /// those of an earlier life.
    slots: BTreeMap<Slot, Option<(Epoch, Reply)>>,
    slots_max: usize,
}

impl Replies {
    /// With the records that the store has. It has room for `slots_max`.
    pub(super) fn new(records: impl IntoIterator<Item = Reply>, slots_max: usize) -> Self {
        let of_record = |reply: Reply| (slot_of(reply.op), Some((Epoch(0), reply)));
        Replies {
            slots: records.into_iter().map(of_record).collect(),
            slots_max,
        }
    }

    pub(super) fn find(&self, op: OpId) -> Known {
        match self.slots.get(&slot_of(op)).copied().flatten() {
            Some((_, known)) if known.op.seq == op.seq => {
                known.outcome.map_or(Known::New, Known::Answered)
            }
            Some((_, known)) if known.op.seq > op.seq => Known::Stale,
            Some(_) | None => Known::New,
        }
    }

    /// Makes sure that the op's reply can be recorded; `Busy` if the table is full.
    pub(super) fn reserve(&mut self, op: OpId) -> Result<(), Status> {
        let slot = slot_of(op);
        if !self.slots.contains_key(&slot) && self.slots.len() >= self.slots_max {
            return Err(Status::Busy);
        }
        self.slots.entry(slot).or_insert(None);
        Ok(())
    }

    /// The op ended without a reply to remember.
    pub(super) fn release(&mut self, op: OpId) {
        if self.slots.get(&slot_of(op)) == Some(&None) {
            self.slots.remove(&slot_of(op));
        }
    }

    pub(super) fn record(&mut self, epoch: Epoch, reply: Reply) {
        let slot = slot_of(reply.op);
        let place = self.slots.get_mut(&slot).expect("it was reserved");
        if place.is_none_or(|(_, known)| known.op.seq <= reply.op.seq) {
            *place = Some((epoch, reply));
        }
    }

    /// What ops of this chain were answered, as far as their chain is known.
    pub(super) fn of_chain(&self, chain: ChainId) -> Vec<(OpId, Outcome)> {
        self.of_chain_before(chain, Epoch(u64::MAX))
    }

    /// The same of changes that came in earlier epochs than this one.
    pub(super) fn of_chain_before(&self, chain: ChainId, epoch: Epoch) -> Vec<(OpId, Outcome)> {
        let known = self.slots.values().flatten();
        let earlier = known.filter(|(came, known)| *came < epoch && known.chain == Some(chain));
        let answered = earlier.filter_map(|(_, known)| Some((known.op, known.outcome?)));
        answered.collect()
    }

    /// Forgets an op's reply.
    pub(super) fn forget(&mut self, op: OpId) {
        let place = self.slots.get_mut(&slot_of(op)).and_then(Option::as_mut);
        if let Some((_, known)) = place.filter(|(_, known)| known.op == op) {
            known.outcome = None;
        }
    }

    /// Drops what is not kept.
    pub(super) fn retain(&mut self, is_kept: impl Fn(Slot) -> bool) {
        self.slots.retain(|slot, _| is_kept(*slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(session: u64, slot: u16, seq: u64) -> OpId {
        OpId {
            session: SessionId(session),
            slot,
            seq,
        }
    }

    fn reply(op: OpId, outcome: Outcome) -> Reply {
        Reply {
            op,
            chain: None,
            outcome: Some(outcome),
        }
    }

    fn version(counter: u64) -> Version {
        Version {
            epoch: Epoch(1),
            counter,
        }
    }

    #[test]
    fn replies_retry_gets_the_first_answer_and_a_late_duplicate_none() {
        let mut replies = Replies::new([reply(op(1, 0, 5), Ok(version(9)))], 8);
        assert_eq!(replies.find(op(1, 0, 5)), Known::Answered(Ok(version(9))));
        assert_eq!(replies.find(op(1, 0, 4)), Known::Stale);
        assert_eq!(replies.find(op(1, 0, 6)), Known::New);
        replies.reserve(op(1, 0, 6)).expect("it has its place");
        let refused = Err(Refusal::NoSpace);
        replies.record(Epoch(1), reply(op(1, 0, 6), refused));
        assert_eq!(replies.find(op(1, 0, 6)), Known::Answered(refused));
    }

    #[test]
    fn replies_of_a_full_table_are_busy_until_a_session_ends() {
        let mut replies = Replies::new([reply(op(1, 0, 1), Ok(version(1)))], 2);
        replies.reserve(op(1, 1, 1)).expect("room");
        assert_eq!(replies.reserve(op(2, 0, 1)), Err(Status::Busy));
        replies.release(op(1, 1, 1));
        replies.reserve(op(2, 0, 1)).expect("room again");
        assert_eq!(replies.reserve(op(3, 0, 1)), Err(Status::Busy));
        replies.retain(|(session, _)| session != SessionId(1));
        replies.reserve(op(3, 0, 1)).expect("a session has ended");
    }

    #[test]
    fn replies_release_keeps_what_an_earlier_op_was_answered() {
        let mut replies = Replies::new([reply(op(1, 0, 1), Ok(version(1)))], 2);
        replies.reserve(op(1, 0, 2)).expect("room");
        replies.release(op(1, 0, 2));
        assert_eq!(replies.find(op(1, 0, 1)), Known::Answered(Ok(version(1))));
    }
}
