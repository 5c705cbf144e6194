//! Bytes that `write(2)` has handed over and no volume has acknowledged yet, of one inode; and what
//! volumes are to do to ranges by themselves, in the same order.
//!
//! A run is *filling* while writes may still join it, *queued* when it is sealed, *flying* once it
//! was handed out to be sent. Invariants: a run never crosses a chunk border; no two flying runs
//! overlap; of two runs that overlap the older one flies first; a run sealed after a hold does not
//! fly before the hold is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use vdfs_proto::data::SpaceKind;
use vdfs_proto::{ChunkSize, Status};

use crate::limits::{FILLING_RUNS_MAX, RUN_BYTES_MAX};
use crate::plan::CopyFrom;
use crate::shares::Budget;

/// Orders runs by when they were sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunId(u64);

/// What is to be sent: a range of one chunk, and what becomes of it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) body: RunBody,
}

#[derive(Debug)]
pub(crate) enum RunBody {
    Write {
        bytes: Bytes,
        /// Its share of the buffer; given back when the run is dropped.
        _budget: Budget,
    },
    Order(Order),
}

/// What a volume does to a range without being sent bytes.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) work: Work,
    /// Hears of the end; closed without a word if the session has ended.
    answer: oneshot::Sender<Result<(), Status>>,
}

impl Order {
    /// With where to hear of its end.
    pub(crate) fn new(work: Work) -> (Self, oneshot::Receiver<Result<(), Status>>) {
        let (answer, outcome) = oneshot::channel();
        (Order { work, answer }, outcome)
    }

    pub(crate) fn answer(self, outcome: Result<(), Status>) {
        if self.answer.send(outcome).is_err() {
            tracing::debug!("nobody waits for an order");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Space(SpaceKind),
    Copy(CopyFrom),
}

impl Run {
    fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// `None` if the run is written bytes.
    pub(crate) fn work(&self) -> Option<Work> {
        match &self.body {
            RunBody::Write { .. } => None,
            RunBody::Order(order) => Some(order.work),
        }
    }
}

#[derive(Debug)]
struct Filling {
    content: Content,
    budget: Budget,
}

/// A write that nothing joins is never copied.
#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Growing(BytesMut),
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    id: RunId,
    end: u64,
}

#[derive(Debug)]
pub(crate) struct Dirty {
    chunk_size: ChunkSize,
    /// By file offset; disjoint.
    filling: BTreeMap<u64, Filling>,
    queued: VecDeque<Run>,
    /// By file offset; disjoint.
    flying: BTreeMap<u64, Flight>,
    /// Queued and flying.
    sealed: BTreeSet<RunId>,
    next_id: u64,
    holders: u32,
    /// Runs from this one on do not fly; of the first of the holders.
    held_from: Option<RunId>,
}

impl Dirty {
    pub(crate) fn new(chunk_size: ChunkSize) -> Self {
        Dirty {
            chunk_size,
            filling: BTreeMap::new(),
            queued: VecDeque::new(),
            flying: BTreeMap::new(),
            sealed: BTreeSet::new(),
            next_id: 0,
            holders: 0,
            held_from: None,
        }
    }

    /// Takes a write. `budget` covers exactly its bytes.
    pub(crate) fn take(&mut self, offset: u64, bytes: &Bytes, mut budget: Budget) {
        assert_eq!(budget.bytes(), bytes.len(), "every byte has its share");
        let mut rest = bytes.clone();
        let mut at = offset;
        for span in self.chunk_size.spans(offset, bytes.len() as u64) {
            let piece = rest.split_to(span.len as usize);
            let share = budget.split(piece.len());
            self.place(at, piece, share);
            at += u64::from(span.len);
        }
    }

    fn place(&mut self, offset: u64, piece: Bytes, budget: Budget) {
        let end = offset + piece.len() as u64;
        let start = match self.joinable(offset, end) {
            Some(start) => {
                self.join(start, offset, &piece, budget);
                start
            }
            None => {
                self.seal_overlapping(offset, end);
                let content = Content::Whole(piece);
                self.filling.insert(offset, Filling { content, budget });
                offset
            }
        };
        if self.filling[&start].content.len() >= RUN_BYTES_MAX {
            self.seal(start);
        } else if self.filling.len() > FILLING_RUNS_MAX {
            let (&lowest, _) = self.filling.first_key_value().expect("more than none");
            self.seal(lowest);
        }
    }

    /// The filling run that a write of this range can join without touching another one.
    fn joinable(&self, offset: u64, end: u64) -> Option<u64> {
        let (&start, run) = self.filling.range(..=offset).next_back()?;
        let run_end = start + run.content.len() as u64;
        let chunk = u64::from(self.chunk_size.bytes());
        let next = self.filling.range(start + 1..).next();
        let fits = offset <= run_end
            && start / chunk == offset / chunk
            && end.max(run_end) - start <= RUN_BYTES_MAX as u64
            && next.is_none_or(|(&next, _)| end <= next);
        fits.then_some(start)
    }

    fn join(&mut self, start: u64, offset: u64, piece: &[u8], mut budget: Budget) {
        let run = self.filling.get_mut(&start).expect("just found");
        let before = run.content.len();
        let within = usize::try_from(offset - start).expect("within a run");
        run.content.overwrite(within, piece);
        let grown = run.content.len() - before;
        run.budget.merge(budget.split(grown));
    }

    fn seal_overlapping(&mut self, offset: u64, end: u64) {
        let before = self.filling.range(..offset).next_back();
        let across = before
            .filter(|&(&start, run)| start + run.content.len() as u64 > offset)
            .map(|(&start, _)| start);
        let inside = self.filling.range(offset..end).map(|(&start, _)| start);
        let overlapping: Vec<u64> = across.into_iter().chain(inside).collect();
        for start in overlapping {
            self.seal(start);
        }
    }

    fn seal(&mut self, start: u64) {
        let filling = self.filling.remove(&start).expect("a filling run");
        let bytes = filling.content.freeze();
        let len = bytes.len() as u64;
        let body = RunBody::Write {
            bytes,
            _budget: filling.budget,
        };
        self.queue((start, len), body);
    }

    fn queue(&mut self, (offset, len): (u64, u64), body: RunBody) {
        let id = RunId(self.next_id);
        self.next_id += 1;
        self.sealed.insert(id);
        self.queued.push_back(Run {
            id,
            offset,
            len,
            body,
        });
    }

    /// Queues an order for `len` bytes at `offset`, within one chunk, behind all that was written
    /// there before.
    pub(crate) fn order(&mut self, offset: u64, len: u64, order: Order) {
        let spans = self.chunk_size.spans(offset, len).count();
        assert_eq!(spans, 1, "an order is for one chunk");
        self.seal_overlapping(offset, offset + len);
        self.queue((offset, len), RunBody::Order(order));
    }

    /// No write joins what is here; returns the id that the next run will have.
    pub(crate) fn seal_all(&mut self) -> RunId {
        while let Some((&start, _)) = self.filling.first_key_value() {
            self.seal(start);
        }
        RunId(self.next_id)
    }

    /// The next run that may fly; it is flying from now on.
    pub(crate) fn next_flight(&mut self) -> Option<Run> {
        let at = (0..self.queued.len())
            .take_while(|&at| self.held_from.is_none_or(|held| self.queued[at].id < held))
            .find(|&at| self.may_fly(at))?;
        let run = self.queued.remove(at).expect("just found");
        let flight = Flight {
            id: run.id,
            end: run.end(),
        };
        let before = self.flying.insert(run.offset, flight);
        assert!(before.is_none(), "two overlapping runs in flight");
        Some(run)
    }

    fn may_fly(&self, at: usize) -> bool {
        let run = &self.queued[at];
        let above = self.flying.range(..run.end()).next_back();
        let clear = above.is_none_or(|(_, flight)| flight.end <= run.offset);
        let overlaps = |other: &Run| other.offset < run.end() && run.offset < other.end();
        clear && !self.queued.iter().take(at).any(overlaps)
    }

    /// A flight has ended. False if the run was dropped meanwhile.
    pub(crate) fn land(&mut self, id: RunId, offset: u64) -> bool {
        if !self.sealed.remove(&id) {
            return false;
        }
        let flight = self.flying.remove(&offset);
        assert_eq!(flight.map(|flight| flight.id), Some(id), "it was flying");
        true
    }

    /// Runs sealed from now on wait until each holder has let go. Returns the first id that waits.
    pub(crate) fn hold(&mut self) -> RunId {
        let from = self.seal_all();
        self.holders += 1;
        *self.held_from.get_or_insert(from)
    }

    /// [`Dirty::hold`], unless somebody else holds.
    pub(crate) fn try_hold(&mut self) -> Option<RunId> {
        (!self.is_held()).then(|| self.hold())
    }

    pub(crate) fn unhold(&mut self) {
        assert!(self.holders > 0, "nobody holds");
        self.holders -= 1;
        if self.holders == 0 {
            self.held_from = None;
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holders > 0
    }

    /// Nothing sealed before `id` is left.
    pub(crate) fn has_landed_before(&self, id: RunId) -> bool {
        self.sealed.first().is_none_or(|&oldest| oldest >= id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filling.is_empty() && self.sealed.is_empty()
    }

    pub(crate) fn overlaps(&self, offset: u64, end: u64) -> bool {
        self.ranges()
            .any(|(start, stop)| start < end && offset < stop)
    }

    /// Start and end of every run that has not landed.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let filling = self
            .filling
            .iter()
            .map(|(&start, run)| (start, start + run.content.len() as u64));
        let queued = self.queued.iter().map(|run| (run.offset, run.end()));
        let flying = self
            .flying
            .iter()
            .map(|(&start, flight)| (start, flight.end));
        filling.chain(queued).chain(flying)
    }

    /// Start and end of what a commit has to wait for: all runs, but of a held file only those from
    /// before the hold.
    pub(crate) fn ranges_to_commit(&self) -> Vec<(u64, u64)> {
        let Some(held) = self.held_from else {
            return self.ranges().collect();
        };
        let queued = self.queued.iter().filter(|run| run.id < held);
        let queued = queued.map(|run| (run.offset, run.end()));
        let flying = self
            .flying
            .iter()
            .map(|(&start, flight)| (start, flight.end));
        queued.chain(flying).collect()
    }

    /// Offset of a run that is being sent.
    pub(crate) fn flying_at(&self) -> Option<u64> {
        self.flying.first_key_value().map(|(&start, _)| start)
    }

    /// Drops everything; what is flying is not waited for.
    pub(crate) fn drop_all(&mut self) -> Vec<(u64, u64)> {
        let dropped = self.ranges().collect();
        self.filling.clear();
        self.queued.clear();
        self.flying.clear();
        self.sealed.clear();
        dropped
    }
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Content::Whole(bytes) => bytes.len(),
            Content::Growing(bytes) => bytes.len(),
        }
    }

    fn overwrite(&mut self, at: usize, piece: &[u8]) {
        let bytes = self.grow();
        assert!(at <= bytes.len(), "a run has no gaps");
        let inside = piece.len().min(bytes.len() - at);
        let (over, beyond) = piece.split_at(inside);
        bytes[at..at + inside].copy_from_slice(over);
        bytes.extend_from_slice(beyond);
    }

    fn grow(&mut self) -> &mut BytesMut {
        if let Content::Whole(bytes) = self {
            let mut grown = BytesMut::with_capacity((bytes.len() * 4).min(RUN_BYTES_MAX));
            grown.extend_from_slice(bytes);
            *self = Content::Growing(grown);
        }
        match self {
            Content::Growing(bytes) => bytes,
            Content::Whole(_) => unreachable!("just replaced"),
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Content::Whole(bytes) => bytes,
            Content::Growing(bytes) => bytes.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vdfs_proto::VolumeId;

    use super::*;
    use crate::shares::WriteBudget;

    const BUDGET_BYTES: usize = 64 << 20;

    fn dirty() -> (Dirty, WriteBudget) {
        let budget = WriteBudget::new(BUDGET_BYTES, BUDGET_BYTES);
        (Dirty::new(ChunkSize::MIN), budget)
    }

    fn take(dirty: &mut Dirty, budget: &WriteBudget, offset: u64, bytes: Vec<u8>) {
        let share = budget.try_take(Some(VolumeId(1)), bytes.len() as u32);
        dirty.take(offset, &bytes.into(), share.expect("room"));
    }

    fn flights(dirty: &mut Dirty) -> Vec<Run> {
        std::iter::from_fn(|| dirty.next_flight()).collect()
    }

    #[test]
    fn take_joins_neighbours_and_never_crosses_a_chunk() {
        let (mut dirty, budget) = dirty();
        for at in 0..20u64 {
            take(&mut dirty, &budget, at * 10_000, vec![at as u8; 10_000]);
        }
        dirty.seal_all();
        let ranges: Vec<_> = flights(&mut dirty)
            .iter()
            .map(|run| (run.offset, run.end()))
            .collect();
        assert_eq!(
            ranges,
            [
                (0, 65_536),
                (65_536, 131_072),
                (131_072, 196_608),
                (196_608, 200_000)
            ]
        );
    }

    #[test]
    fn run_that_overlaps_a_flight_waits_for_it() {
        let (mut dirty, budget) = dirty();
        take(&mut dirty, &budget, 0, vec![1; 100]);
        dirty.seal_all();
        let first = dirty.next_flight().expect("nothing in its way");
        take(&mut dirty, &budget, 50, vec![2; 100]);
        dirty.seal_all();
        assert!(dirty.next_flight().is_none());
        assert!(dirty.land(first.id, first.offset));
        assert_eq!(dirty.next_flight().map(|run| run.offset), Some(50));
    }

    #[test]
    fn run_sealed_after_a_hold_waits_for_its_end() {
        let (mut dirty, budget) = dirty();
        take(&mut dirty, &budget, 0, vec![1; 10]);
        let from = dirty.hold();
        take(&mut dirty, &budget, 100, vec![2; 10]);
        dirty.seal_all();
        let before = flights(&mut dirty);
        assert_eq!(before.len(), 1);
        assert!(!dirty.has_landed_before(from));
        dirty.land(before[0].id, before[0].offset);
        assert!(dirty.has_landed_before(from));
        dirty.unhold();
        assert_eq!(flights(&mut dirty).len(), 1);
    }

    #[test]
    fn budget_comes_back_with_the_runs() {
        let (mut dirty, budget) = dirty();
        let all = budget.free_bytes();
        take(&mut dirty, &budget, 0, vec![1; 1000]);
        take(&mut dirty, &budget, 500, vec![2; 1000]);
        assert_eq!(budget.free_bytes(), all - 1500);
        dirty.drop_all();
        assert_eq!(budget.free_bytes(), all);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write {
            offset: u64,
            len: usize,
        },
        /// Within one chunk.
        Zero {
            offset: u64,
            len: u64,
        },
        Seal,
        Launch,
        Land(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..300_000, 1usize..70_000)
                .prop_map(|(offset, len)| Step::Write { offset, len }),
            1 => (0u64..5, 0u64..60_000, 1u64..5_000).prop_map(|(chunk, within, len)| {
                let offset = chunk * 65_536 + within;
                Step::Zero { offset, len }
            }),
            1 => Just(Step::Seal),
            2 => Just(Step::Launch),
            2 => (0usize..8).prop_map(Step::Land),
        ]
    }

    proptest! {
        #[test]
        fn dirty_bytes_land_as_they_were_written(steps in proptest::collection::vec(step(), 1..60)) {
            let (mut dirty, budget) = dirty();
            let mut model = vec![0u8; 400_000];
            let mut volume = vec![0u8; 400_000];
            let mut flying: Vec<Run> = Vec::new();
            let land = |dirty: &mut Dirty, volume: &mut [u8], run: Run| {
                let range = run.offset as usize..run.end() as usize;
                match &run.body {
                    RunBody::Write { bytes, .. } => volume[range].copy_from_slice(bytes),
                    RunBody::Order(_) => volume[range].fill(0),
                }
                assert!(dirty.land(run.id, run.offset));
            };
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write { offset, len } => {
                        let bytes = vec![number as u8 + 1; len];
                        model[offset as usize..offset as usize + len].copy_from_slice(&bytes);
                        take(&mut dirty, &budget, offset, bytes);
                    }
                    Step::Zero { offset, len } => {
                        model[offset as usize..(offset + len) as usize].fill(0);
                        let (order, _) = Order::new(Work::Space(SpaceKind::Zero));
                        dirty.order(offset, len, order);
                    }
                    Step::Seal => { dirty.seal_all(); }
                    Step::Launch => flying.extend(dirty.next_flight()),
                    Step::Land(at) if at < flying.len() => {
                        let run = flying.remove(at);
                        land(&mut dirty, &mut volume, run);
                    }
                    Step::Land(_) => {}
                }
                for (at, run) in flying.iter().enumerate() {
                    let apart = |other: &Run| other.end() <= run.offset || run.end() <= other.offset;
                    prop_assert!(flying[..at].iter().all(apart));
                }
            }
            dirty.seal_all();
            while !dirty.is_empty() {
                flying.extend(flights(&mut dirty));
                let run = flying.pop().expect("what is dirty can fly");
                land(&mut dirty, &mut volume, run);
            }
            prop_assert!(model == volume);
            drop(flying);
            prop_assert_eq!(budget.free_bytes(), BUDGET_BYTES);
        }
    }
}
