//! What may be done to a chunk, with all that it takes.

use bytes::Bytes;
use vdfs_proto::data::{ChangeSpace, CopyBytes, Write};
use vdfs_proto::peer::CutChunk;
use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, OpId, Status};

use super::Store;
use super::write::check_epoch;

/// A change of one chunk.
#[derive(Clone, Debug)]
pub enum Job {
    Write {
        write: Write,
        payload: Bytes,
    },
    Space(ChangeSpace),
    Copy {
        copy: CopyBytes,
        source_lost_below: DataId,
    },
    /// Of the volume itself.
    Cut(CutChunk),
}

impl Job {
    pub fn op(&self) -> OpId {
        match self {
            Job::Write { write, .. } => write.op,
            Job::Space(ask) => ask.op,
            Job::Copy { copy, .. } => copy.op,
            Job::Cut(cut) => cut.op,
        }
    }

    pub fn chunk(&self) -> ChunkId {
        match self {
            Job::Write { write, .. } => write.chunk,
            Job::Space(ask) => ask.chunk,
            Job::Copy { copy, .. } => copy.chunk,
            Job::Cut(cut) => cut.chunk,
        }
    }

    /// The chain that it is for, and the epoch that whoever asks for it knows.
    pub fn chain(&self) -> (ChainId, Epoch) {
        match self {
            Job::Write { write, .. } => (write.chain, write.epoch),
            Job::Space(ask) => (ask.chain, ask.epoch),
            Job::Copy { copy, .. } => (copy.chain, copy.epoch),
            Job::Cut(cut) => (cut.chain, cut.epoch),
        }
    }
}

impl Store {
    /// Refuses what no client sends: `Invalid`, or `Corrupt` if a payload does not match its sums.
    pub fn check(&self, job: &Job) -> Result<(), Status> {
        match job {
            Job::Write { write, payload } => self.check_write(write, payload),
            Job::Space(ask) => self.check_space(ask),
            Job::Copy { copy, .. } => self.check_copy(copy),
            Job::Cut(cut) => check_epoch(cut.epoch),
        }
    }
}
