//! A look at everything that the store holds, a piece at a time: does it match its sums?
//!
//! Invariant: a chunk is held from changing only while one piece of it is read.

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::{ChainId, ChunkId};

use super::Store;
use super::chunks::{Body, Condition};
use super::record::{Content, ENTRY_BYTES, Record};
use super::sums::Blocks;

/// Bytes of one piece: less than a read may ask for.
const PIECE_BYTES: u32 = 1 << 20;

/// Where a scrub is. Chunks that are made behind it are not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScrubCursor {
    /// The chunk that is being looked at, or the last one that was.
    chunk: Option<ChunkId>,
    /// Where in the chunk to go on, if it is not done.
    offset: Option<u32>,
}

impl ScrubCursor {
    /// Where a chunk begins.
    pub(crate) fn at(chunk: ChunkId) -> Self {
        ScrubCursor {
            chunk: Some(chunk),
            offset: Some(0),
        }
    }
}

/// What a piece was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScrubbedPiece {
    pub(crate) chunk: ChunkId,
    /// Whose it is, as far as that is known.
    pub(crate) chain: ChainId,
    /// Bytes that were compared with their sums.
    pub(crate) bytes: u64,
    /// Blocks that do not match their sums; one more for each of the chunk's records that was damaged.
    pub(crate) bad_blocks: u32,
    /// The chunk has no record, or no file.
    pub(crate) is_bad_copy: bool,
    pub(crate) is_last_of_chunk: bool,
}

impl Store {
    /// Checks the next piece; `None` behind the last chunk.
    pub(crate) fn scrub_next(&self, cursor: &mut ScrubCursor) -> Option<ScrubbedPiece> {
        if let Some(piece) = self.scrub_rest(cursor) {
            return Some(piece);
        }
        loop {
            let id = self.chunks.next_behind(cursor.chunk)?;
            cursor.chunk = Some(id);
            let mended = self.mend_records(id);
            if let Some(mut piece) = self.scrub_piece(id, 0, cursor) {
                piece.bad_blocks += mended;
                return Some(piece);
            }
        }
    }

    /// Writes the record of a chunk anew if it does not say what the chunk is, and those of its leaves of sums.
    /// Gives how many did not.
    fn mend_records(&self, id: ChunkId) -> u32 {
        let Some(chunk) = self.chunks.find(id) else {
            return 0;
        };
        let mut body = chunk.body.write();
        let Some(entry) = body.entry.filter(|_| body.condition == Condition::Whole) else {
            return 0;
        };
        let leaves = self.sums.mend_headers(entry, &body.sums);
        if leaves > 0 {
            tracing::error!(chunk = %id, leaves, "leaves of sums were damaged, and are written anew");
        }
        let mut wire = [0; ENTRY_BYTES];
        self.index.read(entry, &mut wire);
        let wanted = Record {
            sequence: body.sequence,
            chunk: id,
            chain: body.chain,
            content: Content::Live(body.state),
        };
        let is_sound = Record::newest(&wire).is_some_and(|(_, found)| found == wanted);
        if !is_sound {
            tracing::error!(chunk = %id, "a record was damaged, and is written anew");
            self.record(&mut body, wanted.content);
        }
        leaves + u32::from(!is_sound)
    }

    /// Checks the next piece of the chunk that is being looked at; `None` behind its end.
    pub(crate) fn scrub_rest(&self, cursor: &mut ScrubCursor) -> Option<ScrubbedPiece> {
        self.scrub_piece(cursor.chunk?, cursor.offset?, cursor)
    }

    /// `None` if there is nothing at `offset`, or no such chunk any more.
    fn scrub_piece(
        &self,
        id: ChunkId,
        offset: u32,
        cursor: &mut ScrubCursor,
    ) -> Option<ScrubbedPiece> {
        cursor.offset = None;
        let chunk = self.chunks.find(id)?;
        let body = chunk.attached()?;
        let is_bad_copy = body.condition == Condition::Bad;
        let len = body.state.len().saturating_sub(offset).min(PIECE_BYTES);
        if !is_bad_copy && (body.condition != Condition::Whole || len == 0) {
            return None;
        }
        let (checked, bad_blocks) = match is_bad_copy {
            true => (0, 0),
            false => self.scrub_blocks(&body, Blocks::touched(offset, len)),
        };
        let end = offset + len;
        let is_last_of_chunk = is_bad_copy || end == body.state.len();
        cursor.offset = (!is_last_of_chunk).then_some(end);
        Some(ScrubbedPiece {
            chunk: id,
            chain: body.chain,
            bytes: u64::from(checked) * u64::from(BLOCK_BYTES),
            bad_blocks,
            is_bad_copy,
            is_last_of_chunk,
        })
    }

    /// Blocks that were checked, and those of them that do not match.
    fn scrub_blocks(&self, body: &Body, blocks: Blocks) -> (u32, u32) {
        let file = self.files.get(body.id);
        let present = (blocks.first..blocks.end()).filter(|block| body.sums.is_present(*block));
        present.fold((0, 0), |(checked, bad), block| {
            let is_bad = self.verified_block(&file, body, block).is_err();
            (checked + 1, bad + u32::from(is_bad))
        })
    }
}
