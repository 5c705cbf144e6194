//! Trimming: drop a file's bytes past a length. Records of chunks that are cut to nothing stay until
//! the data id is reaped.

use std::fs::File;

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChunkId, DataId, Epoch, OpId, Status};

use super::chunks::{Body, Condition};
use super::files::allocated;
use super::record::Content;
use super::steps::Step;
use super::sums::Blocks;
use super::write::check_epoch;
use super::{PAGE_BYTES, Store, memory};
use crate::chain::{Admission, Change, Rule};

/// Cut chunk `index` of a file to `len` bytes, and all chunks behind it to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimOp {
    pub op: OpId,
    pub data: DataId,
    pub index: u32,
    pub len: u32,
}

/// What one chunk is cut to, and under what.
#[derive(Clone, Copy, Debug)]
struct Cut {
    len: u32,
    op: OpId,
    epoch: Epoch,
}

impl Store {
    /// Trims the chunks that are here. `epoch_of` gives the epoch of the chain of a chunk. Chunks that
    /// are reaped, lost or already that short are left as they are.
    ///
    /// It may be repeated as long as its truncation is pending, so nothing is remembered of it.
    pub fn trim(
        &self,
        trim: &TrimOp,
        epoch_of: impl Fn(u32) -> Result<Epoch, Status>,
    ) -> Result<(), Status> {
        let first = ChunkId {
            data: trim.data,
            index: trim.index,
        };
        for chunk in self.chunks.of_file_from(first) {
            let epoch = epoch_of(chunk.index)?;
            check_epoch(epoch)?;
            let len = if chunk == first { trim.len } else { 0 };
            self.trim_chunk(
                chunk,
                Cut {
                    len,
                    op: trim.op,
                    epoch,
                },
            )?;
        }
        Ok(())
    }

    fn trim_chunk(&self, chunk: ChunkId, cut: Cut) -> Result<(), Status> {
        let trimmed = self.change(chunk, |body| match body.condition {
            Condition::Whole => self.trim_body(body, cut),
            Condition::New | Condition::Bad | Condition::Detached => Ok(()),
        });
        match trimmed {
            Err(Status::Gone) => Ok(()),
            other => other,
        }
    }

    fn trim_body(&self, body: &mut Body, cut: Cut) -> Result<(), Status> {
        if cut.len >= body.state.len() {
            return Ok(());
        }
        let Admission::Go(version) = body.state.admission(Rule::Next(cut.epoch)) else {
            return Err(Status::NotServing);
        };
        let file = self.files.get(body.id);
        let boundary = self.boundary_sum(&file, body, cut.len);
        let change = Change::Trim { len: cut.len };
        body.state.close(cut.op, version, change);
        self.record(body, Content::Live(body.state));
        self.passed(Step::ChangeRecorded, body.id);
        memory::cut(&file, cut.len);
        self.passed(Step::BytesChanged, body.id);
        self.cut_sums(body, cut.len, boundary);
        self.recharge_pages(body, &file);
        self.finish_change(body);
        Ok(())
    }

    /// The sum that the block at the cut will have; none if the cut is between blocks, or if the
    /// block is absent. A block that does not match its sum keeps it, so that it stays bad.
    fn boundary_sum(&self, file: &File, body: &Body, len: u32) -> Option<u32> {
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
