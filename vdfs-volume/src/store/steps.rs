//! Where a change can be interrupted. A test's [`Steps`] stops the store there, as a kill would.

use std::fmt::Debug;

use vdfs_proto::ChunkId;

/// What has just been done to RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The chunk file exists; nothing says so yet.
    FileCreated,
    /// The record says which change is in progress.
    ChangeRecorded,
    /// The bytes are in place, or cut off.
    BytesChanged,
    /// The sums are in place.
    SumsChanged,
    /// The record is clean again and names the op.
    CleanRecorded,
    /// The reply is recorded; the caller has not heard it.
    Replied,
    /// The record says that the chunk is being removed.
    ReapRecorded,
    /// The pages are freed.
    Punched,
    /// The name is gone.
    Unlinked,
    /// The sums are gone; the record is not.
    SumsCleared,
}

/// Hears of each step.
pub trait Steps: Debug + Send + Sync + 'static {
    fn passed(&self, step: Step, chunk: ChunkId);
}

/// Goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Steps for NoFaults {
    fn passed(&self, _step: Step, _chunk: ChunkId) {}
}
