//! What lies on the disk: is it whole, and what does it make.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use vdfs_proto::meta::Finding;

use super::{Checked, MetaError};
use crate::checkpoint::{self, CheckpointError};
use crate::core::Core;
use crate::disk::Disk;
use crate::log::{self, Cut, LogOpenError, ReplayError};

const BY_ITSELF: &str = "the master starts from another checkpoint, and puts the damaged one aside";
const GONE: &str = "put the file back from a copy";
const LOST: &str = "or load a dump into another state directory with: vdfs meta load";
const FLAWED: &str = "write down what there is with: vdfs meta dump, and report this as a bug";

/// The state that a start would restore, unless what is there makes none, and what was found on the
/// way. Checks more than a start does: all checkpoints, and the whole log behind the oldest.
pub(super) fn restore(disk: &Arc<dyn Disk>) -> Result<(Option<Core>, Checked), MetaError> {
    let all = checkpoint::list(&**disk)?;
    let mut checked = Checked {
        checkpoints: all.len() as u32,
        ..Checked::default()
    };
    let mut core = None;
    let mut oldest = None;
    let mut damaged = Vec::new();
    for &records in &all {
        // Only the newest is needed as a state.
        let outcome = match core.is_none() {
            true => checkpoint::load(disk, records).map(|loaded| core = Some(loaded)),
            false => checkpoint::verify(disk, records),
        };
        match outcome {
            Ok(()) => oldest = Some(records),
            Err(error) => damaged.push(error),
        }
    }
    let has_another = oldest.is_some();
    let damaged = damaged
        .iter()
        .map(|error| of_checkpoint(error, has_another));
    checked.findings.extend(damaged);
    let synced = all.first().copied().unwrap_or(0);
    let after = oldest.unwrap_or(0);
    let looked = log::look(&**disk, after, synced, &mut |record, bytes| {
        replay(&mut core, record, bytes)
    });
    match looked {
        Ok((_, cut)) => checked.notes.extend(cut.as_ref().map(of_cut)),
        Err(error) => {
            checked.findings.push(of_log(&error));
            core = None;
        }
    }
    Ok((core, checked))
}

/// A record that does not fit the state is a panic where it is applied.
fn replay(core: &mut Option<Core>, record: u64, bytes: &[u8]) -> Result<(), ReplayError> {
    let Some(state) = core else {
        *core = Some(Core::from_first_record(bytes)?);
        return Ok(());
    };
    if record <= state.records() {
        return Ok(());
    }
    let replayed = catch_unwind(AssertUnwindSafe(|| state.replay(bytes)));
    match replayed {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err("it does not fit the state before it".into()),
    }
}

/// Reads all checkpoints through, of a master that may be running.
pub(crate) fn check_checkpoints(disk: &Arc<dyn Disk>) -> Vec<Finding> {
    let all = match checkpoint::list(&**disk) {
        Ok(all) => all,
        Err(error) => return vec![of_checkpoint(&error, false)],
    };
    let bad = all.into_iter().filter_map(|records| {
        let error = checkpoint::verify(disk, records).err()?;
        // A newer one may have made it needless meanwhile.
        let is_there = checkpoint::list(&**disk).is_ok_and(|now| now.contains(&records));
        // Another is written before long.
        is_there.then(|| of_checkpoint(&error, true))
    });
    bad.collect()
}

/// Reads the log through, of a master that may be running: what is being written and removed at the
/// moment is no damage, which stays.
pub(crate) fn check_log(disk: &Arc<dyn Disk>) -> Vec<Finding> {
    let mut before = None;
    for _ in 0..LOOKS {
        let after = checkpoint::list(&**disk)
            .ok()
            .and_then(|all| all.last().copied());
        let looked = log::look(&**disk, after.unwrap_or(0), 0, &mut |_, _| Ok(()));
        let Err(error) = looked else {
            return Vec::new();
        };
        let finding = of_log(&error);
        if before.as_ref() == Some(&finding) {
            return vec![finding];
        }
        before = Some(finding);
        std::thread::sleep(LOOK_PAUSE);
    }
    before.into_iter().collect()
}

/// Damage is where it was at the look before; what is under way is elsewhere soon.
const LOOKS: u32 = 5;
const LOOK_PAUSE: std::time::Duration = std::time::Duration::from_millis(300);

/// An invariant of the state that does not hold.
pub(crate) fn flaw(what: String) -> Finding {
    Finding {
        what,
        way_out: FLAWED.to_owned(),
    }
}

fn of_checkpoint(error: &CheckpointError, has_another: bool) -> Finding {
    let way_out = match has_another {
        true => BY_ITSELF,
        false => GONE,
    };
    Finding {
        what: error.to_string(),
        way_out: way_out.to_owned(),
    }
}

fn of_log(error: &LogOpenError) -> Finding {
    Finding {
        what: error.to_string(),
        way_out: LOST.to_owned(),
    }
}

fn of_cut(cut: &Cut) -> String {
    format!(
        "{}: {} bytes from byte offset {} on were not synced before the last end ({}); the next start \
         cuts them off",
        cut.file, cut.bytes, cut.offset, cut.fault
    )
}
