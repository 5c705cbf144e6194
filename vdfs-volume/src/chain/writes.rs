//! Changes under way at one member, and the chunks that are closed for them.
//!
//! Invariant: a chunk is closed exactly while a change of it is past [`Phase::Queued`] and its reply
//! is not on record; what waits for the chunk stands in its queue.

use std::collections::{BTreeMap, VecDeque};

use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, OpId, SessionId, Status, Version, VolumeId};

use super::chunk_state::Rule;
use super::replies::{Outcome, Slot, slot_of};
use super::{Order, Refusal};
use crate::limits::{CALLERS_PER_CHANGE_MAX, CHANGES_PER_CHUNK_MAX, READERS_PER_CHUNK_MAX};

/// Who is answered when a change has ended.
#[derive(Debug)]
pub(super) enum Asker<C> {
    Client(C),
    Predecessor(C),
}

/// What a change waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The chunk is closed for another one.
    Queued,
    /// The store, as the last one of the chain.
    Executing,
    /// The store, before it is passed on.
    Preparing,
    /// The successor.
    Passed(Passed),
    /// The store, after the successor has applied.
    Applying,
    /// The reply's record.
    Recording(Outcome),
    /// The master, who does not know yet that this head has taken over. The chunk is open.
    Done(Outcome),
}

/// A change that the successor has, or is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// Whose answer counts; none while nobody is asked.
    pub(super) exchange: Option<u64>,
    pub(super) successor: VolumeId,
    /// Under which it was passed on last.
    pub(super) epoch: Epoch,
    /// When the successor is reported for its silence, again and again.
    pub(super) report_ms: u64,
    /// When it is passed on again, if nobody is asked.
    pub(super) again_ms: u64,
    /// The successor lacks the chunk, which goes before the change.
    pub(super) is_lacking: bool,
}

#[derive(Debug)]
pub(super) struct Underway<B, C> {
    pub(super) order: Order<B>,
    /// Under which it arrived.
    pub(super) epoch: Epoch,
    /// `Next` until the version is known.
    pub(super) rule: Rule,
    pub(super) phase: Phase,
    /// What the store is asked for is of a copy that is not the chain's any more: this volume is given
    /// another one.
    pub(super) is_withdrawn: bool,
    pub(super) askers: Vec<Asker<C>>,
}

impl<B, C> Underway<B, C> {
    pub(super) fn new(order: Order<B>, epoch: Epoch, rule: Rule, asker: Asker<C>) -> Self {
        Underway {
            order,
            epoch,
            rule,
            phase: Phase::Queued,
            is_withdrawn: false,
            askers: vec![asker],
        }
    }

    /// The version, if it has one.
    pub(super) fn version(&self) -> Option<Version> {
        match self.rule {
            Rule::Next(_) => None,
            Rule::Given { version, .. } => Some(version),
        }
    }

    /// It is passed on, and not made here.
    pub(super) fn may_show_below(&self) -> bool {
        matches!(self.phase, Phase::Passed(_) | Phase::Applying)
    }

    /// Adds one who waits for the same op; `Busy` beyond the bound.
    pub(super) fn attach(&mut self, asker: Asker<C>) -> Result<(), (Asker<C>, Status)> {
        if self.askers.len() >= CALLERS_PER_CHANGE_MAX {
            return Err((asker, Status::Busy));
        }
        self.askers.push(asker);
        Ok(())
    }
}

/// A chunk that is closed for one change.
#[derive(Debug)]
struct Closed<C> {
    by: Slot,
    queue: VecDeque<Slot>,
    readers: Vec<C>,
}

/// A chunk was opened: who goes on.
#[derive(Debug)]
pub(super) struct Opened<C> {
    /// The chunk is closed for this one now.
    pub(super) next: Option<Slot>,
    pub(super) readers: Vec<C>,
}

#[derive(Debug)]
pub(super) struct Writes<B, C> {
    underway: BTreeMap<Slot, Underway<B, C>>,
    closed: BTreeMap<ChunkId, Closed<C>>,
    exchanges: BTreeMap<u64, Slot>,
    next_exchange: u64,
}

impl<B, C> Writes<B, C> {
    pub(super) fn new() -> Self {
        Writes {
            underway: BTreeMap::new(),
            closed: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            next_exchange: 1,
        }
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Underway<B, C>> {
        self.underway.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Underway<B, C>> {
        self.underway.get_mut(&slot)
    }

    /// A change that its caller has seen under way in this step.
    pub(super) fn expect(&mut self, slot: Slot) -> &mut Underway<B, C> {
        self.underway.get_mut(&slot).expect("it is under way")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.underway.is_empty()
    }

    /// Whether another change may wait for the chunk.
    pub(super) fn has_room(&self, chunk: ChunkId) -> bool {
        self.closed
            .get(&chunk)
            .is_none_or(|closed| closed.queue.len() < CHANGES_PER_CHUNK_MAX)
    }

    /// Takes a change in. Whether the chunk is closed for it now; otherwise it waits.
    pub(super) fn insert(&mut self, write: Underway<B, C>) -> bool {
        let (slot, chunk) = (slot_of(write.order.op), write.order.chunk);
        let before = self.underway.insert(slot, write);
        assert!(before.is_none(), "one op of a slot at a time");
        match self.closed.get_mut(&chunk) {
            Some(closed) => {
                closed.queue.push_back(slot);
                false
            }
            None => {
                let closed = Closed {
                    by: slot,
                    queue: VecDeque::new(),
                    readers: Vec::new(),
                };
                self.closed.insert(chunk, closed);
                true
            }
        }
    }

    /// The change that the chunk is closed for.
    pub(super) fn closed_by(&self, chunk: ChunkId) -> Option<&Underway<B, C>> {
        let closed = self.closed.get(&chunk)?;
        let write = self.underway.get(&closed.by);
        Some(write.expect("a chunk is closed for what is under way"))
    }

    /// Those that wait for a closed chunk, in their order.
    pub(super) fn waiting(&self, chunk: ChunkId) -> impl Iterator<Item = &Underway<B, C>> {
        let queues = self.closed.get(&chunk).into_iter();
        let slots = queues.flat_map(|closed| &closed.queue);
        slots.map(|slot| &self.underway[slot])
    }

    /// Waits for a closed chunk to open. Gives the reader back if it is open, or if too many wait.
    pub(super) fn wait_for_open(&mut self, chunk: ChunkId, reader: C) -> Result<(), C> {
        match self.closed.get_mut(&chunk) {
            Some(closed) if closed.readers.len() < READERS_PER_CHUNK_MAX => {
                closed.readers.push(reader);
                Ok(())
            }
            Some(_) | None => Err(reader),
        }
    }

    /// Opens the chunk that is closed for `slot`, and closes it for the next one that waits.
    pub(super) fn open(&mut self, slot: Slot) -> Opened<C> {
        let chunk = self.expect(slot).order.chunk;
        let mut closed = self.closed.remove(&chunk).expect("it is closed");
        assert_eq!(closed.by, slot, "closed for this change");
        let readers = std::mem::take(&mut closed.readers);
        let next = closed.queue.pop_front();
        if let Some(by) = next {
            closed.by = by;
            self.closed.insert(chunk, closed);
        }
        Opened { next, readers }
    }

    /// Takes out a change whose chunk is not closed for it any more, or never was.
    pub(super) fn remove(&mut self, slot: Slot) -> Underway<B, C> {
        let write = self.underway.remove(&slot).expect("it is under way");
        if let Some(closed) = self.closed.get_mut(&write.order.chunk) {
            assert_ne!(closed.by, slot, "opened first");
            closed.queue.retain(|other| *other != slot);
        }
        write
    }

    /// A number for one message to a successor; answers to earlier ones do not count any more.
    pub(super) fn begin_exchange(&mut self, slot: Slot) -> u64 {
        let number = self.next_exchange;
        self.next_exchange += 1;
        self.exchanges.insert(number, slot);
        number
    }

    /// Which change an answer is for, if it is still waited for.
    pub(super) fn end_exchange(&mut self, number: u64) -> Option<Slot> {
        let slot = self.exchanges.remove(&number)?;
        let write = self.underway.get(&slot)?;
        match write.phase {
            Phase::Passed(passed) => {
                let counts = passed.exchange == Some(number) || super::is_planted!(TakeAnyAnswer);
                counts.then_some(slot)
            }
            _ => None,
        }
    }

    pub(super) fn of_chain(&self, chain: ChainId) -> Vec<Slot> {
        let writes = self.underway.iter();
        writes
            .filter(|(_, write)| write.order.chain == chain)
            .map(|(slot, _)| *slot)
            .collect()
    }

    /// The store has been asked for a change of the chain, or for its record, that came before this epoch, and
    /// has not answered.
    pub(super) fn is_at_store_before(&self, chain: ChainId, epoch: Epoch) -> bool {
        let is_earlier =
            |write: &&Underway<B, C>| write.order.chain == chain && write.epoch < epoch;
        let is_at_store = |write: &Underway<B, C>| match write.phase {
            Phase::Executing | Phase::Preparing | Phase::Applying | Phase::Recording(_) => true,
            Phase::Queued | Phase::Passed(_) | Phase::Done(_) => false,
        };
        self.underway.values().filter(is_earlier).any(is_at_store)
    }

    /// The changes of a chain that its chunks are closed for.
    pub(super) fn closing(&self, chain: ChainId) -> Vec<OpId> {
        self.closing_writes(chain)
            .map(|write| write.order.op)
            .collect()
    }

    fn closing_writes(&self, chain: ChainId) -> impl Iterator<Item = &Underway<B, C>> {
        let closed = self.closed.values();
        let writes = closed.map(|closed| &self.underway[&closed.by]);
        writes.filter(move |write| write.order.chain == chain)
    }

    /// A change that was asked for before this epoch is passed on, and not made here.
    pub(super) fn may_be_shown_below(&self, chain: ChainId, epoch: Epoch) -> bool {
        self.closing_writes(chain)
            .any(|write| write.may_show_below() && write.epoch < epoch)
    }

    /// The changes that a file's chunks are closed for.
    pub(super) fn closing_file(
        &self,
        data: DataId,
    ) -> impl Iterator<Item = (ChunkId, &Underway<B, C>)> {
        let chunk = |index| ChunkId { data, index };
        let closed = self.closed.range(chunk(0)..=chunk(u32::MAX));
        closed.map(|(chunk, closed)| (*chunk, &self.underway[&closed.by]))
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        self.underway.keys().copied().collect()
    }

    /// Whether a change of the session may still be applied here.
    pub(super) fn has_session(&self, session: SessionId) -> bool {
        self.underway
            .range((session, 0)..=(session, u16::MAX))
            .any(|(_, write)| !matches!(write.phase, Phase::Done(_)))
    }

    pub(super) fn of_session(&self, session: SessionId) -> Vec<Slot> {
        self.underway
            .range((session, 0)..=(session, u16::MAX))
            .map(|(slot, _)| *slot)
            .collect()
    }

    /// Panics if what is closed does not fit what is under way.
    pub(super) fn check(&self) {
        for (chunk, closed) in &self.closed {
            let by = self.underway.get(&closed.by).expect("under way");
            assert_eq!(by.order.chunk, *chunk);
            assert!(!matches!(by.phase, Phase::Queued | Phase::Done(_)));
            assert!(closed.queue.len() <= CHANGES_PER_CHUNK_MAX);
            for slot in &closed.queue {
                let waiting = self.underway.get(slot).expect("under way");
                assert_eq!(
                    (waiting.order.chunk, waiting.phase),
                    (*chunk, Phase::Queued)
                );
            }
        }
        for write in self.underway.values() {
            let is_at_chunk = !matches!(write.phase, Phase::Done(_));
            let has_chunk = self.closed.contains_key(&write.order.chunk);
            assert!(!is_at_chunk || has_chunk, "its chunk is closed");
            assert!(!write.askers.is_empty() || write.version().is_some());
        }
    }
}

/// What an ended change is answered.
pub(super) fn answer(outcome: Outcome) -> Result<Version, Status> {
    outcome.map_err(Refusal::status)
}
