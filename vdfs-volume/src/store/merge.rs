//! Better copies: what a head takes from a member that waits with it, block by block.
//!
//! An own copy that is whole stays all the while: blocks that differ are changed in place, each run of them
//! as a change of its own that a restart can finish. Both copies have all that was acknowledged, so has any
//! mixture of them; until the last block is there its record says that nobody knows what made it. What was
//! never here is not there before it is complete, and what was lost is lost until then.

use std::ops::Range;

use bytes::Bytes;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::SpaceKind;
use vdfs_proto::limits::BLOCKS_PER_FETCH_MAX;
use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::sums::{crc32c, payload_sum, piece_sums};
use vdfs_proto::{ChainId, ChunkId, Status};

use super::chunks::{Body, Condition};
use super::record::Content;
use super::sums::Blocks;
use super::supply::{is_sound, trusted_copy_of};
use super::{Store, memory};
use crate::chain::{Change, ChunkState, Space};

/// What a copy has in some adjacent blocks, as far as another one has not.
#[derive(Clone, Debug)]
pub struct Difference {
    pub first: u32,
    /// Of each block; none of an absent one.
    pub sums: Vec<Option<u32>>,
    /// Of the blocks that are there, and differ from the other's.
    pub bytes: Bytes,
}

impl Difference {
    fn blocks(&self) -> Blocks {
        Blocks {
            first: self.first,
            count: self.sums.len() as u32,
        }
    }
}

/// Adjacent blocks that are to become as they are in the better copy.
pub(super) struct Run<'a> {
    pub(super) blocks: Blocks,
    /// Their sums and bytes; none if they are absent there.
    pub(super) content: Option<(Vec<u32>, &'a [u8])>,
}

impl Store {
    /// The sums of at most `BLOCKS_PER_FETCH_MAX` of the blocks in which a copy of `len` bytes may differ
    /// from what is here, from `first` on; of a bad copy nothing is known.
    pub fn sums_beside(&self, id: ChunkId, len: u32, first: u32) -> Vec<Option<u32>> {
        let chunk = self.chunks.find(id);
        let body = chunk.as_ref().and_then(|chunk| chunk.attached());
        let body = body.filter(|body| body.condition == Condition::Whole);
        let len_here = body.as_ref().map_or(0, |body| body.state.len());
        let end = len.max(len_here).div_ceil(BLOCK_BYTES);
        let count = end.saturating_sub(first).min(BLOCKS_PER_FETCH_MAX);
        match body {
            Some(body) => self.sums.load(&body.sums, Blocks { first, count }),
            None => vec![None; count as usize],
        }
    }

    /// What this copy has in blocks of which somebody else has these sums; `NotInSync` if it is not that
    /// copy any more.
    pub fn difference(
        &self,
        copy: &ChunkCopy,
        first: u32,
        sums: &[Option<u32>],
    ) -> Result<Difference, Status> {
        let chunk = self.chunks.find(copy.chunk).ok_or(Status::NotInSync)?;
        let body = chunk.attached().ok_or(Status::NotInSync)?;
        let is_whole = body.condition == Condition::Whole;
        if !is_whole || trusted_copy_of(&body) != *copy {
            return Err(Status::NotInSync);
        }
        let count = sums.len() as u32;
        let end = u64::from(first) + u64::from(count);
        let chunk_blocks = u64::from(self.chunk_bytes()? / BLOCK_BYTES);
        if count > BLOCKS_PER_FETCH_MAX || end > chunk_blocks {
            return Err(Status::Invalid);
        }
        let blocks = Blocks { first, count };
        let here = self.sums.load(&body.sums, blocks);
        let file = self.files.get(body.id);
        let mut bytes = Vec::new();
        for (at, (own, theirs)) in here.iter().zip(sums).enumerate() {
            if own.is_some() && own != theirs {
                let offset = (first + at as u32) * BLOCK_BYTES;
                bytes.extend(memory::read(&file, offset, BLOCK_BYTES));
            }
        }
        Ok(Difference {
            first,
            sums: here,
            bytes: bytes.into(),
        })
    }

    /// From now on, and until [`Store::end_merge`], the chunk here is of two minds, or still to come.
    pub fn begin_merge(&self, copy: &ChunkCopy) -> Result<(), Status> {
        let chunk_bytes = self.chunk_bytes()?;
        if copy.len > chunk_bytes || !is_sound(copy) {
            return Err(Status::Malformed);
        }
        self.with_chunk(copy.chunk, copy.chain, |body| {
            match body.condition {
                Condition::New => {
                    let nothing = Blocks { first: 0, count: 0 };
                    let (room, _file) = self.make_room(body, nothing)?;
                    room.hold();
                    body.condition = Condition::Coming;
                    self.record(body, Content::Coming { was_lost: false });
                }
                Condition::Bad => self.begin_anew(body, copy)?,
                Condition::Whole => {
                    let version = body.state.version().max(copy.version);
                    let version = version.next(version.epoch);
                    body.state = ChunkState::clean(version, body.state.len(), None);
                    self.record(body, Content::Live(body.state));
                }
                Condition::Coming | Condition::Detached => unreachable!("it was just looked up"),
            }
            Ok(())
        })
    }

    /// What is left of a bad copy goes; it stays bad.
    fn begin_anew(&self, body: &mut Body, copy: &ChunkCopy) -> Result<(), Status> {
        if body.entry.is_none() {
            body.entry = Some(self.index.allocate(1, &self.budget)?[0]);
            body.chain = copy.chain;
        }
        self.record(body, Content::Coming { was_lost: true });
        self.clear_bad(body);
        self.files.create(body.id);
        Ok(())
    }

    /// Makes some blocks what they are in the better copy. `Corrupt` if these do not match their sums, and
    /// others are here.
    pub fn merge(&self, copy: &ChunkCopy, theirs: &Difference) -> Result<(), Status> {
        self.with_begun(copy.chunk, |body| {
            let own = self.sums.load(&body.sums, theirs.blocks());
            for run in runs(&own, theirs)? {
                let blocks = run.blocks;
                match (body.condition, run.content) {
                    (Condition::Whole, None) => self.make_absent(body, blocks),
                    (Condition::Whole, Some((sums, bytes))) => {
                        self.replace(body, copy.len, blocks, (&sums, bytes))?;
                    }
                    (_, Some((sums, bytes))) => self.put_blocks(body, blocks, &sums, bytes)?,
                    (_, None) => return Err(Status::Malformed),
                }
            }
            Ok(())
        })
    }

    /// The chunk is the better copy now.
    pub fn end_merge(&self, copy: &ChunkCopy) -> Result<(), Status> {
        self.with_begun(copy.chunk, |body| {
            body.condition = Condition::Whole;
            body.state = ChunkState::clean(copy.version, copy.len, copy.op);
            self.record(body, Content::Live(body.state));
            let file = self.files.get(body.id);
            memory::cut(&file, copy.len);
            self.cut_sums(body, copy.len, None);
            self.recharge_pages(body, &file);
            Ok(())
        })
    }

    /// Frees what has come of a copy that is not complete; what was lost stays so.
    pub fn give_up_merge(&self, id: ChunkId) {
        let Some(chunk) = self.chunks.find(id) else {
            return;
        };
        let mut body = chunk.body.write();
        match body.condition {
            Condition::Coming => {
                // Nobody makes the chunk anew before all of it has gone.
                self.remove_attached(&mut body);
                self.chunks.remove(id);
            }
            Condition::Bad => self.clear_bad(&mut body),
            Condition::New | Condition::Whole | Condition::Detached => {}
        }
    }

    /// The same of all that was never here of these chains.
    pub(crate) fn drop_coming(&self, is_of: impl Fn(ChainId) -> bool) {
        let is_coming = |id: &ChunkId| {
            let chunk = self.chunks.find(*id);
            let found = chunk.map(|chunk| {
                let body = chunk.body.read();
                (body.condition, body.chain)
            });
            found.is_some_and(|(condition, chain)| condition == Condition::Coming && is_of(chain))
        };
        for id in self.chunks.ids_behind(None).filter(is_coming) {
            self.give_up_merge(id);
        }
    }

    fn clear_bad(&self, body: &mut Body) {
        self.sums.clear(&mut body.sums);
        self.files.remove(body.id);
        self.recharge(body, 0);
    }

    /// Runs `work` on a chunk that is here, or begun; `NotInSync` if it has gone since.
    pub(super) fn with_chunk_here(
        &self,
        id: ChunkId,
        work: impl FnOnce(&mut Body) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let chunk = self.chunks.find(id).ok_or(Status::NotInSync)?;
        let mut body = chunk.body.write();
        match body.condition {
            Condition::Whole | Condition::Bad | Condition::Coming => work(&mut body),
            Condition::New | Condition::Detached => Err(Status::NotInSync),
        }
    }

    /// Runs `work` on a chunk that [`Store::begin_merge`] has begun; `NotInSync` if it was changed since.
    fn with_begun(
        &self,
        id: ChunkId,
        work: impl FnOnce(&mut Body) -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.with_chunk_here(id, |body| {
            let was_changed = body.condition == Condition::Whole && body.state.op().is_some();
            match was_changed {
                true => Err(Status::NotInSync),
                false => work(body),
            }
        })
    }

    /// A change whose op is no client's. `len` is the better copy's.
    fn replace(
        &self,
        body: &mut Body,
        len: u32,
        blocks: Blocks,
        (sums, bytes): (&[u32], &[u8]),
    ) -> Result<(), Status> {
        let whole = bytes.chunks(BLOCK_BYTES as usize).map(crc32c);
        if !whole.eq(sums.iter().copied()) {
            return Err(Status::Corrupt);
        }
        let offset = blocks.first * BLOCK_BYTES;
        let (room, file) = self.make_room(body, blocks)?;
        self.files.secure(&file, offset, bytes.len() as u32)?;
        body.charged += room.hold().page_bytes;
        // Past the end there are zeros.
        let end = (offset + bytes.len() as u32).min(len.max(body.state.len()));
        let valid = &bytes[..end.saturating_sub(offset) as usize];
        let change = Change::Write {
            offset,
            len: valid.len() as u32,
            sum: payload_sum(&piece_sums(offset, valid)),
        };
        let version = body.state.version();
        body.state.close(None, version.next(version.epoch), change);
        self.apply_write(&file, body, offset, bytes, sums);
        Ok(())
    }

    fn make_absent(&self, body: &mut Body, blocks: Blocks) {
        let space = Space {
            kind: SpaceKind::Punch,
            offset: blocks.first * BLOCK_BYTES,
            len: blocks.count * BLOCK_BYTES,
        };
        let version = body.state.version();
        body.state
            .close(None, version.next(version.epoch), Change::Space(space));
        let file = self.files.get(body.id);
        self.apply_space(&file, body, space, &[]);
    }
}

/// What is to be done to blocks with these sums.
pub(super) fn runs<'a>(
    own: &[Option<u32>],
    theirs: &'a Difference,
) -> Result<Vec<Run<'a>>, Status> {
    let differs = |at: usize| own[at] != theirs.sums[at];
    let is_like = |a: usize, b: usize| {
        let are_there = theirs.sums[a].is_some() == theirs.sums[b].is_some();
        differs(a) == differs(b) && are_there
    };
    let mut rest: &[u8] = &theirs.bytes;
    let mut runs = Vec::new();
    let mut begin = 0;
    while begin < own.len() {
        let alike = (begin..own.len()).take_while(|at| is_like(begin, *at));
        let run: Range<usize> = begin..begin + alike.count();
        begin = run.end;
        if !differs(run.start) {
            continue;
        }
        let blocks = Blocks {
            first: theirs.first + run.start as u32,
            count: run.len() as u32,
        };
        let sums: Vec<u32> = theirs.sums[run].iter().flatten().copied().collect();
        let len = sums.len() * BLOCK_BYTES as usize;
        let (bytes, behind) = rest.split_at_checked(len).ok_or(Status::Malformed)?;
        rest = behind;
        let content = (!sums.is_empty()).then_some((sums, bytes));
        runs.push(Run { blocks, content });
    }
    match rest.is_empty() {
        true => Ok(runs),
        false => Err(Status::Malformed),
    }
}
