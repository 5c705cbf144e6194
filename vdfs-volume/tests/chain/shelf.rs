//! The store of a simulated volume: chunks of a few cells instead of bytes. What a change does to a
//! chunk's state and records is the real [`ChunkState`]; a kill leaves what the real store would
//! leave in RAM, and opening it again does what `store::recovery` does.

use std::collections::BTreeMap;

use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::{ChainId, ChunkId, OpId, SessionId, Status, Version};
use vdfs_volume::chain::{
    Admission, Change, ChunkState, Failure, Order, Outcome, Prepared, Reply, Rule, Terms,
};

pub(crate) const CELLS: usize = 4;
pub(crate) type Cells = [u64; CELLS];

use crate::message::{Piece, Told, chain_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patch {
    /// One value into adjacent cells.
    Write { from: u32, cells: u32, value: u64 },
    /// Nothing from this cell on.
    Cut { len: u32 },
}

impl Patch {
    fn change(self) -> Change {
        match self {
            Patch::Write { from, cells, value } => Change::Write {
                offset: from,
                len: cells,
                sum: value as u32,
            },
            Patch::Cut { len } => Change::Trim { len },
        }
    }

    fn range(self) -> (usize, usize) {
        match self {
            Patch::Write { from, cells, .. } => (from as usize, (from + cells) as usize),
            Patch::Cut { len } => (len as usize, CELLS),
        }
    }

    fn value(self) -> u64 {
        match self {
            Patch::Write { value, .. } => value,
            Patch::Cut { .. } => 0,
        }
    }

    pub(crate) fn apply(self, cells: &mut Cells) {
        let (from, end) = self.range();
        cells[from..end].fill(self.value());
    }

    fn apply_half(self, cells: &mut Cells) {
        let (from, end) = self.range();
        cells[from..from + (end - from) / 2].fill(self.value());
    }

    /// Whether a restart finishes it. Cutting again does no harm.
    fn is_whole_in(self, cells: &Cells) -> bool {
        let mut with = *cells;
        self.apply(&mut with);
        with == *cells || matches!(self, Patch::Cut { .. })
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Copy {
    pub(crate) state: ChunkState,
    pub(crate) cells: Cells,
    /// What the last change was made for: for the history alone.
    pub(crate) base: Version,
    /// Of the change in the state's record, if there is one.
    patch: Option<Patch>,
}

impl Copy {
    /// Behind its length a chunk has no bytes.
    fn cut(&mut self) {
        self.cells[self.state.len() as usize..].fill(0);
    }

    /// Takes one piece of another copy in; whether this one is that one now.
    fn take(&mut self, told: &Told, piece: &Piece, killed: Option<KilledAt>) -> bool {
        let taken = match killed {
            Some(KilledAt::Before) => 0,
            Some(KilledAt::HalfDone) => piece.cells.len() / 2,
            Some(KilledAt::BytesDone | KilledAt::Done) | None => piece.cells.len(),
        };
        self.cells[piece.at..piece.at + taken].copy_from_slice(&piece.cells[..taken]);
        let is_whole = piece.is_last && matches!(killed, None | Some(KilledAt::Done));
        if is_whole {
            let ChunkCopy {
                version, len, op, ..
            } = told.copy;
            self.state = ChunkState::clean(version, len, op);
            self.base = told.base;
        }
        is_whole
    }

    fn told(&self, chunk: ChunkId) -> Told {
        let copy = ChunkCopy {
            chain: chain_of(chunk),
            chunk,
            version: self.state.version(),
            len: self.state.len(),
            op: self.state.op(),
        };
        Told {
            copy,
            base: self.base,
        }
    }
}

/// What a change has made of a chunk: for the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) chunk: ChunkId,
    pub(crate) base: Version,
    pub(crate) version: Version,
    /// None if a restart has given up the change.
    pub(crate) op: Option<OpId>,
    pub(crate) patch: Patch,
    pub(crate) cells: Cells,
}

/// How far a change came before the process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KilledAt {
    Before,
    HalfDone,
    BytesDone,
    Done,
}

/// A change that waits for the successor.
#[derive(Clone, Copy, Debug)]
struct ToApply {
    op: OpId,
    version: Version,
    patch: Patch,
    /// The copy that it was for is not here any more.
    is_void: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) chunks: BTreeMap<ChunkId, Copy>,
    /// With the chain of each.
    pub(crate) replies: BTreeMap<(SessionId, u16), Reply>,
    /// At most one a chunk.
    prepared: BTreeMap<ChunkId, ToApply>,
    /// Chunks that are taken from another member, and of which there is nothing here.
    coming: BTreeMap<ChunkId, Copy>,
    pub(crate) is_full: bool,
}

impl Shelf {
    pub(crate) fn version(&self, chunk: ChunkId) -> Version {
        self.chunks
            .get(&chunk)
            .map_or(Version::default(), |copy| copy.state.version())
    }

    pub(crate) fn read(&self, chunk: ChunkId) -> (Version, Cells) {
        let copy = self.chunks.get(&chunk).cloned().unwrap_or_default();
        assert!(
            copy.state.pending().is_none(),
            "changes are atomic to readers"
        );
        (copy.state.version(), copy.cells)
    }

    fn admit(&self, chunk: ChunkId, rule: Rule, terms: Terms) -> Result<Admission, Failure> {
        let state = self
            .chunks
            .get(&chunk)
            .map_or(ChunkState::default(), |copy| copy.state);
        let admission = state.admission(rule);
        match (admission, terms.admission) {
            (Admission::Already(_), _) => Ok(admission),
            (_, Err(status)) => Err(Failure::Refused(status)),
            (Admission::Go(_), Ok(())) if chunk.data < terms.lost_below => {
                Err(Failure::Refused(Status::DataLost))
            }
            (Admission::Go(_), Ok(())) if self.is_full => Err(Failure::Refused(Status::NoSpace)),
            (Admission::Go(_), Ok(())) => Ok(admission),
            (Admission::Late, Ok(())) => Err(Failure::Refused(Status::NotServing)),
            (Admission::Diverged, Ok(())) => Err(Failure::Diverged),
        }
    }

    /// Makes a change. `killed`: the process ends on the way, and nobody hears of it.
    pub(crate) fn execute(
        &mut self,
        order: &Order<Patch>,
        rule: Rule,
        terms: Terms,
        killed: Option<KilledAt>,
    ) -> Result<(Version, Option<Made>), Failure> {
        match self.admit(order.chunk, rule, terms)? {
            Admission::Go(version) => {
                let made = self.make(order.op, order.chunk, order.body, version, killed);
                Ok((version, made))
            }
            Admission::Already(version) => Ok((version, None)),
            Admission::Late | Admission::Diverged => unreachable!("not admitted"),
        }
    }

    pub(crate) fn prepare(
        &mut self,
        order: &Order<Patch>,
        rule: Rule,
        terms: Terms,
    ) -> Result<Prepared, Failure> {
        let base = self.version(order.chunk);
        match self.admit(order.chunk, rule, terms)? {
            Admission::Go(version) => {
                let to_apply = ToApply {
                    op: order.op,
                    version,
                    patch: order.body,
                    is_void: false,
                };
                let before = self.prepared.insert(order.chunk, to_apply);
                assert!(before.is_none(), "one change of a chunk at a time");
                Ok(Prepared::Ready { base, version })
            }
            Admission::Already(version) => Ok(Prepared::Already(version)),
            Admission::Late | Admission::Diverged => unreachable!("not admitted"),
        }
    }

    pub(crate) fn apply(
        &mut self,
        op: OpId,
        chunk: ChunkId,
        killed: Option<KilledAt>,
    ) -> Option<Made> {
        let prepared = self.take_prepared(op, chunk);
        let ToApply { version, patch, .. } = prepared;
        match prepared.is_void {
            true => None,
            false => self.make(op, chunk, patch, version, killed),
        }
    }

    pub(crate) fn discard(&mut self, op: OpId, chunk: ChunkId) {
        self.take_prepared(op, chunk);
    }

    fn take_prepared(&mut self, op: OpId, chunk: ChunkId) -> ToApply {
        let prepared = self.prepared.remove(&chunk).expect("it was prepared");
        assert_eq!(prepared.op, op, "one change of a chunk at a time");
        prepared
    }

    fn make(
        &mut self,
        op: OpId,
        chunk: ChunkId,
        patch: Patch,
        version: Version,
        killed: Option<KilledAt>,
    ) -> Option<Made> {
        if killed == Some(KilledAt::Before) {
            return None;
        }
        let copy = self.chunks.entry(chunk).or_default();
        let base = copy.state.close(Some(op), version, patch.change()).base;
        copy.patch = Some(patch);
        copy.base = base;
        if killed == Some(KilledAt::HalfDone) {
            patch.apply_half(&mut copy.cells);
            return None;
        }
        patch.apply(&mut copy.cells);
        if killed == Some(KilledAt::BytesDone) {
            return None;
        }
        copy.state.apply();
        Some(Made {
            chunk,
            base,
            version,
            op: Some(op),
            patch,
            cells: copy.cells,
        })
    }

    /// Threads bring replies in any order.
    pub(crate) fn record(&mut self, op: OpId, chain: ChainId, outcome: Outcome) {
        let reply = Reply {
            op,
            chain: Some(chain),
            outcome: Some(outcome),
        };
        let known = self.replies.entry((op.session, op.slot)).or_insert(reply);
        if known.op.seq <= op.seq {
            *known = reply;
        }
    }

    pub(crate) fn forget_reply(&mut self, op: OpId) {
        let reply = self.replies.get_mut(&(op.session, op.slot));
        if let Some(reply) = reply.filter(|reply| reply.op == op) {
            reply.outcome = None;
        }
    }

    pub(crate) fn keep_sessions(&mut self, is_kept: impl Fn(SessionId) -> bool) {
        self.replies.retain(|(session, _), _| is_kept(*session));
    }

    pub(crate) fn chunks_of(&self, chain: ChainId) -> Vec<ChunkId> {
        let chunks = self.chunks.keys().copied();
        chunks.filter(|chunk| chain_of(*chunk) == chain).collect()
    }

    /// All chunks, those that are still to be given among them.
    pub(crate) fn list(&self) -> Vec<ChunkCopy> {
        let chunks = self.chunks.iter();
        chunks.map(|(chunk, copy)| copy.told(*chunk).copy).collect()
    }

    pub(crate) fn told(&self, chunk: ChunkId) -> Option<Told> {
        Some(self.chunks.get(&chunk)?.told(chunk))
    }

    /// The piece of a copy that begins at a cell; `NotInSync` if the chunk is not at that version any
    /// more.
    pub(crate) fn piece(&self, of: &Told, at: usize, cells: usize) -> Result<Piece, Status> {
        let copy = self.chunks.get(&of.copy.chunk).ok_or(Status::NotInSync)?;
        if copy.state.version() != of.copy.version {
            return Err(Status::NotInSync);
        }
        let end = CELLS.min(at + cells);
        Ok(Piece {
            at,
            cells: copy.cells[at..end].to_vec(),
            is_first: at == 0,
            is_last: end == CELLS,
        })
    }

    /// Makes room for a copy: whatever is here of the chunk goes.
    pub(crate) fn begin_copy(&mut self, told: &Told) -> Result<(), Status> {
        self.drop_copy(told.copy.chunk);
        if self.is_full {
            return Err(Status::NoSpace);
        }
        self.chunks.insert(told.copy.chunk, Copy::default());
        Ok(())
    }

    /// Takes one piece in; the last one makes the chunk what it is elsewhere.
    pub(crate) fn take_piece(
        &mut self,
        told: &Told,
        piece: &Piece,
        killed: Option<KilledAt>,
    ) -> Result<(), Status> {
        // It lacked room when it was begun again.
        let copy = self.chunks.get_mut(&told.copy.chunk);
        let copy = copy.ok_or(Status::NotInSync)?;
        copy.take(told, piece, killed);
        Ok(())
    }

    /// Takes one piece of a better copy in. An own copy that it takes the place of stays all the while: it is
    /// of two minds until the last piece is there.
    pub(crate) fn merge_piece(
        &mut self,
        told: &Told,
        piece: &Piece,
        killed: Option<KilledAt>,
    ) -> Option<Made> {
        let ChunkCopy {
            chunk,
            version,
            len,
            ..
        } = told.copy;
        let is_here = self.chunks.contains_key(&chunk);
        let place = match is_here {
            true => &mut self.chunks,
            false => &mut self.coming,
        };
        let copy = place.entry(chunk).or_default();
        let own = copy.state.version();
        if piece.is_first {
            let mixed = own.max(version).next(own.max(version).epoch);
            let kept = copy.state.len().max(len);
            copy.state = ChunkState::clean(mixed, kept, None);
            copy.base = own;
        }
        if copy.take(told, piece, killed) {
            if !is_here {
                let whole = self.coming.remove(&chunk).expect("just made");
                self.chunks.insert(chunk, whole);
            }
            return None;
        }
        is_here.then(|| Made {
            chunk,
            base: copy.base,
            version: copy.state.version(),
            op: None,
            patch: Patch::Write {
                from: 0,
                cells: 0,
                value: 0,
            },
            cells: copy.cells,
        })
    }

    /// Drops the chunks of a chain whose last op nobody knows.
    pub(crate) fn drop_unknown(&mut self, chain: ChainId) {
        self.chunks
            .retain(|chunk, copy| chain_of(*chunk) != chain || copy.state.op().is_some());
    }

    pub(crate) fn drop_copy(&mut self, chunk: ChunkId) {
        self.chunks.remove(&chunk);
        if let Some(prepared) = self.prepared.get_mut(&chunk) {
            prepared.is_void = true;
        }
    }

    /// What a new process finds in RAM, and does about it: the changes it finished or gave up.
    pub(crate) fn recover(&mut self) -> Vec<Made> {
        self.prepared.clear();
        self.coming.clear();
        let mut settled = Vec::new();
        for (chunk, copy) in &mut self.chunks {
            let pending = copy.state.pending().copied();
            if let Some(pending) = pending {
                let patch = copy.patch.expect("it is in the record");
                let is_whole = patch.is_whole_in(&copy.cells);
                match is_whole {
                    true => copy.state.apply(),
                    false => copy.state.abandon(),
                };
                copy.cut();
                settled.push(Made {
                    chunk: *chunk,
                    base: pending.base,
                    version: copy.state.version(),
                    op: pending.op.filter(|_| is_whole),
                    patch,
                    cells: copy.cells,
                });
            }
            copy.cut();
            let (version, op) = (copy.state.version(), copy.state.op());
            if let Some(op) = op {
                let known = self.replies.get(&(op.session, op.slot));
                if known.is_none_or(|known| known.op.seq <= op.seq) {
                    let reply = Reply {
                        op,
                        chain: Some(chain_of(*chunk)),
                        outcome: Some(Ok(version)),
                    };
                    self.replies.insert((op.session, op.slot), reply);
                }
            }
        }
        settled
    }
}
