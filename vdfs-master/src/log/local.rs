//! The log of a single master: segments in one directory.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::batch::{self, LogId};
use super::flush::{Flusher, SyncObserver};
use super::mark::SyncedMark;
use super::scan::{Cut, Scanner, Visit, segment_name, segments};
use super::{LogError, LogOpenError, OpLog, PurgeError};
use crate::disk::{self, Disk, DiskFile, write_all_at};
use crate::limits::LOG_RESERVE_BYTES;
use vdfs_proto::sums::crc32c;

const ID_NAME: &str = "id";

/// What a log is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment ends before it grows beyond this, in bytes.
    pub segment_bytes: u64,
    /// Records up to here come from a checkpoint and are not visited.
    pub after: u64,
    /// The log is known to have been synced at least up to this record.
    pub synced: u64,
}

/// See the module above for the invariant. One owner appends; a thread, started by
/// [`LocalLog::start_syncing`], syncs.
#[derive(Debug)]
pub struct LocalLog {
    disk: Arc<dyn Disk>,
    id: LogId,
    segment_bytes: u64,
    segment: Option<Segment>,
    records: u64,
    bytes: u64,
    cut: Option<Cut>,
    flusher: Arc<Flusher>,
    syncing: Option<JoinHandle<()>>,
    /// A write failed and could not be taken back.
    is_broken: bool,
}

/// Where the next batch goes.
#[derive(Debug)]
struct Segment {
    name: String,
    file: Arc<dyn DiskFile>,
    len: u64,
    /// The disk has room for the file up to here.
    reserved: u64,
}

impl LocalLog {
    /// Reads the log, hands every record behind `options.after` to `visit` in order, and cuts off a
    /// torn end. Nothing is synced before [`LocalLog::start_syncing`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        visit: &mut Visit<'_>,
    ) -> Result<Self, LogOpenError> {
        let id = open_id(&*disk)?;
        let cannot = |why| LogError::Write {
            file: disk.path("synced"),
            why,
        };
        let mark = SyncedMark::open(&*disk, id).map_err(cannot)?;
        let synced = options.synced.max(mark.record());
        let scanner = Scanner {
            disk: &*disk,
            id,
            after: options.after,
            synced,
            goes_on: true,
        };
        let scanned = scanner.scan(visit)?;
        disk.sync_names().map_err(LogError::Sync)?;
        let segment = scanned.last.map(|(first, file, len)| Segment {
            name: segment_name(first),
            file,
            len,
            reserved: len,
        });
        Ok(LocalLog {
            id,
            segment_bytes: options.segment_bytes,
            segment,
            records: scanned.records,
            bytes: scanned.bytes,
            cut: scanned.cut,
            flusher: Arc::new(Flusher::new(disk.clone(), mark, scanned.records)),
            syncing: None,
            is_broken: false,
            disk,
        })
    }

    /// What the last crash took, if it took anything.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Starts the thread that syncs; `observer` is called on it.
    pub fn start_syncing(&mut self, observer: SyncObserver) -> io::Result<()> {
        assert!(self.syncing.is_none(), "one thread syncs");
        let flusher = self.flusher.clone();
        let thread = std::thread::Builder::new().name("vdfs-log-sync".to_owned());
        self.syncing = Some(thread.spawn(move || flusher.run(&observer))?);
        Ok(())
    }

    /// Ends the segment; the next batch begins a new one.
    pub(super) fn rotate(&mut self) -> Result<(), LogError> {
        if self
            .segment
            .as_ref()
            .is_some_and(|segment| segment.len == 0)
        {
            return Ok(());
        }
        let name = segment_name(self.records + 1);
        let file = self
            .disk
            .create(&name)
            .map_err(|error| self.write_error(&name, error))?;
        self.flusher.names_changed();
        if let Some(ended) = self.segment.replace(Segment {
            name,
            file,
            len: 0,
            reserved: 0,
        }) {
            // Gives back the room reserved behind the end; where that fails it stays taken.
            if let Err(error) = ended.file.truncate(ended.len) {
                tracing::warn!(file = ended.name, %error, "cannot give back reserved room");
            }
        }
        Ok(())
    }

    /// The segment that `bytes` more fit into.
    fn segment_for(&mut self, bytes: u64) -> Result<&mut Segment, LogError> {
        let fits = match &self.segment {
            Some(segment) => segment.len == 0 || segment.len + bytes <= self.segment_bytes,
            None => false,
        };
        if !fits {
            self.rotate()?;
        }
        Ok(self.segment.as_mut().expect("a rotation makes a segment"))
    }

    fn write_batch(&mut self, batch: &[u8]) -> Result<(), LogError> {
        let segment = self.segment_for(batch.len() as u64)?;
        let Err(error) = write_all_at(&*segment.file, batch, segment.len) else {
            segment.len += batch.len() as u64;
            return Ok(());
        };
        let (file, len, name) = (segment.file.clone(), segment.len, segment.name.clone());
        // The room behind the end goes with the cut.
        segment.reserved = len;
        if let Err(why) = file.truncate(len) {
            self.is_broken = true;
            return Err(LogError::Broken {
                file: self.disk.path(&name),
                why,
            });
        }
        Err(self.write_error(&name, error))
    }

    fn write_error(&self, name: &str, why: io::Error) -> LogError {
        LogError::writing(&*self.disk, name, why)
    }

    /// Writes the mark now, on this thread.
    #[cfg(test)]
    pub(super) fn mark_here(&self) -> io::Result<()> {
        self.flusher.set_mark()
    }

    fn join(&mut self) {
        self.flusher.end();
        if let Some(thread) = self.syncing.take() {
            thread.join().expect("the syncing thread does not panic");
        }
    }
}

impl OpLog for LocalLog {
    fn reserve(&mut self, bytes: u64) -> Result<(), LogError> {
        let segment = self.segment_for(bytes)?;
        let end = segment.len + bytes;
        if end <= segment.reserved {
            return Ok(());
        }
        let ahead = bytes.max(LOG_RESERVE_BYTES);
        let plenty = segment
            .file
            .reserve(segment.len, ahead)
            .map(|()| segment.len + ahead);
        let taken = plenty.or_else(|_| segment.file.reserve(segment.len, bytes).map(|()| end));
        match taken {
            Ok(reserved) => segment.reserved = reserved,
            // Room is then found out by writing, which cuts back when there is none.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => segment.reserved = u64::MAX,
            Err(error) => {
                let name = segment.name.clone();
                return Err(self.write_error(&name, error));
            }
        }
        Ok(())
    }

    fn append(&mut self, records: &[Vec<u8>]) -> Result<(), LogError> {
        assert!(!self.is_broken, "nothing is appended behind a torn batch");
        let first = self.records + 1;
        let batch = batch::encode(self.id, first, self.flusher.durable(), records);
        self.write_batch(&batch)?;
        self.records += records.len() as u64;
        self.bytes += batch.len() as u64;
        let segment = self
            .segment
            .as_ref()
            .expect("the batch went into a segment");
        self.flusher.appended(&segment.file, self.records);
        Ok(())
    }

    fn sync(&self) {
        self.flusher.hurry();
    }

    fn records(&self) -> u64 {
        self.records
    }

    fn durable(&self) -> u64 {
        self.flusher.durable()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn forget_bytes(&mut self, bytes: u64) {
        assert!(bytes <= self.bytes, "a checkpoint covers what was written");
        self.bytes -= bytes;
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.flusher.flush().map_err(LogError::Sync)?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.join();
        self.flush()?;
        self.flusher.set_mark().map_err(LogError::Sync)?;
        assert_eq!(
            self.durable(),
            self.records,
            "a closed log is whole on the disk"
        );
        Ok(())
    }
}

impl Drop for LocalLog {
    fn drop(&mut self) {
        self.join();
    }
}

/// Removes the segments that hold no record above `through`; the last one stays.
pub fn purge(disk: &dyn Disk, through: u64) -> Result<(), PurgeError> {
    let cannot = |name: &str, why| PurgeError::Remove {
        file: disk.path(name),
        why,
    };
    let firsts = segments(disk).map_err(|error| cannot("", error))?;
    for pair in firsts.windows(2) {
        if pair[1] > through + 1 {
            break;
        }
        let name = segment_name(pair[0]);
        disk.remove(&name).map_err(|error| cannot(&name, error))?;
        // Each by itself, so that a crash never leaves a hole in the middle.
        disk.sync_names().map_err(PurgeError::SyncNames)?;
    }
    Ok(())
}

/// Reads a log and changes nothing: every record behind `after` goes to `visit`. `synced` is known to
/// have been synced. Gives the number of the last record, and what an opening would cut off.
pub fn look(
    disk: &dyn Disk,
    after: u64,
    synced: u64,
    visit: &mut Visit<'_>,
) -> Result<(u64, Option<Cut>), LogOpenError> {
    let Some(id) = read_id(disk)? else {
        return Ok((0, None));
    };
    let mark = SyncedMark::read(disk, id).map_err(|why| LogOpenError::Read {
        file: disk.path("synced"),
        why,
    })?;
    let scanner = Scanner {
        disk,
        id,
        after,
        synced: synced.max(mark),
        goes_on: false,
    };
    scanner.look(visit)
}

/// Begins an empty log whose first record follows `records` that are elsewhere.
pub fn begin_behind(disk: &dyn Disk, records: u64) -> Result<(), LogOpenError> {
    make_id(disk)?;
    let name = segment_name(records + 1);
    let made = disk.create(&name).and_then(|file| file.sync());
    let made = made.and_then(|()| disk.sync_names());
    made.map_err(|error| LogError::writing(disk, &name, error).into())
}

/// The id of the log; a directory without segments gets one.
fn open_id(disk: &dyn Disk) -> Result<LogId, LogOpenError> {
    match read_id(disk)? {
        Some(id) => Ok(id),
        None => make_id(disk),
    }
}

/// `None` if there is no log yet.
fn read_id(disk: &dyn Disk) -> Result<Option<LogId>, LogOpenError> {
    let unreadable = |why| LogOpenError::Read {
        file: disk.path(ID_NAME),
        why,
    };
    let bad = || LogOpenError::BadId {
        file: disk.path(ID_NAME),
    };
    match disk::read_text(disk, ID_NAME).map_err(unreadable)? {
        Some(text) => Ok(Some(parse_id(&text).ok_or_else(bad)?)),
        None if segments(disk).map_err(unreadable)?.is_empty() => Ok(None),
        None => Err(bad()),
    }
}

fn make_id(disk: &dyn Disk) -> Result<LogId, LogOpenError> {
    let id = LogId(random());
    let stored = disk::replace(disk, ID_NAME, print_id(id).as_bytes());
    stored.map_err(|error| LogError::writing(disk, ID_NAME, error))?;
    Ok(id)
}

/// The id and its CRC32C, in hexadecimal.
fn print_id(id: LogId) -> String {
    format!("{:016x} {:08x}\n", id.0, crc32c(&id.0.to_le_bytes()))
}

fn parse_id(text: &str) -> Option<LogId> {
    let id = LogId(u64::from_str_radix(text.get(..16)?, 16).ok()?);
    (text == print_id(id)).then_some(id)
}

/// Keys of the standard library's hasher are random, which is all that is asked of an id.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u64)
}
