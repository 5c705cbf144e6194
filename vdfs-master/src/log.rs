//! The operation log: every change of the namespace, as opaque records numbered 1, 2, 3.. since the
//! filesystem was made.
//!
//! A batch is one turn's records, written with one `write(2)` before the turn's replies leave, so
//! that the death of the process loses nothing; a thread of its own makes it durable by group
//! commit. Files of the directory:
//!
//! | name | holds |
//! |---|---|
//! | `wal-<first record, 20 digits>` | a segment: batches, one behind the other |
//! | `id` | the number that every batch of this log carries |
//! | `synced` | up to which record the log is known to be on the disk |
//! | `boot_id` | under which boot of the machine the log is written (kept by the shell) |
//!
//! Invariant: a log is opened with every record that was ever known to be synced, or refused with
//! the file and the offset of the damage. What was not synced may be cut off at the first bad batch
//! ([`Cut`]); a record behind a gap is never taken.
//!
//! A torn end and a damaged middle look alike, so each batch says up to where the log was synced
//! when the batch was written, and `synced` says it when no batch follows: damage below that mark
//! cannot come from a crash. The mark is outside the segments because one inside would be cut off
//! together with the records that it vouches for.
//!
//! Left out: what records mean, and replication.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use crate::disk::{self, Disk};

mod batch;
#[cfg(test)]
mod crash_sweep;
mod flush;
mod local;
mod mark;
mod scan;

pub use flush::SyncObserver;
pub use local::{LocalLog, LogOptions, begin_behind, look, purge};
pub use scan::Cut;

/// Where records go, and how one learns that they are safe.
pub trait OpLog: Debug + Send {
    /// Makes sure that `bytes` of records can be appended. After an error they may still fit.
    fn reserve(&mut self, bytes: u64) -> Result<(), LogError>;
    /// Appends one batch. On an error nothing of it is in the log.
    fn append(&mut self, records: &[Vec<u8>]) -> Result<(), LogError>;
    /// Starts making everything appended durable at once instead of within the commit interval.
    fn sync(&self);
    /// How many records the log has, from the first ever.
    fn records(&self) -> u64;
    /// How many records are known to be on the disk.
    fn durable(&self) -> u64;
    /// Bytes that a restart without a newer checkpoint would read.
    fn bytes(&self) -> u64;
    /// The bytes up to here are covered by a checkpoint.
    fn forget_bytes(&mut self, bytes: u64);
    /// Makes everything durable before it returns.
    fn flush(&mut self) -> Result<(), LogError>;
    /// Makes everything durable and ends the log.
    fn close(&mut self) -> Result<(), LogError>;
}

/// Why a batch is not in the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{}: no room on the disk", file.display())]
    NoRoom { file: PathBuf },
    #[error("{}: cannot write: {why}", file.display())]
    Write { file: PathBuf, why: io::Error },
    /// What the file holds now is unknown: nothing may be appended any more.
    #[error("{}: cannot be cut back to its last whole batch: {why}", file.display())]
    Broken { file: PathBuf, why: io::Error },
    /// What the disk holds now is unknown: nothing may be acknowledged any more.
    #[error("the log cannot be synced: {0}")]
    Sync(io::Error),
}

impl LogError {
    /// Of a file beside the log or of a part of it.
    pub(crate) fn writing(disk: &dyn Disk, name: &str, why: io::Error) -> Self {
        let file = disk.path(name);
        if disk::is_no_room(&why) {
            LogError::NoRoom { file }
        } else {
            LogError::Write { file, why }
        }
    }
}

/// Why segments that nobody needs are still there.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    #[error("{}: cannot remove: {why}", file.display())]
    Remove { file: PathBuf, why: io::Error },
    /// Which segments there are on the disk is unknown: nothing may be acknowledged any more.
    #[error("the directory of the log cannot be synced: {0}")]
    SyncNames(io::Error),
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    #[error("{}: cannot read: {why}", file.display())]
    Read { file: PathBuf, why: io::Error },
    #[error(transparent)]
    Write(#[from] LogError),
    #[error(
        "{}: damaged at byte offset {offset}: {fault}, but record {record} was on the disk \
         (synced up to {synced}); put the file back from a copy, or start empty",
        file.display()
    )]
    Damaged {
        file: PathBuf,
        offset: u64,
        /// The record that should be there.
        record: u64,
        /// Up to which record the log is known to have been synced.
        synced: u64,
        fault: Fault,
    },
    #[error(
        "{}: missing: no segment of the log holds record {record}; \
         put the file back from a copy, or start empty",
        file.display()
    )]
    Missing { file: PathBuf, record: u64 },
    #[error("{}: damaged or missing; put the file back from a copy, or start empty", file.display())]
    BadId { file: PathBuf },
    #[error("record {record} of the log: {why}")]
    Replay { record: u64, why: ReplayError },
}

/// What whoever reads the records says of one that it cannot take.
pub type ReplayError = Box<dyn std::error::Error + Send + Sync>;

/// What is wrong where the next batch should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the log is truncated")]
    Ends,
    #[error("the log is truncated within the header of a batch")]
    HeaderCut,
    #[error("the header of a batch has a wrong checksum")]
    HeaderSum,
    #[error("the batch begins with record {0}")]
    OtherRecord(u64),
    #[error("the log is truncated within a batch")]
    BodyCut,
    #[error("a batch has a wrong checksum")]
    BodySum,
    #[error("a segment is missing")]
    Gap,
}
