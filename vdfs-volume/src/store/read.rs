//! Reading: bytes with the sums they were stored with, never zeros for what was lost.

use std::fs::File;

use bytes::Bytes;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{Read, ReadDone};
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{DataId, Status, Version};

use super::chunks::{Body, Condition};
use super::sums::{Blocks, zero_block_sum};
use super::{Store, memory};

impl Store {
    /// Reads whole blocks; the payload ends where the chunk does.
    ///
    /// A block that was never written comes as zeros with the sum of zeros; the last block, where
    /// the chunk ends within it, with the sum of its valid bytes. `Invalid` for a range that is not
    /// of whole blocks; `DataLost` if fewer bytes are there than expected; `Gone` for a reaped id;
    /// `Corrupt` if the last block does not match its sum (others are for the reader to verify).
    pub fn read(&self, read: &Read, lost_below: DataId) -> Result<(ReadDone, Bytes), Status> {
        self.check_read(read)?;
        while let Some(chunk) = self.chunks.find(read.chunk) {
            let Some(body) = chunk.attached() else {
                continue;
            };
            return match body.condition {
                Condition::New | Condition::Coming => self.read_absent(read, lost_below),
                // It is of an earlier time, when this volume was a member: the chain has lost it.
                Condition::Whole if read.chunk.data < lost_below => Err(Status::DataLost),
                Condition::Whole => self.read_body(&body, read),
                Condition::Bad | Condition::Detached => Err(Status::DataLost),
            };
        }
        self.read_absent(read, lost_below)
    }

    fn check_read(&self, read: &Read) -> Result<(), Status> {
        let is_aligned =
            read.offset.is_multiple_of(BLOCK_BYTES) && read.len.is_multiple_of(BLOCK_BYTES);
        let end = u64::from(read.offset) + u64::from(read.len);
        let in_bounds = read.len as usize <= PAYLOAD_BYTES_MAX && read.len > 0;
        if !is_aligned || !in_bounds || end > u64::from(self.chunk_bytes()?) {
            return Err(Status::Invalid);
        }
        Ok(())
    }

    fn read_absent(&self, read: &Read, lost_below: DataId) -> Result<(ReadDone, Bytes), Status> {
        if self.reaped.contains(read.chunk.data) {
            return Err(Status::Gone);
        }
        if read.chunk.data < lost_below || read.len_expected > 0 {
            return Err(Status::DataLost);
        }
        Ok((done(Version::default(), Vec::new()), Bytes::new()))
    }

    fn read_body(&self, body: &Body, read: &Read) -> Result<(ReadDone, Bytes), Status> {
        assert!(body.state.pending().is_none(), "a closed chunk is locked");
        if body.state.len() < read.len_expected {
            return Err(Status::DataLost);
        }
        let version = body.state.version();
        let len = read.len.min(body.state.len().saturating_sub(read.offset));
        if len == 0 {
            return Ok((done(version, Vec::new()), Bytes::new()));
        }
        let file = self.files.get(body.id);
        let bytes = memory::read_payload(&file, read.offset, len);
        let mut sums = self.block_sums(body, Blocks::touched(read.offset, len));
        if !len.is_multiple_of(BLOCK_BYTES) {
            let end = read.offset + len;
            let last = sums.last_mut().expect("at least one block");
            *last = self.partial_sum(&file, body, end)?;
        }
        Ok((done(version, sums), bytes))
    }

    pub(super) fn block_sums(&self, body: &Body, blocks: Blocks) -> Vec<u32> {
        let stored = self.sums.load(&body.sums, blocks);
        let or_zero = |sum: Option<u32>| sum.unwrap_or_else(zero_block_sum);
        stored.into_iter().map(or_zero).collect()
    }

    /// The sum of the last block's valid bytes, once the whole block was verified.
    fn partial_sum(&self, file: &File, body: &Body, end: u32) -> Result<u32, Status> {
        let block = self.verified_block(file, body, end / BLOCK_BYTES)?;
        Ok(crc32c(&block[..(end % BLOCK_BYTES) as usize]))
    }
}

fn done(version: Version, sums: Vec<u32>) -> ReadDone {
    ReadDone { version, sums }
}
