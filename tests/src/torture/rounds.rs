//! Rounds: all workers at once, then a look at both mounts, then the check.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{error, fmt, fs, io, thread};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::history::{Answer, Call, Name, Node, Record, Round};
use super::listing::{ListingFault, check_listings};
use super::search::{Verdict, search};
use super::snapshot::Snapshot;
use super::tree::Tree;
use super::worker::{Worker, contents};

/// Directories that a round may begin with: fewer leave little to move, more leave names alone.
const DIRECTORIES: std::ops::RangeInclusive<usize> = 3..=6;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// New rounds begin for so long.
    pub time: Duration,
    pub workers: usize,
    /// Calls of each worker in a round.
    pub calls: usize,
}

/// What a run without a violation has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub rounds: u64,
    pub calls: u64,
    /// Pairs of calls that went on at the same time, of different workers.
    pub overlaps: u64,
    /// Rounds whose search was given up.
    pub undecided: u64,
    /// Calls that failed because of what a kernel believed.
    pub gave_up: u64,
}

/// Something that one filesystem could not have shown.
#[derive(Debug)]
pub struct Violation {
    pub what: Fault,
    pub round: Option<Box<Round>>,
}

#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    /// No order of the calls explains their answers.
    Order,
    Listing(ListingFault),
    /// The mounts show different trees while nothing goes on.
    MountsDiffer(Vec<Tree>),
    /// A file does not contain its number, though whoever made it had returned.
    Contents(Node),
    /// The number of links is not the number of names.
    Links(Node),
    /// A call failed with an error that none of them may give.
    Error(i32),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)?;
        let records = self
            .round
            .iter()
            .flat_map(|round| round.records.iter().enumerate());
        for (index, record) in records {
            let Record {
                worker,
                call,
                begun,
                returned,
                answer,
            } = record;
            write!(
                f,
                "\n{index:3} worker {worker} {begun:9}..{returned:9} ns {call:?}: {answer:?}"
            )?;
        }
        Ok(())
    }
}

impl error::Error for Violation {}

impl From<io::Error> for Violation {
    fn from(error: io::Error) -> Self {
        Fault::Io(error).into()
    }
}

impl From<Fault> for Violation {
    fn from(what: Fault) -> Self {
        Violation { what, round: None }
    }
}

/// Runs rounds on one directory as each of the mounts shows it; it is emptied first.
pub fn run(dirs: &[PathBuf], plan: Plan) -> Result<Summary, Violation> {
    let begun = Instant::now();
    let mut summary = Summary::default();
    build(&dirs[0])?;
    while begun.elapsed() < plan.time {
        let before = look(dirs)?;
        check_mounts(&before)?;
        if !DIRECTORIES.contains(&before[0].directories.len()) {
            build(&dirs[0])?;
            continue;
        }
        let records = act(&before, plan, summary.rounds)?;
        let after = look(dirs)?;
        let round = Round {
            mounts: dirs.len(),
            before: before.into_iter().next().expect("one mount at least").tree,
            records,
            after: after[0].tree.clone(),
        };
        summary.count(&round);
        match check_mounts(&after).and_then(|()| check(&round)) {
            Ok(is_decided) => summary.undecided += u64::from(!is_decided),
            Err(what) => {
                let round = Some(Box::new(round));
                return Err(Violation { what, round });
            }
        }
    }
    Ok(summary)
}

impl Summary {
    fn count(&mut self, round: &Round) {
        self.rounds += 1;
        self.calls += round.records.len() as u64;
        let gave_up = round.records.iter().filter(|record| round.gave_up(record));
        self.gave_up += gave_up.count() as u64;
        for (index, record) in round.records.iter().enumerate() {
            let others = &round.records[..index];
            let overlaps = others.iter().filter(|other| other.overlaps(record));
            self.overlaps += overlaps.count() as u64;
        }
    }
}

/// False if the search was given up.
pub fn check(round: &Round) -> Result<bool, Fault> {
    for record in &round.records {
        check_error(round, record)?;
    }
    check_contents(round)?;
    check_listings(round).map_err(Fault::Listing)?;
    match search(round) {
        Verdict::Explained(_) => Ok(true),
        Verdict::Undecided => Ok(false),
        Verdict::Impossible => Err(Fault::Order),
    }
}

/// Of a removed directory a listing may say anything that a local filesystem does.
fn check_error(round: &Round, record: &Record) -> Result<(), Fault> {
    let Answer::Failed(errno) = record.answer else {
        return Ok(());
    };
    let may_give_up = round.met_a_moved_directory(record) || was_overtaken_twice(round, record);
    if round.gave_up(record) && may_give_up {
        return Ok(());
    }
    let is_known = match record.call {
        Call::List { .. } => errno == libc::ENOENT,
        _ => [
            libc::ENOENT,
            libc::EEXIST,
            libc::ENOTEMPTY,
            libc::ENOTDIR,
            libc::EISDIR,
            libc::EINVAL,
            libc::ELOOP,
            libc::EPERM,
        ]
        .contains(&errno),
    };
    match is_known {
        true => Ok(()),
        false => Err(Fault::Error(errno)),
    }
}

/// What the call found has ended before it could be used, and again when the kernel tried once more.
fn was_overtaken_twice(round: &Round, record: &Record) -> bool {
    let removals = round.records.iter().filter(|other| {
        let ended = match other.call {
            Call::Unlink { at } | Call::Rmdir { at } => vec![at],
            Call::Rename { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        };
        let is_own = ended.into_iter().any(|at| record.call.names(at));
        is_own && other.answer == Answer::Done && other.overlaps(record)
    });
    removals.count() >= 2
}

/// A file is whole for those who open it when the call that made it has returned.
fn check_contents(round: &Round) -> Result<(), Fault> {
    let made = |node: Node| {
        let makers = round.records.iter().filter(move |record| {
            let is_it = matches!(record.answer, Answer::File { node: made, .. } if made == node);
            is_it && matches!(record.call, Call::Create { .. })
        });
        makers.map(|record| record.returned).min()
    };
    for record in &round.records {
        let Answer::File { node, bytes } = record.answer else {
            continue;
        };
        let was_there = round.before.inode(node).is_some();
        let is_whole = was_there || made(node).is_some_and(|returned| returned < record.begun);
        if is_whole && bytes != contents(node).len() {
            return Err(Fault::Contents(node));
        }
    }
    Ok(())
}

/// What each mount shows.
fn look(dirs: &[PathBuf]) -> io::Result<Vec<Snapshot>> {
    dirs.iter().map(|dir| Snapshot::of(dir)).collect()
}

fn check_mounts(snapshots: &[Snapshot]) -> Result<(), Fault> {
    for snapshot in snapshots {
        if snapshot.tree != snapshots[0].tree {
            let trees = snapshots.iter().map(|snapshot| snapshot.tree.clone());
            return Err(Fault::MountsDiffer(trees.collect()));
        }
        check_files(snapshot)?;
    }
    Ok(())
}

fn check_files(snapshot: &Snapshot) -> Result<(), Fault> {
    for (node, bytes) in &snapshot.contents {
        if *bytes != contents(*node) {
            return Err(Fault::Contents(*node));
        }
    }
    for (node, links) in &snapshot.links {
        if snapshot.tree.links(*node) != Some(*links) {
            return Err(Fault::Links(*node));
        }
    }
    Ok(())
}

/// All workers at once; each worker is on the mount that its number gives it.
fn act(mounts: &[Snapshot], plan: Plan, round: u64) -> Result<Vec<Record>, Violation> {
    let mut workers = Vec::new();
    for number in 0..plan.workers {
        let seed = plan.seed << 40 ^ round << 8 ^ number as u64;
        let rng = StdRng::seed_from_u64(seed);
        let directories = &mounts[number % mounts.len()].directories;
        workers.push(Worker::new(number, directories, rng)?);
    }
    let barrier = Barrier::new(plan.workers);
    let start = Instant::now();
    let records = thread::scope(|scope| {
        let spawn = |worker: &mut Worker| {
            barrier.wait();
            worker.work(plan.calls, start)
        };
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(move || spawn(worker)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|records| records.expect("a worker does not panic"))
            .collect()
    });
    Ok(records)
}

/// Two directories, one of them with a third.
fn build(dir: &Path) -> io::Result<()> {
    for name in Name::all() {
        let path = dir.join(name.text());
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path)?,
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    fs::create_dir(dir.join("a"))?;
    fs::create_dir(dir.join("b"))?;
    fs::create_dir(dir.join("b").join("c"))
}
