//! Copies of chunks between members of a chain: what one lacks, another has.
//!
//! A copy travels in pieces, each the bytes of adjacent blocks; blocks between them are absent. Until
//! the last piece has come, the receiver's record says that the chunk has no bytes and that nobody
//! knows what made it, so that a copy which is cut off never passes for one.

use std::collections::HashSet;

use bytes::Bytes;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::limits::DATA_SLOTS_PER_SESSION;
use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::{ChainId, ChunkId, Status, Version};

use super::chunks::{Body, Condition};
use super::record::{COUNTER_MAX, Content, EPOCH_MAX};
use super::sums::Blocks;
use super::{Store, memory};
use crate::chain::ChunkState;

/// Bytes of one piece at most.
const PIECE_BYTES: u32 = 1 << 20;

/// A part of a chunk's content.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) offset: u32,
    pub(crate) sums: Vec<u32>,
    pub(crate) bytes: Bytes,
    pub(crate) is_last: bool,
}

impl Store {
    /// From now on the chunk is not what it is said to be, until it is given again.
    pub(crate) fn distrust(&self, id: ChunkId) {
        if let Some(chunk) = self.chunks.find(id) {
            chunk.body.write().is_distrusted = true;
        }
    }

    /// It is what it is said to be again.
    pub(crate) fn trust(&self, id: ChunkId) {
        if let Some(chunk) = self.chunks.find(id) {
            chunk.body.write().is_distrusted = false;
        }
    }

    /// Whose the chunk is; none if that is not known, or there is no such chunk.
    pub(crate) fn chain_of(&self, id: ChunkId) -> Option<ChainId> {
        let chunk = self.chunks.find(id)?;
        chunk.attached()?.known_chain()
    }

    /// As [`Store::copies_behind`], for whoever gives this volume what it lacks: of a chunk that is
    /// damaged nobody knows what it is.
    pub(crate) fn trusted_behind(&self, after: Option<ChunkId>, count: usize) -> Vec<ChunkCopy> {
        let ids = self.chunks.ids_behind(after);
        let trusted = ids.filter_map(|id| self.whole(id, trusted_copy_of));
        trusted.take(count).collect()
    }

    pub(crate) fn is_distrusted(&self, id: ChunkId) -> bool {
        let chunk = self.chunks.find(id);
        chunk.is_some_and(|chunk| chunk.body.read().is_distrusted)
    }

    /// The chunks behind `after`, at most `count`, in an order of the store's own; without those that
    /// have come to nothing yet.
    pub(crate) fn copies_behind(&self, after: Option<ChunkId>, count: usize) -> Vec<ChunkCopy> {
        let ids = self.chunks.ids_behind(after);
        ids.filter_map(|id| self.copy_of(id)).take(count).collect()
    }

    /// What is here of a chunk; none if it is not there, or only to come.
    pub fn copy_of(&self, id: ChunkId) -> Option<ChunkCopy> {
        self.whole(id, copy_of)
    }

    pub(super) fn whole(
        &self,
        id: ChunkId,
        copy_of: impl Fn(&Body) -> ChunkCopy,
    ) -> Option<ChunkCopy> {
        let chunk = self.chunks.find(id)?;
        let body = chunk.attached()?;
        (body.condition == Condition::Whole).then(|| copy_of(&body))
    }

    /// Bytes of the chunk are here, or were and are lost: others may have the only copy.
    pub(crate) fn may_have(&self, id: ChunkId) -> bool {
        let chunk = self.chunks.find(id);
        let condition = chunk.and_then(|chunk| Some(chunk.attached()?.condition));
        matches!(condition, Some(Condition::Whole | Condition::Bad))
    }

    /// All that is here of these chains, whole or not, with the chain of each.
    pub(crate) fn chunks_of(&self, is_of: impl Fn(ChainId) -> bool) -> Vec<(ChunkId, ChainId)> {
        let all = self.chunks.ids_behind(None);
        let all = all.filter_map(|id| Some((id, self.chain_of(id)?)));
        all.filter(|(_, chain)| is_of(*chain)).collect()
    }

    /// Chains of which a chunk here has lost its record or its file. `None` among them: whose it was is
    /// not known.
    pub(crate) fn chains_with_bad_copies(&self) -> HashSet<Option<ChainId>> {
        let chain_of = |id| {
            let chunk = self.chunks.find(id)?;
            let body = chunk.attached()?;
            let is_bad = body.condition == Condition::Bad;
            is_bad.then(|| body.known_chain())
        };
        self.chunks.ids_behind(None).filter_map(chain_of).collect()
    }

    /// The piece of a copy that begins at `offset` or behind it; `NotInSync` if the chunk is not at
    /// that version any more.
    pub(crate) fn piece(&self, copy: &ChunkCopy, offset: u32) -> Result<Piece, Status> {
        let chunk = self.chunks.find(copy.chunk).ok_or(Status::NotInSync)?;
        let body = chunk.attached().ok_or(Status::NotInSync)?;
        if body.condition != Condition::Whole || body.state.version() != copy.version {
            return Err(Status::NotInSync);
        }
        let end = body.state.len().div_ceil(BLOCK_BYTES);
        let first = offset / BLOCK_BYTES;
        let rest = Blocks {
            first,
            count: end.saturating_sub(first),
        };
        let Some(begin) = body.sums.first_present(rest) else {
            return Ok(Piece {
                offset: 0,
                sums: Vec::new(),
                bytes: Bytes::new(),
                is_last: true,
            });
        };
        let within = Blocks {
            first: begin,
            count: (end - begin).min(PIECE_BYTES / BLOCK_BYTES),
        };
        let stop = body.sums.first_absent(within).unwrap_or(within.end());
        let blocks = Blocks {
            first: begin,
            count: stop - begin,
        };
        let file = self.files.get(body.id);
        let bytes = memory::read_payload(&file, begin * BLOCK_BYTES, blocks.count * BLOCK_BYTES);
        let behind = Blocks {
            first: stop,
            count: end - stop,
        };
        Ok(Piece {
            offset: begin * BLOCK_BYTES,
            sums: self.block_sums(&body, blocks),
            bytes,
            is_last: body.sums.first_present(behind).is_none(),
        })
    }

    /// Makes room for a copy: whatever is here of the chunk goes.
    pub(crate) fn begin_copy(&self, copy: &ChunkCopy) -> Result<(), Status> {
        self.drop_copy(copy.chunk);
        self.with_chunk(copy.chunk, copy.chain, |body| {
            let nothing = Blocks { first: 0, count: 0 };
            let (room, _file) = self.make_room(body, nothing)?;
            room.hold();
            body.condition = Condition::Whole;
            body.state = ChunkState::clean(Version::default(), 0, None);
            self.record(body, Content::Live(body.state));
            Ok(())
        })
    }

    /// Takes one piece in; the last one makes the chunk what it is elsewhere.
    pub(crate) fn take_piece(&self, copy: &ChunkCopy, piece: &Piece) -> Result<(), Status> {
        self.check_piece(copy, piece)?;
        self.with_chunk(copy.chunk, copy.chain, |body| {
            if body.condition != Condition::Whole {
                return Err(Status::NotInSync);
            }
            if !piece.bytes.is_empty() {
                let blocks = Blocks::touched(piece.offset, piece.bytes.len() as u32);
                self.put_blocks(body, blocks, &piece.sums, &piece.bytes)?;
            }
            if piece.is_last {
                memory::cut(&self.files.get(body.id), copy.len);
                body.state = ChunkState::clean(copy.version, copy.len, copy.op);
                self.record(body, Content::Live(body.state));
            }
            Ok(())
        })
    }

    fn check_piece(&self, copy: &ChunkCopy, piece: &Piece) -> Result<(), Status> {
        let bytes = piece.bytes.len() as u64;
        let end = u64::from(piece.offset) + bytes;
        let blocks = u64::from(BLOCK_BYTES);
        let is_aligned =
            u64::from(piece.offset).is_multiple_of(blocks) && bytes.is_multiple_of(blocks);
        let has_sums = piece.sums.len() as u64 * blocks == bytes;
        let chunk_bytes = self.chunk_bytes()?;
        let is_within = end <= u64::from(chunk_bytes) && copy.len <= chunk_bytes;
        match is_aligned && has_sums && is_within && is_sound(copy) {
            true => Ok(()),
            false => Err(Status::Malformed),
        }
    }

    /// Of a copy that was begun, and is not complete.
    pub(super) fn put_blocks(
        &self,
        body: &mut Body,
        blocks: Blocks,
        sums: &[u32],
        bytes: &[u8],
    ) -> Result<(), Status> {
        let offset = blocks.first * BLOCK_BYTES;
        let (room, file) = self.make_room(body, blocks)?;
        self.files.secure(&file, offset, bytes.len() as u32)?;
        body.charged += room.hold().page_bytes;
        memory::write(&file, offset, bytes);
        let entry = body.entry.expect("it was begun");
        self.sums.store(entry, &mut body.sums, blocks, sums);
        Ok(())
    }

    /// Removes what is here of these chains and nobody knows how it came to be.
    pub(crate) fn drop_unknown(&self, is_of: impl Fn(ChainId) -> bool) {
        for id in self.chunks.ids_behind(None) {
            let copy = self.copy_of(id);
            if copy.is_some_and(|copy| is_of(copy.chain) && copy.op.is_none()) {
                self.drop_copy(id);
            }
        }
    }

    /// Removes what is here of a chunk that its chain does not have.
    pub(crate) fn drop_copy(&self, id: ChunkId) {
        if let Some(chunk) = self.chunks.find(id) {
            self.chunks.remove(id);
            self.remove(&chunk);
        }
    }
}

/// Whether a record has room for it.
pub(crate) fn is_sound(copy: &ChunkCopy) -> bool {
    let has_slot = copy.op.is_none_or(|op| op.slot < DATA_SLOTS_PER_SESSION);
    let Version { epoch, counter } = copy.version;
    has_slot && epoch.0 <= EPOCH_MAX && counter <= COUNTER_MAX
}

pub(super) fn copy_of(body: &Body) -> ChunkCopy {
    ChunkCopy {
        chain: body.chain,
        chunk: body.id,
        version: body.state.version(),
        len: body.state.len(),
        op: body.state.op(),
    }
}

pub(super) fn trusted_copy_of(body: &Body) -> ChunkCopy {
    let copy = copy_of(body);
    ChunkCopy {
        op: copy.op.filter(|_| !body.is_distrusted),
        ..copy
    }
}
