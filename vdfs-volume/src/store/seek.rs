//! Where a file has data and where holes, and how many blocks it takes: what the sums know, without a
//! look at bytes.
//!
//! Invariant: what was lost is never called a hole.

use std::sync::Arc;

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{FilePart, Seek, SeekTarget};
use vdfs_proto::{ChunkId, ChunkSize, DataId, Status};

use super::Store;
use super::chunks::{Chunk, Condition};
use super::sums::Blocks;

impl Store {
    /// The first offset in the range that is what is looked for, in the chunks that are here; `None`
    /// if there is none. All of a file whose data was lost counts as data.
    pub fn seek(&self, seek: &Seek, lost_below: DataId) -> Result<Option<u64>, Status> {
        let chunk_size = *self.chunk_size.get().ok_or(Status::NotServing)?;
        if seek.from >= seek.to || seek.to > chunk_size.file_bytes_max() {
            return Err(Status::Invalid);
        }
        let is_lost = seek.part.layout.data < lost_below;
        Ok(match seek.target {
            SeekTarget::Data if is_lost => Some(seek.from),
            SeekTarget::Hole if is_lost => None,
            SeekTarget::Data => self.first_data(seek, chunk_size),
            SeekTarget::Hole => self.first_hole(seek, chunk_size),
        })
    }

    /// Blocks of that part of the file that have pages here; `DataLost` if some were lost.
    pub fn count_blocks(&self, part: &FilePart, lost_below: DataId) -> Result<u64, Status> {
        let data = part.layout.data;
        if data < lost_below {
            return Err(Status::DataLost);
        }
        let mut blocks = 0;
        let mut next = self.chunks.next_of_file(ChunkId { data, index: 0 });
        while let Some(chunk) = next {
            let body = chunk.body.read();
            let is_asked = part.chains.contains(part.layout.position(chunk.id.index));
            match body.condition {
                _ if !is_asked => {}
                Condition::Bad => return Err(Status::DataLost),
                Condition::Coming => {}
                _ => blocks += u64::from(body.sums.present_count()),
            }
            next = self.chunk_after(chunk.id);
        }
        Ok(blocks)
    }

    fn chunk_after(&self, chunk: ChunkId) -> Option<Arc<Chunk>> {
        let index = chunk.index.checked_add(1)?;
        self.chunks.next_of_file(ChunkId { index, ..chunk })
    }

    fn first_data(&self, seek: &Seek, chunk_size: ChunkSize) -> Option<u64> {
        let (layout, chains) = (seek.part.layout, seek.part.chains);
        let data = layout.data;
        let index = chunk_size.index_of(seek.from);
        let mut next = self.chunks.next_of_file(ChunkId { data, index });
        while let Some(chunk) = next {
            let range = Part::of(seek, chunk_size, chunk.id.index)?;
            next = self.chunk_after(chunk.id);
            if !chains.contains(layout.position(chunk.id.index)) {
                continue;
            }
            let body = chunk.body.read();
            let found = match body.condition {
                Condition::Bad => Some(range.blocks.first),
                Condition::Coming => None,
                Condition::New | Condition::Whole | Condition::Detached => {
                    body.sums.first_present(range.blocks)
                }
            };
            if let Some(block) = found {
                return Some(range.offset(block));
            }
        }
        None
    }

    fn first_hole(&self, seek: &Seek, chunk_size: ChunkSize) -> Option<u64> {
        let (layout, chains) = (seek.part.layout, seek.part.chains);
        let indexes = chunk_size.index_of(seek.from)..=chunk_size.index_of(seek.to - 1);
        let mut own = indexes.filter(|index| chains.contains(layout.position(*index)));
        own.find_map(|index| {
            let part = Part::of(seek, chunk_size, index)?;
            let data = layout.data;
            let hole = self.first_absent(ChunkId { data, index }, part.blocks)?;
            Some(part.offset(hole))
        })
    }

    fn first_absent(&self, id: ChunkId, blocks: Blocks) -> Option<u32> {
        let Some(chunk) = self.chunks.find(id) else {
            return Some(blocks.first);
        };
        let body = chunk.body.read();
        match body.condition {
            Condition::Bad => None,
            Condition::Coming => Some(blocks.first),
            Condition::New | Condition::Whole | Condition::Detached => {
                body.sums.first_absent(blocks)
            }
        }
    }
}

/// What of a search's range lies in one chunk.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Where the chunk begins in the file.
    chunk_start: u64,
    from: u64,
    blocks: Blocks,
}

impl Part {
    /// `None` if the chunk lies beyond the range.
    fn of(seek: &Seek, chunk_size: ChunkSize, index: u32) -> Option<Self> {
        let chunk_bytes = u64::from(chunk_size.bytes());
        let chunk_start = u64::from(index) * chunk_bytes;
        let from = seek.from.max(chunk_start);
        let to = seek.to.min(chunk_start + chunk_bytes);
        let len = to.checked_sub(from).filter(|len| *len > 0)?;
        Some(Part {
            chunk_start,
            from,
            blocks: Blocks::touched((from - chunk_start) as u32, len as u32),
        })
    }

    /// Where a block begins, but not before the range.
    fn offset(self, block: u32) -> u64 {
        let start = self.chunk_start + u64::from(block) * u64::from(BLOCK_BYTES);
        start.max(self.from)
    }
}
