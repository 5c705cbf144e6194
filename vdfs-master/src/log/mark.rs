//! The file `synced`: up to which record the log is known to be on the disk.
//!
//! Two slots, a sector each, written in turn, so that a torn write leaves the mark before it:
//! id of the log (8 bytes), turn (8), record (8), CRC32C of these 24 (4).

use std::io;
use std::sync::Arc;

use vdfs_proto::sums::crc32c;

use super::batch::LogId;
use crate::disk::{Disk, DiskFile, read_whole, write_all_at};

const NAME: &str = "synced";
const SLOT_BYTES: u64 = 512;
const MARK_BYTES: usize = 28;

#[derive(Debug)]
pub(super) struct SyncedMark {
    file: Arc<dyn DiskFile>,
    id: LogId,
    turn: u64,
    record: u64,
}

impl SyncedMark {
    /// Opens the mark, or makes it at record 0. A damaged slot counts as absent: the mark is only
    /// evidence against other damage.
    pub(super) fn open(disk: &dyn Disk, id: LogId) -> io::Result<Self> {
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(NAME)?,
            Err(error) => return Err(error),
        };
        let bytes = read_whole(&*file)?;
        if bytes.is_empty() {
            // Takes the room of both slots, so that no later mark fails for want of it.
            write_all_at(&*file, &[0; 2 * SLOT_BYTES as usize], 0)?;
            file.sync()?;
        }
        let (turn, record) = newest(id, &bytes);
        Ok(SyncedMark {
            file,
            id,
            turn,
            record,
        })
    }

    /// The mark that is there, or record 0.
    pub(super) fn read(disk: &dyn Disk, id: LogId) -> io::Result<u64> {
        match disk.open(NAME) {
            Ok(file) => Ok(newest(id, &read_whole(&*file)?).1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(super) fn record(&self) -> u64 {
        self.record
    }

    /// Says that the log is on the disk up to `record`, durably. Only a failed sync is an error: a
    /// mark that cannot be written is missing evidence, not lost work.
    pub(super) fn set(&mut self, record: u64) -> io::Result<()> {
        assert!(record >= self.record, "what is synced stays synced");
        let turn = self.turn + 1;
        let slot = (turn % 2) * SLOT_BYTES;
        if let Err(error) = write_all_at(&*self.file, &encode(self.id, turn, record), slot) {
            tracing::warn!(%error, "cannot write down how far the log is synced");
            return Ok(());
        }
        self.file.sync()?;
        (self.turn, self.record) = (turn, record);
        Ok(())
    }
}

/// Turn and record of the newest whole slot.
fn newest(id: LogId, bytes: &[u8]) -> (u64, u64) {
    let slots = [0, SLOT_BYTES as usize];
    let marks = slots
        .iter()
        .filter_map(|&at| decode(id, bytes.get(at..at + MARK_BYTES)?));
    marks.max().unwrap_or((0, 0))
}

fn encode(id: LogId, turn: u64, record: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&id.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&turn.to_le_bytes());
    bytes[16..24].copy_from_slice(&record.to_le_bytes());
    let sum = crc32c(&bytes[..24]);
    bytes[24..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(id: LogId, bytes: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (turn, record) = (number(8), number(16));
    (bytes == encode(id, turn, record)).then_some((turn, record))
}
