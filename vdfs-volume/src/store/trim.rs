//! Trimming: drop a chunk's bytes past a length. The record stays until the data id is reaped.

use std::fs::File;

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChunkId, Epoch, OpId, Status, Version};

use super::chunks::{Body, Condition};
use super::files::allocated;
use super::record::Content;
use super::replies::Begin;
use super::steps::Step;
use super::sums::Blocks;
use super::write::check_epoch;
use super::{PAGE_BYTES, Store, memory};
use crate::chunk_state::Change;

/// Cut `chunk` to `len` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimOp {
    pub op: OpId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub len: u32,
}

impl Store {
    /// Executes a trim, or gives its first answer if it is a retry. A chunk that is absent, reaped,
    /// lost or already that short is left as it is.
    pub fn trim(&self, trim: &TrimOp) -> Result<(), Status> {
        check_epoch(trim.epoch)?;
        let ticket = match self.replies.begin(trim.op)? {
            Begin::Answered(outcome) => return outcome.map(drop),
            Begin::Run(ticket) => ticket,
        };
        let outcome = self.execute_trim(trim);
        ticket.finish(outcome);
        self.passed(Step::Replied, trim.chunk);
        outcome.map(drop)
    }

    fn execute_trim(&self, trim: &TrimOp) -> Result<Version, Status> {
        if self.chunks.find(trim.chunk).is_none() {
            return Ok(Version::default());
        }
        let trimmed = self.change(trim.chunk, |body| match body.condition {
            Condition::Whole => self.trim_body(body, trim),
            Condition::New | Condition::Bad | Condition::Detached => Ok(Version::default()),
        });
        match trimmed {
            Err(Status::Gone) => Ok(Version::default()),
            other => other,
        }
    }

    fn trim_body(&self, body: &mut Body, trim: &TrimOp) -> Result<Version, Status> {
        if trim.len >= body.state.len() {
            return Ok(body.state.version());
        }
        if !body.state.admits(trim.epoch) {
            return Err(Status::NotServing);
        }
        let file = self.files.get(body.id);
        let boundary = self.boundary_sum(&file, body, trim.len);
        let change = Change::Trim { len: trim.len };
        body.state.close(trim.op, trim.epoch, change);
        self.record(body, Content::Live(body.state));
        self.passed(Step::ChangeRecorded, body.id);
        memory::cut(&file, trim.len);
        self.passed(Step::BytesChanged, body.id);
        self.cut_sums(body, trim.len, boundary);
        self.recharge_pages(body, &file);
        Ok(self.finish_change(body))
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
        self.sums
            .cut(entry, &mut body.sums, len.div_ceil(BLOCK_BYTES));
    }

    /// Counts what the chunk takes now.
    pub(super) fn recharge_pages(&self, body: &mut Body, file: &File) {
        let present = u64::from(body.sums.present_count()) * PAGE_BYTES;
        self.recharge(body, present.max(allocated(file)));
    }
}
