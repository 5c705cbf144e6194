//! fsx for one mount or two of the same filesystem: random operations on a few files, each result
//! compared with a model in memory. One operation at a time, on one mount or the other.
//!
//! # The model
//!
//! What is on one mount is as on a local filesystem: a read sees every write before it, however it
//! was made (buffered, `O_DIRECT`, `O_APPEND`, `O_SYNC`, mapped and unmapped again).
//!
//! Between two mounts:
//!
//! 1. **Out.** A change is *out* when `fsync`, `fdatasync`, `msync` or the `close` of a handle for
//!    writing on its mount has returned; a write to an `O_SYNC`, `O_DIRECT` or `O_APPEND` handle,
//!    a truncation, `fallocate`, `copy_file_range` and a change of names are out when they have returned. A truncation from
//!    anywhere also gets the changes before it out, in the order in which they were made.
//! 2. **Open.** An open sees all that is out: so do, from then on, all handles and mappings of
//!    that file on that mount.
//! 3. **Direct.** A read through an `O_DIRECT` or `O_APPEND` handle sees all that is out, also
//!    through a handle that was opened before.
//! 4. **Stat.** So do the size and the link count.
//! 5. **Otherwise** each byte that is read is what the file has there, or what it had before a
//!    change of the other mount that the two rules above do not show yet. It is never anything else:
//!    not bytes of another place or another file. It is zero only in two places where it never was:
//!    where this mount has let the file grow over what it took for the end, and where the other
//!    one has cut the file off and this mount's kernel takes it for longer until its next open
//!    (then also through `O_DIRECT`, as the kernel goes on in its page cache behind a short read).
//!    A read is not shorter than the shortest size in question nor longer than the longest.
//! 6. A change that is not out may come out at any time, and in part.
//! 7. The end of the file, where `O_APPEND` writes go, is the true one.
//! 8. A file without a name goes on where it is open.
//! 9. A shared mapping may be refused (`ENODEV`) of an `O_APPEND` handle, and of one that was opened
//!    while another mount had the file open for writing, unless its own mount had it before.
//! 10. `copy_file_range` takes what is out and what its own mount has written. What `lseek` calls a
//!     hole has no byte of either.
//!
//! What the model says nothing about is not done ([`Obstacle`]): overlapping writes that are not
//! out on two mounts, two mounts that extend a file without getting it out, a mapping of a file
//! with changes that the mount may not have seen.
//!
//! # Replay
//!
//! Each run keeps the steps it did. They are written as one JSON value a line, can be run again
//! ([`run_steps`]) and be reduced to those that a failure needs ([`shrink()`]).

mod choose;
mod machine;
mod model;
mod object;
mod shrink;
mod step;

use std::path::PathBuf;

pub use choose::Limits;
pub use machine::{Failure, Mappings};
pub use model::Obstacle;
pub use shrink::shrink;
pub use step::{Access, Op, Step};

use choose::Chooser;
use machine::Machine;

/// What is run on.
#[derive(Clone, Debug)]
pub struct Target {
    /// One directory on each mount, all the same directory of one filesystem.
    pub dirs: Vec<PathBuf>,
    /// Prefix of the names of files.
    pub prefix: String,
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Number of operations.
    pub ops: u64,
    pub limits: Limits,
}

/// The end of a run.
#[derive(Debug)]
pub struct Outcome {
    pub steps: Vec<Step>,
    /// `None` if everything was as the model has it.
    pub failure: Option<Failure>,
    pub mappings: Mappings,
}

/// Does random steps until one fails or the plan is done. Removes its files if none has failed.
pub fn run(target: &Target, plan: Plan) -> Outcome {
    let mut chooser = Chooser::new(plan.seed, plan.limits, target.dirs.len());
    let mut machine = Machine::new(target, plan.limits.files);
    let mut steps = Vec::new();
    let mut failure = None;
    while failure.is_none() && (steps.len() as u64) < plan.ops {
        let step = chooser.choose(machine.models());
        steps.push(step);
        failure = machine.perform(steps.len() as u64, step).err();
    }
    if failure.is_none() {
        failure = machine.finish(steps.len() as u64).err();
    }
    Outcome {
        steps,
        failure,
        mappings: machine.mappings(),
    }
}

/// Does the given steps, leaving out those that cannot be done for want of others.
pub fn run_steps(target: &Target, steps: &[Step]) -> Result<(), Failure> {
    let files = steps.iter().map(|step| step.file + 1).max().unwrap_or(0);
    let mut machine = Machine::new(target, files);
    for step in steps {
        // The number decides which bytes are written, so it is part of the step.
        machine.perform(step.number, *step)?;
    }
    machine.finish(steps.len() as u64)
}
