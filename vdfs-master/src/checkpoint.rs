//! Checkpoints: the whole state in one file, so that a start replays only the log behind it.
//!
//! A file `checkpoint-<records, 20 digits>` is a header, blocks, a footer:
//!
//! | part | bytes | field |
//! |---|---|---|
//! | header | 8 | magic `VDFSCKP1` |
//! | | 4 | format version |
//! | | 16 | cluster |
//! | | 8 | records that the state contains |
//! | | 4 | CRC32C of the header so far |
//! | block | 4 | bytes of the section's name |
//! | | 4 | bytes of the block |
//! | | 4 | CRC32C of these two, the name and the block |
//! | | .. | name, block |
//! | footer | 4 | `0xffff_ffff` |
//! | | 8 | count of blocks |
//! | | 4 | CRC32C of all blocks' sums, in order |
//! | | 4 | CRC32C of the footer so far |
//!
//! Little-endian. Invariants: a checkpoint has its name only when it is whole on the disk, and the
//! log on the disk reaches it; the two newest are kept, and the log is purged only below the older,
//! so that one damaged file costs time and nothing else.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use vdfs_proto::ClusterId;
use vdfs_proto::sums::crc32c;

use crate::core::{Core, Image, RestoreError};
use crate::disk::Disk;
use crate::log::{self, PurgeError};

#[cfg(test)]
mod crash_sweep;
mod read;
mod write;

pub use read::CheckpointReader;
pub use write::{CheckpointWriter, FinishedCheckpoint};

const MAGIC: &[u8; 8] = b"VDFSCKP1";
const FORMAT_VERSION: u32 = 5;
const HEADER_BYTES: usize = 40;
const BLOCK_HEADER_BYTES: usize = 12;
const FOOTER_BYTES: usize = 20;
/// Where a name's length would be.
const FOOTER_MARK: u32 = u32::MAX;
const PREFIX: &str = "checkpoint-";
const TEMPORARY: &str = "checkpoint.tmp";
const NUMBER_DIGITS: usize = 20;
/// Checkpoints kept.
const GENERATIONS: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{}: cannot read: {why}", file.display())]
    Read { file: PathBuf, why: io::Error },
    #[error("{}: cannot write: {why}", file.display())]
    Write { file: PathBuf, why: io::Error },
    /// Which names the directory has on the disk is unknown, those of the log included.
    #[error("the directory of log and checkpoints cannot be synced: {0}")]
    SyncNames(io::Error),
    #[error("{}: damaged at byte offset {offset}", file.display())]
    Damaged { file: PathBuf, offset: u64 },
    #[error("{}: format version {version}, this program reads {FORMAT_VERSION}", file.display())]
    OtherVersion { file: PathBuf, version: u32 },
    /// Too much was changed meanwhile: what is changed is in memory twice.
    #[error("no memory for a checkpoint while so much is changed")]
    NoMemory,
    /// Whole, and yet not a state.
    #[error("{}: {why}", file.display())]
    Content { file: PathBuf, why: RestoreError },
}

impl CheckpointError {
    /// The log may have lost a name with it: nothing may be acknowledged any more.
    pub fn concerns_log(&self) -> bool {
        matches!(self, CheckpointError::SyncNames(_))
    }
}

/// What a checkpoint says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub cluster: ClusterId,
    /// Number of the last record in the state.
    pub records: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.records.to_le_bytes());
        let sum = crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

fn file_name(records: u64) -> String {
    format!("{PREFIX}{records:0NUMBER_DIGITS$}")
}

fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    let is_number = digits.len() == NUMBER_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// How many records each checkpoint there is contains, the newest first.
pub fn list(disk: &dyn Disk) -> Result<Vec<u64>, CheckpointError> {
    let names = disk.names().map_err(|error| read_error(disk, "", error))?;
    let mut records: Vec<u64> = names
        .iter()
        .filter_map(|name| parse_file_name(name))
        .collect();
    records.sort_unstable_by(|a, b| b.cmp(a));
    Ok(records)
}

/// Removes what the newest two checkpoints make needless: older ones, and the log below the older.
pub fn retire(disk: &dyn Disk) -> Result<(), CheckpointError> {
    let all = list(disk)?;
    let Some(&older) = all.get(GENERATIONS - 1) else {
        return Ok(());
    };
    for &records in &all[GENERATIONS..] {
        let name = file_name(records);
        let removed = disk.remove(&name);
        removed.map_err(|error| write_error(disk, &name, error))?;
    }
    disk.sync_names().map_err(CheckpointError::SyncNames)?;
    log::purge(disk, older).map_err(|error| match error {
        PurgeError::Remove { file, why } => CheckpointError::Write { file, why },
        PurgeError::SyncNames(why) => CheckpointError::SyncNames(why),
    })
}

fn block_sum(name: &[u8], block: &[u8]) -> u32 {
    let mut parts = [0; 16];
    parts[..4].copy_from_slice(&(name.len() as u32).to_le_bytes());
    parts[4..8].copy_from_slice(&(block.len() as u32).to_le_bytes());
    parts[8..12].copy_from_slice(&crc32c(name).to_le_bytes());
    parts[12..].copy_from_slice(&crc32c(block).to_le_bytes());
    crc32c(&parts)
}

fn read_error(disk: &dyn Disk, name: &str, why: io::Error) -> CheckpointError {
    CheckpointError::Read {
        file: disk.path(name),
        why,
    }
}

fn write_error(disk: &dyn Disk, name: &str, why: io::Error) -> CheckpointError {
    CheckpointError::Write {
        file: disk.path(name),
        why,
    }
}

/// Writes everything of `image`, durably, under a temporary name.
pub fn write(
    disk: &dyn Disk,
    cluster: ClusterId,
    image: Image,
) -> Result<FinishedCheckpoint<'_>, CheckpointError> {
    let header = Header {
        cluster,
        records: image.records(),
    };
    let recall = image.recall();
    let mut writer = CheckpointWriter::create(disk, header)?;
    for (name, block) in image.sections() {
        if recall.is_made() {
            return Err(CheckpointError::NoMemory);
        }
        writer.put(name, &block)?;
    }
    writer.finish()
}

/// Restores the state that the checkpoint of `records` records contains.
pub fn load(disk: &Arc<dyn Disk>, records: u64) -> Result<Core, CheckpointError> {
    let mut reader = CheckpointReader::open(disk.clone(), records)?;
    let restored = Core::from_image(reader.by_ref());
    reader.finish()?;
    let file = disk.path(&file_name(records));
    let core = restored.map_err(|why| CheckpointError::Content {
        file: file.clone(),
        why,
    })?;
    let is_same = core.records() == records;
    if is_same {
        Ok(core)
    } else {
        Err(CheckpointError::Damaged { file, offset: 0 })
    }
}

/// Reads a checkpoint through, and makes nothing of it.
pub fn verify(disk: &Arc<dyn Disk>, records: u64) -> Result<(), CheckpointError> {
    CheckpointReader::open(disk.clone(), records)?.finish()
}

/// Puts a checkpoint that cannot be loaded out of the way: it no longer counts as a generation.
pub fn set_aside(disk: &dyn Disk, records: u64) -> Result<(), CheckpointError> {
    let name = file_name(records);
    let renamed = disk.rename(&name, &format!("{name}.damaged"));
    renamed.map_err(|error| write_error(disk, &name, error))
}

/// Removes what a crash left of an unfinished checkpoint.
pub fn remove_unfinished(disk: &dyn Disk) -> Result<(), CheckpointError> {
    match disk.remove(TEMPORARY) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(write_error(disk, TEMPORARY, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{self, fake::FakeDisk};

    const HEADER: Header = Header {
        cluster: ClusterId(7),
        records: 42,
    };

    fn blocks() -> Vec<(String, Vec<u8>)> {
        vec![
            ("inodes".to_owned(), vec![1; 700]),
            ("inodes".to_owned(), Vec::new()),
            ("names".to_owned(), b"abc".to_vec()),
        ]
    }

    fn write(disk: &FakeDisk, header: Header) {
        let mut writer = CheckpointWriter::create(disk, header).expect("there is room");
        for (name, block) in blocks() {
            writer.put(&name, &block).expect("there is room");
        }
        writer.finish().expect("syncs").publish().expect("renames");
    }

    fn read(disk: &FakeDisk, records: u64) -> Result<Vec<(String, Vec<u8>)>, CheckpointError> {
        let mut reader = CheckpointReader::open(Arc::new(disk.clone()), records)?;
        let blocks = reader.by_ref().collect();
        reader.finish().map(|()| blocks)
    }

    #[test]
    fn checkpoint_reads_back_as_written_after_a_crash() {
        let disk = FakeDisk::default();
        write(&disk, HEADER);
        let crashed = disk.state().crash(|_| false, 0);
        assert_eq!(list(&crashed).expect("lists"), [42]);
        assert_eq!(read(&crashed, 42).expect("whole"), blocks());
    }

    #[test]
    fn checkpoint_interrupted_anywhere_is_not_there() {
        let disk = FakeDisk::default();
        disk.record();
        write(&disk, HEADER);
        for state in disk.history() {
            let crashed = state.crash(|_| true, state.unsynced_names());
            if list(&crashed).expect("lists") == [42] {
                assert_eq!(read(&crashed, 42).expect("whole"), blocks());
            }
            remove_unfinished(&crashed).expect("removes");
        }
    }

    #[test]
    fn checkpoint_with_any_flipped_bit_or_any_missing_end_is_damaged() {
        let disk = FakeDisk::default();
        write(&disk, HEADER);
        let name = file_name(42);
        let file = disk.open(&name).expect("is there");
        let whole = disk::read_whole(&*file).expect("reads");
        for at in 0..whole.len() {
            disk.damage(&name, |bytes| bytes[at] ^= 1 << (at % 8));
            assert!(read(&disk, 42).is_err(), "a flipped bit in byte {at}");
            disk.damage(&name, |bytes| {
                bytes.clone_from(&whole);
                bytes.truncate(at);
            });
            assert!(read(&disk, 42).is_err(), "cut at byte {at}");
            disk.damage(&name, |bytes| bytes.clone_from(&whole));
        }
        disk.damage(&name, |bytes| bytes.push(0));
        assert!(read(&disk, 42).is_err(), "a byte too many");
    }

    #[test]
    fn retire_keeps_two_generations() {
        let disk = FakeDisk::default();
        for records in [10, 20, 30] {
            write(&disk, Header { records, ..HEADER });
            retire(&disk).expect("removes");
        }
        assert_eq!(list(&disk).expect("lists"), [30, 20]);
    }
}
