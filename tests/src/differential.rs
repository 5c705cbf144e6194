//! Random namespace and attribute calls, made at once on a filesystem of this machine and on VDFS, by
//! root and by two ordinary users, and compared: the result or the error of each call, and what
//! every inode that it names looks like afterwards.
//!
//! # What must agree
//!
//! The error number of each call and what it gives; type, mode, owners, link count, device number,
//! size (but of directories), target and extended attributes with ACLs of each name in the call and
//! of the directories above; whether the call has moved `mtime` and `ctime`, and times that were set.
//!
//! # What need not
//!
//! Sizes of directories, inode numbers, times themselves, the order of listings, `f_type` and room;
//! access times, which reads move. Not called, or not looked at:
//! - what VDFS does not have (`O_TMPFILE`, `RENAME_WHITEOUT`);
//! - `setxattr(2)` with both flags, which contradict each other (`EINVAL` here);
//! - `chown(2)` of neither owner nor group, of which FUSE makes no change at all;
//! - truncations to the size that the file has: a tmpfs leaves its times, a disk's filesystem does not;
//! - changes of a directory, pipe or device that is open and has no name: it has ended;
//! - sgid of a file that its group may not execute: FUSE leaves it to writers outside the group.
//!
//! Each write is synced: what stays in memory has no place in the namespace.
//!
//! On two mounts each call goes to one of them at random. Handles stay on the mount where they were
//! opened, and are not read through: what an open handle sees of the other mount's writes is the
//! matter of [`crate::fsx2`].

mod call;
mod choose;
mod look;
mod side;

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub use call::{Call, Persona, Step, TimeArg};

use choose::Chooser;
use look::Look;
use side::{Outcome, Side};

/// What is compared.
#[derive(Clone, Debug)]
pub struct Target {
    /// A directory on a filesystem that is right.
    pub reference: PathBuf,
    /// One directory on each mount, all the same directory.
    pub dirs: Vec<PathBuf>,
}

/// The first step after which the two differ.
#[derive(Debug)]
pub struct Difference {
    pub steps: Vec<Step>,
    reference: String,
    vdfs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "  {step:?}")?;
        }
        writeln!(f, "  reference: {}", self.reference)?;
        write!(f, "  vdfs:      {}", self.vdfs)
    }
}

/// Makes `count` random calls in fresh directories. The steps of a difference are reduced to those
/// that it needs.
pub fn run(target: &Target, seed: u64, count: usize) -> Result<(), Difference> {
    let mut chooser = Chooser::new(seed, target.dirs.len());
    let steps: Vec<Step> = (0..count).map(|_| chooser.step()).collect();
    run_steps(target, &format!("{seed}"), &steps).map_err(|first| shrink(target, seed, first))
}

/// Makes the given calls in a directory of this name on both sides.
fn run_steps(target: &Target, name: &str, steps: &[Step]) -> Result<(), Difference> {
    let mut reference = Side::new(vec![fresh(&target.reference, name)]);
    let first = fresh(&target.dirs[0], name);
    let rest = target.dirs[1..].iter().map(|dir| inner(dir, name));
    let mut vdfs = Side::new(std::iter::once(first).chain(rest).collect());
    for (at, step) in steps.iter().enumerate() {
        wait_for_tick();
        let (expected, found) = (take(&mut reference, step), take(&mut vdfs, step));
        if expected != found {
            return Err(Difference {
                steps: steps[..=at].to_vec(),
                reference: format!("{expected:?}"),
                vdfs: format!("{found:?}"),
            });
        }
    }
    drop((reference, vdfs));
    for dir in [&target.reference, &target.dirs[0]] {
        fs::remove_dir_all(dir.join(name)).expect("root can remove everything");
    }
    Ok(())
}

/// Waits until the clock that a tmpfs takes times from has moved: what is changed now shows it.
fn wait_for_tick() {
    let coarse = || clock_gettime(ClockId::RealtimeCoarse);
    let before = coarse();
    while coarse() == before {
        thread::sleep(Duration::from_micros(300));
    }
}

fn take(side: &mut Side, step: &Step) -> (Outcome, Vec<Option<Look>>) {
    let outcome = side.perform(step);
    let paths = step.call.touched();
    let sets_times = matches!(step.call, Call::Utimens { .. });
    let looks = paths
        .iter()
        .enumerate()
        .map(|(at, path)| side.look(step.mount, path, sets_times && at == 0));
    (outcome, looks.collect())
}

/// A new directory in which anybody may do anything, within one that is as new: a `..` of it is the
/// same on both sides.
fn fresh(dir: &Path, name: &str) -> PathBuf {
    let (outer, inner) = (dir.join(name), inner(dir, name));
    if outer.exists() {
        fs::remove_dir_all(&outer).expect("root can remove everything");
    }
    for dir in [&outer, &inner] {
        fs::create_dir(dir).expect("makes a directory");
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    inner
}

fn inner(dir: &Path, name: &str) -> PathBuf {
    dir.join(name).join("inner")
}

/// Leaves out whatever the difference does not need.
fn shrink(target: &Target, seed: u64, first: Difference) -> Difference {
    let mut best = first;
    let mut attempt = 0;
    let mut len = best.steps.len() / 2;
    while len > 0 {
        let mut end = best.steps.len();
        while end > 0 {
            let start = end.saturating_sub(len);
            let rest = [&best.steps[..start], &best.steps[end..]].concat();
            attempt += 1;
            if let Err(shorter) = run_steps(target, &format!("{seed}-{attempt}"), &rest) {
                best = shorter;
            }
            end = start.min(best.steps.len());
        }
        len /= 2;
    }
    best
}
