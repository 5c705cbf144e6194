//! Blocks that do not match their sums, made good from another member's copy of the same version: it is the
//! same chunk before and after, so nobody else is asked.

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::limits::BLOCKS_PER_FETCH_MAX;
use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChunkId, Status};

use super::chunks::{Body, Condition};
use super::merge::{Difference, Run, runs};
use super::sums::Blocks;
use super::supply::copy_of;
use super::{Store, memory};

/// Some blocks of a chunk that was looked at.
#[derive(Clone, Debug)]
pub struct Looked {
    pub copy: ChunkCopy,
    /// Of each block; none of one that does not match its own, or is absent.
    pub sums: Vec<Option<u32>>,
    pub damaged: u32,
}

impl Store {
    /// Looks at no more than `BLOCKS_PER_FETCH_MAX` blocks, from `first` on. `None` behind the end, or if
    /// the chunk is not here.
    pub fn look_at(&self, id: ChunkId, first: u32) -> Option<Looked> {
        let chunk = self.chunks.find(id)?;
        let body = chunk.attached()?;
        let end = body.state.len().div_ceil(BLOCK_BYTES);
        if body.condition != Condition::Whole || first >= end {
            return None;
        }
        let count = (end - first).min(BLOCKS_PER_FETCH_MAX);
        let mut sums = self.sums.load(&body.sums, Blocks { first, count });
        let file = self.files.get(id);
        let mut damaged = 0;
        for (block, sum) in (first..).zip(&mut sums) {
            let bytes = || memory::read(&file, block * BLOCK_BYTES, BLOCK_BYTES);
            if sum.is_some_and(|sum| sum != crc32c(&bytes())) {
                damaged += 1;
                *sum = None;
            }
        }
        Some(Looked {
            copy: copy_of(&body),
            sums,
            damaged,
        })
    }

    /// Makes damaged blocks good with what another member has where this one has nothing sound; `NotInSync`
    /// if the chunk has changed since it was looked at. What does not match its own sum is left out.
    pub fn heal(&self, looked: &Looked, theirs: &Difference) -> Result<(), Status> {
        self.with_chunk_here(looked.copy.chunk, |body| {
            if body.condition != Condition::Whole || copy_of(body) != looked.copy {
                return Err(Status::NotInSync);
            }
            for Run { blocks, content } in runs(&looked.sums, theirs)? {
                let Some((sums, bytes)) = content else {
                    continue;
                };
                let whole = bytes.chunks(BLOCK_BYTES as usize);
                for ((at, bytes), sum) in whole.enumerate().zip(sums) {
                    if crc32c(bytes) == sum {
                        self.heal_block(body, blocks.first + at as u32, (bytes, sum));
                    }
                }
            }
            Ok(())
        })
    }

    fn heal_block(&self, body: &mut Body, block: u32, (bytes, sum): (&[u8], u32)) {
        let file = self.files.get(body.id);
        if !body.sums.is_present(block) || self.matching_block(&file, body, block).is_some() {
            return;
        }
        memory::write(&file, block * BLOCK_BYTES, bytes);
        // What was written past the end is zeros.
        if (block + 1) * BLOCK_BYTES > body.state.len() {
            memory::cut(&file, body.state.len());
        }
        let entry = body.entry.expect("it has a record");
        self.sums
            .store(entry, &mut body.sums, Blocks::one(block), &[sum]);
    }
}
