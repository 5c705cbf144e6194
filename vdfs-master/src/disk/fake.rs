//! A disk that loses what was not synced: any subset of the sectors of a file, and any later part
//! of the changes of names. It keeps its state after every operation, so that a test can crash at
//! each.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
pub(crate) struct FakeDisk {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: DiskState,
    /// After each operation since [`FakeDisk::record`].
    history: Option<Vec<DiskState>>,
    /// Bytes that may still be written; `None`: no limit.
    room: Option<u64>,
    fails_sync: bool,
    /// In so many operations.
    failure: Option<(usize, Failure)>,
    /// Operations that have failed.
    failed: usize,
    holds_log_syncs: bool,
    /// A sync waits because of that.
    is_holding: bool,
    holds_writes: bool,
    fails_rename_syncs: bool,
    write_time: Duration,
}

/// What an operation of the disk runs into, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// `ENOSPC`.
    NoRoom,
    /// A part of the bytes is written; the rest finds no room.
    Short,
    /// `EIO`. What a sync should have made durable then never gets there: the kernel takes it for
    /// clean.
    Io,
}

/// Everything about a disk at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskState {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

/// What may or may not have reached the disk.
#[derive(Clone, Debug)]
enum Change {
    /// The bytes of the file in one sector, as far as it went.
    Sector {
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Truncate(len) => bytes.resize(*len, 0),
            Change::Sector { at, bytes: sector } => {
                let end = at + sector.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(sector);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, file) => drop(names.insert(name.clone(), *file)),
            NameChange::Remove(name) => drop(names.remove(name)),
            NameChange::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl DiskState {
    /// How many changes of bytes a crash may take or leave.
    pub(crate) fn unsynced_changes(&self) -> usize {
        self.files.iter().map(|file| file.changes.len()).sum()
    }

    pub(crate) fn unsynced_names(&self) -> usize {
        self.name_changes.len()
    }

    /// The disk after a crash that kept the changes of bytes in `kept`, and the first `names`
    /// changes of names.
    pub(crate) fn crash(&self, kept: impl FnMut(usize) -> bool, names: usize) -> FakeDisk {
        self.crash_keeping(kept, |change| change < names)
    }

    /// The same for a filesystem that makes names durable in any order.
    pub(crate) fn crash_keeping(
        &self,
        mut kept: impl FnMut(usize) -> bool,
        mut kept_name: impl FnMut(usize) -> bool,
    ) -> FakeDisk {
        let mut number = 0;
        let mut files = Vec::new();
        for file in &self.files {
            let mut bytes = file.durable.clone();
            for change in &file.changes {
                if kept(number) {
                    change.apply(&mut bytes);
                }
                number += 1;
            }
            files.push(FileState {
                durable: bytes.clone(),
                bytes,
                changes: Vec::new(),
            });
        }
        let mut live = self.durable_names.clone();
        for (number, change) in self.name_changes.iter().enumerate() {
            if kept_name(number) {
                change.apply(&mut live);
            }
        }
        let state = DiskState {
            files,
            durable_names: live.clone(),
            names: live,
            name_changes: Vec::new(),
        };
        let shared = Shared {
            state,
            ..Shared::default()
        };
        FakeDisk {
            shared: Arc::new(Mutex::new(shared)),
        }
    }
}

impl Shared {
    /// The failure of the present operation.
    fn due_failure(&mut self) -> Option<Failure> {
        let (after, failure) = self.failure?;
        if after > 0 {
            self.failure = Some((after - 1, failure));
            return None;
        }
        self.failure = None;
        self.failed += 1;
        Some(failure)
    }

    /// The present operation is the one before the one that fails for want of room.
    fn is_next_short(&self) -> bool {
        self.failure == Some((1, Failure::Short))
    }
}

impl FakeDisk {
    /// Keeps the state after every operation from now on, beginning with the present one.
    pub(crate) fn record(&self) {
        let mut shared = self.shared.lock();
        shared.history = Some(vec![shared.state.clone()]);
    }

    pub(crate) fn history(&self) -> Vec<DiskState> {
        self.shared.lock().history.clone().unwrap_or_default()
    }

    pub(crate) fn state(&self) -> DiskState {
        self.shared.lock().state.clone()
    }

    pub(crate) fn unsynced_changes(&self) -> usize {
        self.shared.lock().state.unsynced_changes()
    }

    /// As much as is written already and `bytes` more.
    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        self.shared.lock().room = bytes;
    }

    pub(crate) fn set_fails_sync(&self, fails: bool) {
        self.shared.lock().fails_sync = fails;
    }

    /// Syncs of names fail while a renaming is among them.
    pub(crate) fn set_fails_rename_syncs(&self, fails: bool) {
        self.shared.lock().fails_rename_syncs = fails;
    }

    /// How long each write takes.
    pub(crate) fn set_write_time(&self, time: Duration) {
        self.shared.lock().write_time = time;
    }

    /// The operation behind the next `after` ones fails.
    pub(crate) fn fail(&self, after: usize, failure: Failure) {
        self.shared.lock().failure = Some((after, failure));
    }

    /// How many operations were made to fail.
    pub(crate) fn failed(&self) -> usize {
        self.shared.lock().failed
    }

    /// A sync has begun and is held.
    pub(crate) fn is_holding(&self) -> bool {
        self.shared.lock().is_holding
    }

    /// Lets no sync of the log's segments end while set.
    pub(crate) fn set_holds_log_syncs(&self, holds: bool) {
        self.shared.lock().holds_log_syncs = holds;
    }

    /// Lets no write go on while set, or ten seconds at most.
    pub(crate) fn set_holds_writes(&self, holds: bool) {
        self.shared.lock().holds_writes = holds;
    }

    fn wait_for_writes(&self) {
        let write_time = self.shared.lock().write_time;
        if !write_time.is_zero() {
            std::thread::sleep(write_time);
        }
        // Bounded, so that a test that fails ends.
        let until = Instant::now() + Duration::from_secs(10);
        while self.shared.lock().holds_writes && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_held(&self, file: usize) -> bool {
        let mut shared = self.shared.lock();
        let mut names = shared.state.names.iter();
        let is_log = names.any(|(name, &number)| number == file && name.starts_with("wal-"));
        shared.is_holding = shared.holds_log_syncs && is_log;
        shared.is_holding
    }

    /// Changes a file's bytes on the disk, as damage does.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut shared = self.shared.lock();
        let file = *shared.state.names.get(name).expect("the file is there");
        let file = &mut shared.state.files[file];
        change(&mut file.bytes);
        file.durable = file.bytes.clone();
        file.changes.clear();
    }

    fn change<T>(&self, act: impl FnOnce(&mut Shared) -> io::Result<T>) -> io::Result<T> {
        let mut shared = self.shared.lock();
        let outcome = match shared.due_failure() {
            Some(Failure::NoRoom | Failure::Short) => Err(io::ErrorKind::StorageFull.into()),
            Some(Failure::Io) => Err(io::Error::from_raw_os_error(libc::EIO)),
            None => act(&mut shared),
        };
        let Shared { state, history, .. } = &mut *shared;
        if let Some(history) = history {
            history.push(state.clone());
        }
        outcome
    }

    fn change_name(&self, change: NameChange) -> io::Result<()> {
        self.change(|shared| {
            change.apply(&mut shared.state.names);
            shared.state.name_changes.push(change);
            Ok(())
        })
    }

    fn file(&self, number: usize) -> Arc<dyn DiskFile> {
        Arc::new(FakeFile {
            disk: self.clone(),
            number,
        })
    }
}

impl Disk for FakeDisk {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/fake").join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.shared.lock().state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.change(|shared| {
            shared.state.files.push(FileState::default());
            Ok(shared.state.files.len() - 1)
        })?;
        self.change_name(NameChange::Create(name.to_owned(), number))?;
        Ok(self.file(number))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.shared.lock().state.names.get(name).copied();
        number
            .map(|number| self.file(number))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.shared.lock().state.names.get(from).copied();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.shared.lock().state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change_name(NameChange::Remove(name.to_owned()))
    }

    fn sync_names(&self) -> io::Result<()> {
        let synced = self.change(|shared| {
            let mut changes = shared.state.name_changes.iter();
            let renames = changes.any(|change| matches!(change, NameChange::Rename(..)));
            if shared.fails_rename_syncs && renames {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let state = &mut shared.state;
            for change in state.name_changes.drain(..) {
                change.apply(&mut state.durable_names);
            }
            Ok(())
        });
        if synced.is_err() {
            self.shared.lock().state.name_changes.clear();
        }
        synced
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    number: usize,
}

impl DiskFile for FakeFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.shared.lock().state.files[self.number].bytes.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let shared = self.disk.shared.lock();
        let bytes = &shared.state.files[self.number].bytes;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.wait_for_writes();
        let bytes = match self.disk.shared.lock().is_next_short() {
            true if bytes.len() > 1 => &bytes[..bytes.len() / 2],
            _ => bytes,
        };
        self.disk.change(|shared| {
            let written = shared.state.files[self.number].bytes.len() as u64;
            let end = shared.room.map_or(u64::MAX, |room| written + room);
            let len = bytes.len().min(end.saturating_sub(offset) as usize);
            if len == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if let Some(room) = &mut shared.room {
                *room -= (offset + len as u64).saturating_sub(written);
            }
            shared.state.files[self.number].write(&bytes[..len], offset as usize);
            Ok(len)
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.change(|shared| {
            let file = &mut shared.state.files[self.number];
            if file.bytes.len() as u64 != len {
                file.bytes.resize(len as usize, 0);
                file.changes.push(Change::Truncate(len as usize));
            }
            Ok(())
        })
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.change(|shared| {
            let written = shared.state.files[self.number].bytes.len() as u64;
            match shared.room {
                Some(room) if offset + len > written + room => {
                    Err(io::ErrorKind::StorageFull.into())
                }
                _ => Ok(()),
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        // Bounded, so that a test that fails ends.
        let until = Instant::now() + Duration::from_secs(5);
        while self.disk.is_held(self.number) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let synced = self.disk.change(|shared| {
            if shared.fails_sync {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let file = &mut shared.state.files[self.number];
            for change in file.changes.drain(..) {
                change.apply(&mut file.durable);
            }
            Ok(())
        });
        if synced.is_err() {
            let mut shared = self.disk.shared.lock();
            shared.state.files[self.number].changes.clear();
        }
        synced
    }
}

impl FileState {
    fn write(&mut self, written: &[u8], at: usize) {
        let end = at + written.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at..end].copy_from_slice(written);
        for sector in at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.bytes.len());
            self.changes.push(Change::Sector {
                at: from,
                bytes: self.bytes[from..to].to_vec(),
            });
        }
    }
}
