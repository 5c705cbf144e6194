//! From the files of a directory to a core and its log.

use std::sync::Arc;

use crate::checkpoint::{self, CheckpointError};
use crate::core::{Core, Now};
use crate::disk::Disk;
use crate::limits::TURN_BYTES_MAX;
use crate::log::{LocalLog, LogOpenError, LogOptions, OpLog, ReplayError};
use crate::shell::{FsConfig, MasterError};

/// A core as the log left it.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) core: Core,
    pub(crate) log: LocalLog,
    /// There was nothing: the filesystem is made now.
    pub(crate) is_new: bool,
}

/// Restores what is there, or makes a filesystem of `format`, whose first record is then durable.
/// What is there is restored on a full disk too, and can then be read.
pub(crate) fn restore(
    disk: &Arc<dyn Disk>,
    format: &FsConfig,
    segment_bytes: u64,
    now: Now,
) -> Result<Restored, MasterError> {
    checkpoint::remove_unfinished(&**disk)?;
    let loaded = load_newest(disk)?;
    let mut core = loaded.core;
    let after = core.as_ref().map_or(0, Core::records);
    let options = LogOptions {
        segment_bytes,
        after,
        synced: loaded.synced,
    };
    let opened = LocalLog::open(disk.clone(), options, &mut |_, record| {
        replay(&mut core, record)
    });
    let log = opened.map_err(|error| blame(error, loaded.damaged))?;
    // Also if the log alone was enough: as a generation, a damaged one would have it purged.
    for useless in loaded.useless {
        checkpoint::set_aside(&**disk, useless)?;
    }
    if let Some(cut) = log.cut() {
        tracing::warn!(
            file = cut.file, off = cut.offset, len = cut.bytes, why = %cut.fault,
            "cut off what the log had not synced before the crash"
        );
    }
    let Some(core) = core else {
        return make(log, format, now);
    };
    assert_eq!(core.records(), log.records(), "every record was replayed");
    Ok(Restored {
        core,
        log,
        is_new: false,
    })
}

fn replay(core: &mut Option<Core>, record: &[u8]) -> Result<(), ReplayError> {
    match core {
        Some(core) => core.replay(record)?,
        None => *core = Some(Core::from_first_record(record)?),
    }
    Ok(())
}

fn make(mut log: LocalLog, format: &FsConfig, now: Now) -> Result<Restored, MasterError> {
    log.reserve(TURN_BYTES_MAX)?;
    let (core, first) = Core::format(format.clone(), now);
    log.append(&[first])?;
    log.flush()?;
    assert_eq!(
        core.records(),
        log.records(),
        "a new filesystem has one record"
    );
    Ok(Restored {
        core,
        log,
        is_new: true,
    })
}

/// The newest checkpoint that can be loaded.
struct Loaded {
    core: Option<Core>,
    /// The log was synced up to here when the newest checkpoint, damaged or not, got its name.
    synced: u64,
    /// Why newer ones cannot be loaded.
    damaged: Option<CheckpointError>,
    /// Which these are.
    useless: Vec<u64>,
}

fn load_newest(disk: &Arc<dyn Disk>) -> Result<Loaded, MasterError> {
    let all = checkpoint::list(&**disk)?;
    let synced = all.first().copied().unwrap_or(0);
    let (mut core, mut damaged, mut useless) = (None, None, Vec::new());
    for records in all {
        match checkpoint::load(disk, records) {
            Ok(loaded) => {
                core = Some(loaded);
                break;
            }
            Err(error) => {
                tracing::warn!(%error, "a checkpoint cannot be loaded, trying the one before");
                damaged = Some(error);
                useless.push(records);
            }
        }
    }
    Ok(Loaded {
        core,
        synced,
        damaged,
        useless,
    })
}

/// Without a checkpoint the log alone goes back to the first record only if nothing was purged.
fn blame(error: LogOpenError, damaged: Option<CheckpointError>) -> MasterError {
    match (error, damaged) {
        (LogOpenError::Missing { .. }, Some(damaged)) => MasterError::NoCheckpoint(damaged),
        (error, _) => error.into(),
    }
}
