//! Group commit: one thread makes what was appended durable, within [`COMMIT_INTERVAL`] or at once
//! when somebody waits, and tells the observer.
//!
//! Invariant: `durable` goes up only after every file that holds records up to it, and the names of
//! these files, are synced. After a failed sync nothing is known of the disk, so nothing is tried
//! again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::mark::SyncedMark;
use crate::disk::{Disk, DiskFile};

/// How much of the last acknowledged work a crash of the machine may take.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// How old the mark outside the segments may get while the log is never idle.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// Told, on the syncing thread, up to which record the log is durable, or that it never will be.
pub type SyncObserver = Box<dyn Fn(Result<u64, io::Error>) + Send>;

#[derive(Debug)]
pub(super) struct Flusher {
    disk: Arc<dyn Disk>,
    pending: Mutex<Pending>,
    wake: Condvar,
    durable: AtomicU64,
    mark: Mutex<SyncedMark>,
    /// Held for as long as a sync takes: whoever finds nothing left to sync must not take for
    /// durable what another is still syncing. Lock order: before `pending`.
    syncing: Mutex<()>,
}

/// What was written since the last sync.
#[derive(Debug)]
struct Pending {
    /// The last record written.
    written: u64,
    dirty: Dirty,
    urgent: bool,
    ending: bool,
    /// A sync failed.
    failed: bool,
}

#[derive(Debug, Default)]
struct Dirty {
    files: Vec<Arc<dyn DiskFile>>,
    names: bool,
}

impl Pending {
    fn is_dirty(&self) -> bool {
        self.dirty.names || !self.dirty.files.is_empty()
    }
}

impl Flusher {
    /// Begins with a log that is durable up to `records`.
    pub(super) fn new(disk: Arc<dyn Disk>, mark: SyncedMark, records: u64) -> Self {
        let pending = Pending {
            written: records,
            dirty: Dirty::default(),
            urgent: false,
            ending: false,
            failed: false,
        };
        Flusher {
            disk,
            pending: Mutex::new(pending),
            wake: Condvar::new(),
            durable: AtomicU64::new(records),
            mark: Mutex::new(mark),
            syncing: Mutex::new(()),
        }
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Records up to `written` are in files; the last of them went into `file`.
    pub(super) fn appended(&self, file: &Arc<dyn DiskFile>, written: u64) {
        let mut pending = self.pending.lock();
        assert!(written >= pending.written, "records are numbered upwards");
        pending.written = written;
        let is_last = pending
            .dirty
            .files
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, file));
        if !is_last {
            pending.dirty.files.push(file.clone());
            self.wake.notify_one();
        }
    }

    /// A segment was made.
    pub(super) fn names_changed(&self) {
        self.pending.lock().dirty.names = true;
    }

    pub(super) fn hurry(&self) {
        let mut pending = self.pending.lock();
        if pending.is_dirty() && !pending.urgent {
            pending.urgent = true;
            self.wake.notify_one();
        }
    }

    pub(super) fn end(&self) {
        self.pending.lock().ending = true;
        self.wake.notify_one();
    }

    /// Syncs what is pending; returns up to which record the log is durable now.
    pub(super) fn flush(&self) -> io::Result<u64> {
        let _alone = self.syncing.lock();
        let (written, dirty) = self.take_dirty()?;
        if let Err(error) = self.sync(&dirty) {
            self.pending.lock().failed = true;
            return Err(error);
        }
        self.durable.fetch_max(written, Ordering::Release);
        Ok(written)
    }

    /// The last record written, and what has to be synced to make it durable.
    fn take_dirty(&self) -> io::Result<(u64, Dirty)> {
        let mut pending = self.pending.lock();
        if pending.failed {
            return Err(io::Error::other("a sync failed before"));
        }
        pending.urgent = false;
        Ok((pending.written, std::mem::take(&mut pending.dirty)))
    }

    fn sync(&self, dirty: &Dirty) -> io::Result<()> {
        dirty.files.iter().try_for_each(|file| file.sync())?;
        if dirty.names {
            self.disk.sync_names()
        } else {
            Ok(())
        }
    }

    /// Writes down what is durable.
    pub(super) fn set_mark(&self) -> io::Result<()> {
        let mut mark = self.mark.lock();
        let durable = self.durable();
        if durable > mark.record() {
            mark.set(durable)
        } else {
            Ok(())
        }
    }

    fn has_news_for_mark(&self) -> bool {
        self.durable() > self.mark.lock().record()
    }

    /// The syncing thread, until [`Flusher::end`] or a failed sync.
    pub(super) fn run(&self, observer: &SyncObserver) {
        let mut marked_at = Instant::now();
        loop {
            let outcome = match self.await_work() {
                Work::End => return,
                Work::Idle => self.set_mark(),
                Work::Flush => self.flush().map(|durable| observer(Ok(durable))),
            };
            let outcome = outcome.and_then(|()| self.refresh_mark(&mut marked_at));
            if let Err(error) = outcome {
                return observer(Err(error));
            }
        }
    }

    fn refresh_mark(&self, marked_at: &mut Instant) -> io::Result<()> {
        if marked_at.elapsed() < MARK_INTERVAL {
            return Ok(());
        }
        *marked_at = Instant::now();
        self.set_mark()
    }

    /// Waits for something to sync, and then, unless somebody is waiting, for more to come. A log
    /// that stays clean for a whole interval is idle.
    fn await_work(&self) -> Work {
        let mut pending = self.pending.lock();
        while !pending.is_dirty() && !pending.ending {
            if !self.has_news_for_mark() {
                self.wake.wait(&mut pending);
            } else if self
                .wake
                .wait_for(&mut pending, COMMIT_INTERVAL)
                .timed_out()
            {
                return Work::Idle;
            }
        }
        let commit_at = Instant::now() + COMMIT_INTERVAL;
        while !pending.urgent && !pending.ending {
            if self.wake.wait_until(&mut pending, commit_at).timed_out() {
                break;
            }
        }
        if pending.ending {
            Work::End
        } else {
            Work::Flush
        }
    }
}

/// What the syncing thread does next.
enum Work {
    Flush,
    Idle,
    End,
}
