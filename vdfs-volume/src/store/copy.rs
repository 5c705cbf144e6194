//! Copying within the volume: the source is read and let go, then an ordinary write follows, so that
//! nobody holds two chunks.

use bytes::Bytes;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{CopyBytes, Read, Write};
use vdfs_proto::limits::COPY_BYTES_MAX;
use vdfs_proto::sums::piece_sums;
use vdfs_proto::{DataId, Status};

use super::write::check_op;
use super::{Job, Store};

impl Store {
    /// The write that a copy which was checked amounts to. Refuses with what reading the source says: a
    /// block of it that does not match its sum is `Corrupt`.
    pub(super) fn copied(
        &self,
        copy: &CopyBytes,
        source_lost_below: DataId,
    ) -> Result<Job, Status> {
        let payload = self.read_source(copy, source_lost_below)?;
        let write = Write {
            chain: copy.chain,
            epoch: copy.epoch,
            chunk: copy.chunk,
            op: copy.op,
            offset: copy.offset,
            len_expected: copy.len_expected,
            sums: piece_sums(copy.offset, &payload),
        };
        Ok(Job::Write { write, payload })
    }

    pub(super) fn check_copy(&self, copy: &CopyBytes) -> Result<(), Status> {
        check_op(copy.op, copy.epoch)?;
        let chunk_bytes = u64::from(self.chunk_bytes()?);
        let is_within = |offset| u64::from(offset) + u64::from(copy.len) <= chunk_bytes;
        let in_bounds = (1..=COPY_BYTES_MAX).contains(&copy.len);
        if !in_bounds || !is_within(copy.offset) || !is_within(copy.source.offset) {
            return Err(Status::Invalid);
        }
        Ok(())
    }

    /// The bytes of the source; what its chunk lacks, and is not expected to have, is zeros.
    fn read_source(&self, copy: &CopyBytes, lost_below: DataId) -> Result<Bytes, Status> {
        let source = copy.source;
        let end = source.offset + copy.len;
        let start = source.offset - source.offset % BLOCK_BYTES;
        let read = Read {
            chain: source.chain,
            epoch: source.epoch,
            chunk: source.chunk,
            offset: start,
            len: end.next_multiple_of(BLOCK_BYTES) - start,
            len_expected: source.len_expected,
        };
        let (done, bytes) = self.read(&read, lost_below)?;
        if piece_sums(start, &bytes) != done.sums {
            tracing::error!(chunk = %source.chunk, off = start, "a block does not match its sum");
            return Err(Status::Corrupt);
        }
        let skip = (source.offset - start) as usize;
        let wanted = skip..skip + copy.len as usize;
        if bytes.len() >= wanted.end {
            return Ok(bytes.slice(wanted));
        }
        let mut filled = bytes.get(skip..).unwrap_or_default().to_vec();
        filled.resize(copy.len as usize, 0);
        Ok(filled.into())
    }
}
