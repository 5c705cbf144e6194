//! What a client may have done to a chunk, with all that it takes.

use bytes::Bytes;
use vdfs_proto::data::{ChangeSpace, CopyBytes, Write};
use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, OpId, Status, Version};

use super::Store;
use crate::chain::{Failure, Rule, Terms};

/// A client's change of one chunk.
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
}

impl Job {
    pub fn op(&self) -> OpId {
        match self {
            Job::Write { write, .. } => write.op,
            Job::Space(ask) => ask.op,
            Job::Copy { copy, .. } => copy.op,
        }
    }

    pub fn chunk(&self) -> ChunkId {
        match self {
            Job::Write { write, .. } => write.chunk,
            Job::Space(ask) => ask.chunk,
            Job::Copy { copy, .. } => copy.chunk,
        }
    }

    /// The chain that its client sent it to, and the epoch that it knows.
    pub fn chain(&self) -> (ChainId, Epoch) {
        match self {
            Job::Write { write, .. } => (write.chain, write.epoch),
            Job::Space(ask) => (ask.chain, ask.epoch),
            Job::Copy { copy, .. } => (copy.chain, copy.epoch),
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
        }
    }

    /// Makes a change that was checked, or finds that it was made before.
    ///
    /// Refuses with `Corrupt` if a block that is changed in part does not match its sum; `NoSpace`,
    /// `DataLost`, `Gone`; and what the terms refuse.
    pub fn execute(&self, job: &Job, rule: Rule, terms: Terms) -> Result<Version, Failure> {
        match job {
            Job::Write { write, payload } => self.execute_write(write, payload, rule, terms),
            Job::Space(ask) => self.execute_space(ask, rule, terms),
            Job::Copy {
                copy,
                source_lost_below,
            } => self.execute_copy(copy, *source_lost_below, rule, terms),
        }
    }
}
