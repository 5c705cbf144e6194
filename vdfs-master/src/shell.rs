//! The shell around the core: files, a thread, time.
//!
//! [`Master::start`] restores the core from checkpoint and log and gives it to a [`keeper`]; callers
//! on any runtime reach it through a [`Service`] whose requests go through a bounded queue
//! ([`inbox`]). A turn of the keeper runs on the thread of the caller or on the master's own
//! ([`turns`]), one at a time. Checkpoints are written by a thread beside it ([`checkpoints`]).
//!
//! Invariants: one process a log directory (the caller holds the lock of the state directory); no
//! reply leaves before the records of its turn are written; after a panic in a turn or a failed sync
//! the process ends, because what it would acknowledge may not be true.
//!
//! [`Service`]: vdfs_net::Service

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use vdfs_net::host::Host;
use vdfs_net::quic::NetCounters;
use vdfs_net::{Identity, Service};

use crate::certificates::Certificates;
use crate::checkpoint::CheckpointError;
use crate::core::RamLimits;
use crate::disk::{DirectoryDisk, Disk};
use crate::dispatch::{Desk, Dispatch};
use crate::limits::{
    CHECKPOINT_LOG_BYTES, COPIES_FRACTION, LOG_SEGMENT_BYTES_MAX, PROCESS_BYTES, TURN_BYTES_MAX,
};
use crate::log::{LogError, LogOpenError, OpLog};
use crate::metrics::Metrics;
use crate::pulse::Pulse;

mod boot;
mod checkpoints;
pub(crate) mod inbox;
pub(crate) mod inspector;
mod keeper;
pub(crate) mod restore;
#[cfg(test)]
mod tests;
pub(crate) mod turns;

pub use crate::core::FsConfig;
#[cfg(test)]
pub(crate) use keeper::now;

use boot::{Boot, BootNote};
use checkpoints::Checkpoints;
use inbox::{Inbox, Stop};
use inspector::Inspector;
use keeper::{Fatal, Keeper, KeeperOptions};
use turns::Turns;

/// What a master is started with.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Where log and checkpoints live; made, for its owner alone, if it is missing.
    pub log_dir: PathBuf,
    /// The filesystem to make if there is none yet; otherwise [`Master::config`] says what there
    /// is.
    pub format: FsConfig,
    /// Every reply waits until its records are on the disk, not only in the kernel.
    pub sync_log: bool,
    /// Log bytes since the last checkpoint that bring the next; `None` is 64 MiB. A smaller value
    /// makes a start faster and costs writing.
    pub checkpoint_log_bytes: Option<u64>,
    /// What the process may take of the machine's memory, in bytes; at the limit nothing new is made.
    /// `None` is as much as there is. At least [`RAM_BYTES_MIN`].
    pub ram_bytes: Option<u64>,
    /// Called, on the failing thread, before the process ends because of a failure in here.
    pub before_abort: Option<AbortHook>,
}

/// Something to do before the process ends, such as detaching a mount; given the reason.
#[derive(Clone)]
pub struct AbortHook(pub Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for AbortHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AbortHook")
    }
}

/// Why a master cannot start. Each message names the file, and the way out where there is one.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    #[error("{}: {why}", dir.display())]
    Directory { dir: PathBuf, why: io::Error },
    /// Without room for the log nothing could be acknowledged.
    #[error("{0}; make room, then start again")]
    NoRoom(LogError),
    #[error("{0}")]
    Log(LogError),
    #[error("{0}")]
    LogOpen(LogOpenError),
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// No checkpoint can be loaded and the log no longer begins with the first record.
    #[error("{0}, and there is no older checkpoint; put the file back from a copy, or start empty")]
    NoCheckpoint(CheckpointError),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl From<LogError> for MasterError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::NoRoom { .. } => MasterError::NoRoom(error),
            LogError::Write { .. } | LogError::Broken { .. } | LogError::Sync(_) => {
                MasterError::Log(error)
            }
        }
    }
}

impl From<Fatal> for MasterError {
    fn from(error: Fatal) -> Self {
        match error {
            Fatal::Log(error) => error.into(),
            Fatal::Checkpoint(error) => error.into(),
        }
    }
}

impl From<LogOpenError> for MasterError {
    fn from(error: LogOpenError) -> Self {
        match error {
            LogOpenError::Write(error) => error.into(),
            LogOpenError::Read { .. }
            | LogOpenError::Damaged { .. }
            | LogOpenError::Missing { .. }
            | LogOpenError::BadId { .. }
            | LogOpenError::Replay { .. } => MasterError::LogOpen(error),
        }
    }
}

/// A running master. Dropped without [`Master::stop`] it ends as if it were killed, which loses
/// nothing that was acknowledged.
#[derive(Debug)]
pub struct Master {
    config: FsConfig,
    is_new: bool,
    inbox: Arc<Inbox>,
    turns: Arc<Turns>,
    pulse: Arc<Mutex<Pulse>>,
    metrics: Arc<Metrics>,
    certificates: Arc<Certificates>,
    inspector: Arc<Inspector>,
    thread: Option<JoinHandle<()>>,
}

impl Master {
    /// Restores the filesystem in `config.log_dir`, or makes it, and serves it.
    pub fn start(config: MasterConfig) -> Result<Master, MasterError> {
        let in_dir = |why| MasterError::Directory {
            dir: config.log_dir.clone(),
            why,
        };
        let disk = DirectoryDisk::open(&config.log_dir).map_err(in_dir)?;
        let host = Host::here().map_err(in_dir)?;
        Master::start_on(Arc::new(disk), config, host.boot_id)
    }

    fn start_on(
        disk: Arc<dyn Disk>,
        config: MasterConfig,
        boot_id: String,
    ) -> Result<Master, MasterError> {
        let in_dir = |why| MasterError::Directory {
            dir: config.log_dir.clone(),
            why,
        };
        let boot = Boot {
            id: boot_id,
            is_synced: config.sync_log,
        };
        let before = Boot::read(&*disk).map_err(in_dir)?;
        let checkpoint_bytes = config.checkpoint_log_bytes.unwrap_or(CHECKPOINT_LOG_BYTES);
        let segment_bytes = segment_bytes(checkpoint_bytes);
        let mut restored = restore::restore(&disk, &config.format, segment_bytes, keeper::now())?;
        restored.core.limit_ram(ram_limits(config.ram_bytes));
        let same_boot = restored.is_new || boot.has_everything(before.as_ref());
        let inbox = Arc::new(Inbox::default());
        let mut log = restored.log;
        let observer = inbox.clone();
        log.start_syncing(Box::new(move |outcome| observer.tell_synced(outcome)))
            .map_err(MasterError::Thread)?;
        let fs = restored.core.config().clone();
        let checkpoints = Checkpoints::new(disk.clone(), inbox.clone(), checkpoint_bytes);
        let options = KeeperOptions {
            inbox: inbox.clone(),
            sync_log: config.sync_log,
            same_boot,
            boot_note: BootNote {
                disk: disk.clone(),
                is_noted: before.as_ref() == Some(&boot),
                boot,
            },
        };
        let log: Box<dyn OpLog> = Box::new(log);
        let keeper = Keeper::begin(restored.core, log, checkpoints, options)?;
        let pulse = keeper.pulse();
        let turns = Arc::new(Turns::new(inbox.clone(), keeper, config.before_abort));
        let thread = spawn(turns.clone()).map_err(MasterError::Thread)?;
        let metrics = Arc::new(Metrics::default());
        let inspector = Arc::new(Inspector::new(turns.clone(), disk));
        Ok(Master {
            config: fs,
            is_new: restored.is_new,
            inbox,
            turns,
            pulse,
            metrics,
            certificates: Arc::default(),
            inspector,
            thread: Some(thread),
        })
    }

    /// What answers clients, volumes and operators, over any carrier and on any runtime.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(Dispatch::new(Desk {
            turns: self.turns.clone(),
            pulse: self.pulse.clone(),
            metrics: self.metrics.clone(),
            certificates: self.certificates.clone(),
            inspector: self.inspector.clone(),
        }))
    }

    /// The status tells of the master's own certificate when it ends soon.
    pub fn note_certificate(&self, own: &Identity) {
        self.certificates
            .note(own.role(), own.node(), own.not_after());
    }

    /// The status tells what the door has seen; the first one given counts.
    pub fn count_door(&self, counters: Arc<NetCounters>) {
        self.metrics.count_door(counters);
    }

    /// What was fixed when the filesystem was made.
    pub fn config(&self) -> &FsConfig {
        &self.config
    }

    /// True if this start made the filesystem.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Counts by operation since the start.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Ends when the master's thread has taken a turn: never if it hangs.
    pub async fn wait_turn(&self) {
        self.turns.wait_own_turn().await;
    }

    /// Puts everything on the disk, writes a checkpoint if the next start gains by it, and ends.
    /// Requests from now on, and those that wait, are answered `ShuttingDown`.
    pub fn stop(mut self) {
        self.end(Stop::Clean);
    }

    fn end(&mut self, how: Stop) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.inbox.stop(how);
        thread
            .join()
            .expect("the thread ends the process rather than panic");
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.end(Stop::Halt);
    }
}

/// Segments no longer than the log between two checkpoints, or a purge would free nothing; and long
/// enough for several turns.
fn segment_bytes(checkpoint_bytes: u64) -> u64 {
    checkpoint_bytes.clamp(2 * TURN_BYTES_MAX, LOG_SEGMENT_BYTES_MAX)
}

/// What is left for metadata, and for its copies while a checkpoint is written.
fn ram_limits(ram_bytes: Option<u64>) -> RamLimits {
    let Some(ram_bytes) = ram_bytes else {
        return RamLimits::NONE;
    };
    let total_bytes = ram_bytes.saturating_sub(PROCESS_BYTES);
    RamLimits {
        metadata_bytes: total_bytes - total_bytes / COPIES_FRACTION,
        total_bytes,
    }
}

/// Of this thread: what it does must not keep anybody waiting.
fn lower_priority() {
    const NICE: i32 = 10;
    // On Linux the calling thread's alone. Where it fails the thread is only in the way.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

fn spawn(turns: Arc<Turns>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("vdfs-master".to_owned())
        .spawn(move || turns.run())
}
