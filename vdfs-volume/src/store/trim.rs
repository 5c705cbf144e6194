//! Cutting a chunk: a part of a truncation. Records of chunks that are cut to nothing stay until the
//! data id is reaped.

use std::fs::File;

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::peer::CutChunk;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChunkId, Version};

use super::chunks::{Body, Condition};
use super::files::allocated;
use super::plan::{Plan, PlannedRoom, PlannedSums};
use super::record::Content;
use super::steps::Step;
use super::sums::Blocks;
use super::{PAGE_BYTES, Store, memory};
use crate::chain::Change;

impl Store {
    /// The chunks of a file from `first` on.
    pub fn chunks_from(&self, first: ChunkId) -> Vec<ChunkId> {
        self.chunks.of_file_from(first)
    }

    /// Chunks that are lost or already that short are left as they are.
    pub(super) fn plan_cut(&self, body: &Body, cut: &CutChunk, is_head: bool) -> Option<Plan> {
        let is_cut = body.condition == Condition::Whole && cut.len < body.state.len();
        if is_head && !is_cut {
            return None;
        }
        let boundary = match is_cut {
            true => self.boundary_sum(&self.files.get(body.id), body, cut.len),
            false => None,
        };
        Some(Plan {
            change: Change::Trim { len: cut.len },
            room: PlannedRoom::default(),
            sums: PlannedSums::Cut(boundary),
        })
    }

    /// The chunk is closed for the cut. Nothing here is refused or fails.
    pub(super) fn apply_cut(
        &self,
        file: &File,
        body: &mut Body,
        len: u32,
        boundary: Option<u32>,
    ) -> Version {
        let len = len.min(body.state.len());
        self.record(body, Content::Live(body.state));
        self.passed(Step::ChangeRecorded, body.id);
        memory::cut(file, len);
        self.passed(Step::BytesChanged, body.id);
        self.cut_sums(body, len, boundary);
        self.recharge_pages(body, file);
        self.finish_change(body)
    }

    /// The sum that the block at the cut will have; none if the cut is between blocks, or if the
    /// block is absent. A block that does not match its sum keeps it, so that it stays bad.
    pub(super) fn boundary_sum(&self, file: &File, body: &Body, len: u32) -> Option<u32> {
        let within = (len % BLOCK_BYTES) as usize;
        if within == 0 || !body.sums.is_present(len / BLOCK_BYTES) {
            return None;
        }
        let mut block = self.verified_block(file, body, len / BLOCK_BYTES).ok()?;
        block[within..].fill(0);
        Some(crc32c(&block))
    }

    /// Makes the blocks past `len` absent, and sets the sum of the block at the cut.
    pub(super) fn cut_sums(&self, body: &mut Body, len: u32, boundary: Option<u32>) {
        let entry = body.entry.expect("recorded");
        if let Some(sum) = boundary {
            let block = Blocks {
                first: len / BLOCK_BYTES,
                count: 1,
            };
            self.sums.store(entry, &mut body.sums, block, &[sum]);
        }
        let past = Blocks::from(len.div_ceil(BLOCK_BYTES));
        self.sums.remove(entry, &mut body.sums, past);
    }

    /// Counts what the chunk takes now.
    pub(super) fn recharge_pages(&self, body: &mut Body, file: &File) {
        let present = u64::from(body.sums.present_count()) * PAGE_BYTES;
        self.recharge(body, present.max(allocated(file)));
    }
}
