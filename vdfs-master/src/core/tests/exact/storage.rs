//! The core's records on a disk that can lose them, through the log and the checkpoints of the
//! master itself.

use std::sync::Arc;

use super::Restore;
use crate::checkpoint;
use crate::core::Core;
use crate::core::tests::world::{config, now};
use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::log::{LocalLog, LogOptions, OpLog};
use crate::shell::restore;

/// Short, so that cases of some dozens of records have several.
const SEGMENT_BYTES: u64 = 512;

pub(super) struct Storage {
    disk: FakeDisk,
    /// Taken out only while it is opened again.
    log: Option<LocalLog>,
    /// Of what a crash may take: the last record of each batch, and the changes of the disk until
    /// then.
    unsynced: Vec<(u64, usize)>,
    /// Some of the log is there only as part of a checkpoint.
    has_purged: bool,
}

impl Storage {
    pub(super) fn new() -> Self {
        let disk = FakeDisk::default();
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            after: 0,
            synced: 0,
        };
        let opened = LocalLog::open(Arc::new(disk.clone()), options, &mut |_, _| Ok(()));
        Storage {
            disk,
            log: Some(opened.expect("an empty disk")),
            unsynced: Vec::new(),
            has_purged: false,
        }
    }

    fn log(&mut self) -> &mut LocalLog {
        self.log.as_mut().expect("nobody opens it now")
    }

    /// Appends what is not there yet, as one batch.
    pub(super) fn append(&mut self, all: &[Vec<u8>]) {
        let known = self.log().records() as usize;
        if known < all.len() {
            self.log().append(&all[known..]).expect("there is room");
            let changes = self.disk.unsynced_changes();
            self.unsynced.push((all.len() as u64, changes));
        }
    }

    pub(super) fn sync(&mut self) {
        self.log().flush().expect("syncs");
        self.unsynced.clear();
    }

    pub(super) fn checkpoint(&mut self, core: &Core) {
        self.sync();
        assert_eq!(self.log().records(), core.records(), "the log reaches it");
        let written = checkpoint::write(&self.disk, config().cluster, core.image());
        written.expect("has room").publish().expect("renames");
        checkpoint::retire(&self.disk).expect("removes");
        self.has_purged |= checkpoint::list(&self.disk).expect("lists").len() > 1;
    }

    /// What the next start of a killed master finds.
    pub(super) fn restart(&mut self, from: Restore) -> Core {
        self.log = None;
        let checkpoints = checkpoint::list(&self.disk).expect("lists");
        let is_spare = checkpoints.len() > 1 || !self.has_purged;
        if let (Restore::OlderCheckpoint, true, [newest, ..]) = (from, is_spare, &checkpoints[..]) {
            let name = format!("checkpoint-{newest:020}");
            self.disk.damage(&name, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            });
        }
        self.open()
    }

    /// What the next start finds when the machine has lost everything behind `records`.
    pub(super) fn crash(&mut self, records: u64, torn: bool) -> Core {
        self.log = None;
        let batch = self.unsynced.iter().find(|(last, _)| *last == records);
        let changes = batch.map_or(0, |(_, changes)| *changes);
        let state = self.disk.state();
        self.disk = state.crash(|change| change < changes, state.unsynced_names());
        if torn {
            let names = self.disk.names().expect("lists");
            let segments = names.iter().filter(|name| name.starts_with("wal-"));
            let last = segments.max().expect("there is a log");
            self.disk.damage(last, |bytes| bytes.extend([7; 20]));
        }
        self.open()
    }

    fn open(&mut self) -> Core {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let restored = restore::restore(&disk, &config(), SEGMENT_BYTES, now(0));
        let restored = restored.unwrap_or_else(|error| panic!("cannot start: {error}"));
        assert!(!restored.is_new, "there was a filesystem");
        self.log = Some(restored.log);
        self.unsynced.clear();
        restored.core
    }
}
