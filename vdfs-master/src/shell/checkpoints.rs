//! When checkpoints are written, and the thread that writes them.
//!
//! A checkpoint is an image of the core, so one instant of everything, written while the core goes
//! on. It gets its name only when the log on the disk has reached it.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbox::Inbox;
use crate::checkpoint::{self, CheckpointError};
use crate::core::Core;
use crate::disk::Disk;
use crate::limits::CHECKPOINT_LOG_BYTES_AT_STOP;
use crate::log::OpLog;

/// A checkpoint is written at least this often while anything is logged.
const INTERVAL: Duration = Duration::from_secs(600);
/// After a failure (a full disk) the next try waits.
const RETRY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Checkpoints {
    disk: Arc<dyn Disk>,
    inbox: Arc<Inbox>,
    /// Log bytes that make a checkpoint worth its writing.
    log_bytes: u64,
    /// None is begun before.
    not_before: Instant,
    due: Instant,
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    records: u64,
    log_bytes: u64,
    /// Tells the thread that the log on the disk has reached the checkpoint; dropped, that it never
    /// will.
    reached: Option<mpsc::Sender<()>>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    pub(super) fn new(disk: Arc<dyn Disk>, inbox: Arc<Inbox>, log_bytes: u64) -> Self {
        let now = Instant::now();
        Checkpoints {
            disk,
            inbox,
            log_bytes,
            not_before: now,
            due: now + INTERVAL,
            writing: None,
        }
    }

    /// When [`Checkpoints::consider`] may have to act without being told anything.
    pub(super) fn deadline(&self) -> Instant {
        self.due.max(self.not_before)
    }

    /// Begins a checkpoint if one is due, and helps the one in progress on.
    pub(super) fn consider(&mut self, core: &Core, log: &dyn OpLog) {
        if let Some(writing) = &mut self.writing {
            if log.durable() >= writing.records
                && let Some(reached) = writing.reached.take()
            {
                // The thread may have failed already; it tells the inbox why.
                reached.send(()).ok();
            }
            return;
        }
        let now = Instant::now();
        let is_due = now >= self.due || log.bytes() >= self.log_bytes;
        if !is_due || now < self.not_before {
            return;
        }
        self.due = now + INTERVAL;
        if log.bytes() > 0 {
            self.begin(core, log);
        }
    }

    fn begin(&mut self, core: &Core, log: &dyn OpLog) {
        let image = core.image();
        let records = image.records();
        let cluster = core.config().cluster;
        let (reached, is_reached) = mpsc::channel();
        let (disk, inbox) = (self.disk.clone(), self.inbox.clone());
        let write = move || {
            super::lower_priority();
            let written = checkpoint::write(&*disk, cluster, image);
            if is_reached.recv().is_err() {
                return;
            }
            let outcome = written
                .and_then(|finished| finished.publish())
                .and_then(|()| retire(&*disk));
            inbox.tell_checkpoint(outcome.map(|()| records));
        };
        let thread = std::thread::Builder::new()
            .name("vdfs-checkpoint".to_owned())
            .spawn(write);
        match thread {
            Ok(thread) => {
                let log_bytes = log.bytes();
                self.writing = Some(Writing {
                    records,
                    log_bytes,
                    reached: Some(reached),
                    thread,
                });
                log.sync();
            }
            Err(error) => self.postpone(&error),
        }
    }

    /// The thread has ended. An error is of the log, too.
    pub(super) fn finish(
        &mut self,
        outcome: Result<u64, CheckpointError>,
        log: &mut dyn OpLog,
    ) -> Result<(), CheckpointError> {
        let writing = self
            .writing
            .take()
            .expect("only the thread in progress tells");
        writing
            .thread
            .join()
            .expect("the thread told its outcome and ended");
        match outcome {
            Ok(records) => {
                assert_eq!(records, writing.records, "one checkpoint is in progress");
                log.forget_bytes(writing.log_bytes);
                tracing::debug!(records, "checkpoint written");
            }
            Err(error) if error.concerns_log() => return Err(error),
            Err(error) => self.postpone(&error),
        }
        Ok(())
    }

    fn postpone(&mut self, error: &dyn std::fmt::Display) {
        self.not_before = Instant::now() + RETRY;
        tracing::warn!(%error, "cannot write a checkpoint; the log goes on growing");
    }

    /// Ends the checkpoint in progress, whose log is durable if `is_reached`, and forgets what it
    /// says.
    pub(super) fn end(&mut self, is_reached: bool) {
        let Some(Writing {
            reached, thread, ..
        }) = self.writing.take()
        else {
            return;
        };
        if let Some(reached) = reached.filter(|_| is_reached) {
            reached.send(()).ok();
        }
        if thread.join().is_err() {
            tracing::error!("the thread that writes checkpoints panicked");
        }
    }

    /// At a clean stop, behind a log that is closed: saves the next start the replay.
    pub(super) fn write_last(&self, core: &Core, log: &dyn OpLog) {
        assert_eq!(log.durable(), core.records(), "the log is closed");
        if log.bytes() < CHECKPOINT_LOG_BYTES_AT_STOP.min(self.log_bytes) {
            return;
        }
        let written = checkpoint::write(&*self.disk, core.config().cluster, core.image());
        let outcome = written
            .and_then(|finished| finished.publish())
            .and_then(|()| retire(&*self.disk));
        if let Err(error) = outcome {
            tracing::warn!(%error, "cannot write a checkpoint; the log has it all");
        }
    }
}

/// What cannot be removed stays until the next checkpoint.
fn retire(disk: &dyn Disk) -> Result<(), CheckpointError> {
    match checkpoint::retire(disk) {
        Err(error) if !error.concerns_log() => {
            tracing::warn!(%error, "cannot remove what the new checkpoint makes needless");
            Ok(())
        }
        outcome => outcome,
    }
}
