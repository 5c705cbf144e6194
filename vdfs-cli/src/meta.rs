//! `vdfs meta`: what operators do with the names of a filesystem as a whole.
//!
//! Of a master that runs, the master does it itself, on one instant of its state; of one that does not
//! run, its files are read here. Which of the two it is, the lock of the state directory says.

mod check;
mod dump;
mod load;
pub(crate) mod running;
pub(crate) mod slots;

use std::path::{Path, PathBuf};

use vdfs_net::StateDir;
use vdfs_net::state_dir::ReadLock;
use vdfs_program::Failure;

use crate::args::{ClusterArgs, MetaArgs, MetaCommand};
use crate::cluster::Cluster;
use crate::places;

pub(crate) fn run(args: &MetaArgs) -> Result<(), Failure> {
    match &args.command {
        MetaCommand::Check(args) => check::run(args),
        MetaCommand::Dump(args) => dump::run(args),
        MetaCommand::Load(args) => load::run(args),
    }
}

/// Where the names are.
#[derive(Debug)]
enum Names {
    /// In files that nobody else changes meanwhile.
    Files {
        log_dir: PathBuf,
        _lock: ReadLock,
    },
    Running(Cluster),
}

impl Names {
    fn find(args: &ClusterArgs) -> Result<Names, Failure> {
        let state = match (&args.state, args.master.is_empty()) {
            (Some(state), _) => state.clone(),
            (None, false) => return Ok(Names::Running(Cluster::find(args)?)),
            (None, true) => match Cluster::find(args) {
                Ok(cluster) => return Names::of_cluster(cluster),
                Err(_) => places::default_state()?,
            },
        };
        Names::of_state(&state, || Cluster::find(args))
    }

    /// The default one may be an `up` that does not run.
    fn of_cluster(cluster: Cluster) -> Result<Names, Failure> {
        let state = places::default_state()?;
        match cluster.identity.starts_with(&state) {
            true => Names::of_state(&state, || Ok(cluster.clone())),
            false => Ok(Names::Running(cluster)),
        }
    }

    fn of_state(
        state: &Path,
        cluster: impl Fn() -> Result<Cluster, Failure>,
    ) -> Result<Names, Failure> {
        let log_dir = state.join("log");
        match StateDir::read_lock(state).map_err(Failure::of)? {
            Some(lock) => Ok(Names::Files {
                log_dir,
                _lock: lock,
            }),
            None => Ok(Names::Running(cluster()?)),
        }
    }
}
