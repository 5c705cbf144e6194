//! `vdfs up`: a whole filesystem in one process.
//!
//! Owns the order in which its parts start and stop: state directory, identities, RAM, master,
//! volumes, client, mount; and back. The parts talk to one another through a [`Switchboard`]
//! (same process, no network); everybody else reaches the same services over QUIC.
//!
//! Invariants: nothing of a running or a refused `up` is touched by another; the ready line is
//! printed only when the mount answers; a start that fails leaves no mount behind.
//!
//! [`Switchboard`]: vdfs_net::in_process::Switchboard

mod fresh;
mod mounted;
pub(crate) mod mountpoint;
mod parameters;
mod run;
mod servers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use vdfs_client::{ClientConfig, Fs};
use vdfs_fuse::{KernelNotifier, Mount, MountOptions, Unmounted};
use vdfs_net::host::Host;
use vdfs_net::{StateDir, StateError};
use vdfs_proto::ChunkSize;

use crate::args::UpArgs;
use crate::places;
use mounted::Mounted;
use parameters::{Memory, Parameters, Wishes};
use servers::{Doors, Plan, Servers, volume_node};
use vdfs_program::{Blame, Failure, Size, human};
use vdfs_volume::ram;

pub(crate) use fresh::destroy;
pub(crate) use run::run;

/// How long a mount may take to let go before it is detached.
const UNMOUNT_WAIT: Duration = Duration::from_secs(2);
/// How long dirty data may take to reach the volumes when all stops.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// How long the first contact of client and master may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// What to start; `None` takes what was in force before, or the default.
#[derive(Clone, Debug)]
pub struct UpConfig {
    pub dir: PathBuf,
    pub state: PathBuf,
    pub ram: Option<Size>,
    pub volumes: Option<u32>,
    pub chunk_size: Option<ChunkSize>,
    /// Start empty.
    pub fresh: bool,
    /// Where others reach the master; volumes take the ports behind it. `None` is 127.0.0.1 and the
    /// ports of the last start, or free ones.
    pub listen: Option<SocketAddr>,
}

impl UpConfig {
    pub(crate) fn from_args(args: UpArgs) -> Result<UpConfig, Failure> {
        let state = match args.state {
            Some(state) => std::path::absolute(&state).blame(state.display())?,
            None => places::default_state()?,
        };
        Ok(UpConfig {
            dir: places::absolute_mountpoint(&args.dir)?,
            state,
            ram: args.ram,
            volumes: args.volumes,
            chunk_size: args.chunk_size,
            fresh: args.fresh,
            listen: args.listen,
        })
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            dir: self.dir.clone(),
            ram: self.ram,
            volumes: self.volumes,
            chunk_size: self.chunk_size,
        }
    }
}

/// A filesystem that runs in this process and is mounted.
#[derive(Debug)]
pub struct Up {
    parameters: Parameters,
    mount: Mount,
    fs: Fs,
    servers: Servers,
    runtime: Runtime,
    state: StateDir,
}

/// What a stop has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    pub dir: PathBuf,
    /// Processes that kept the mount busy; it was detached from under them.
    pub busy: Vec<String>,
    /// Why some files were not flushed.
    pub not_flushed: Option<String>,
    /// What the files hold of the RAM.
    pub ram_bytes: u64,
}

impl Up {
    /// Starts everything; the mount answers when this returns. Blocks, so it must not be called
    /// within a runtime.
    pub fn start(config: &UpConfig) -> Result<Up, Failure> {
        let state = lock_state(config)?;
        let config = &UpConfig {
            dir: mountpoint::prepare(&config.dir)?,
            ..config.clone()
        };
        let parameters = settle_parameters(config, &state)?;
        let runtime = start_runtime()?;
        let mounted = Mounted::default();
        let plan = Plan {
            state: &state,
            parameters: &parameters,
            doors: Doors::choose(config.listen, state.path()),
            mounted: &mounted,
        };
        let servers = Servers::start(&plan)?;
        state
            .write_addr(servers.master_addr())
            .map_err(Failure::of)?;
        let (fs, mount) = match mount(&parameters, &servers, &runtime) {
            Ok(mount) => mount,
            Err(failure) => {
                servers.stop();
                return Err(failure);
            }
        };
        mounted.set(mount.detacher());
        places::remember(&parameters.dir, state.path());
        Ok(Up {
            parameters,
            mount,
            fs,
            servers,
            runtime,
            state,
        })
    }

    /// `ready DIR SIZE, stop with Ctrl-C or: vdfs down DIR`
    pub fn ready_line(&self) -> String {
        let dir = self.parameters.dir.display();
        let size = human(self.parameters.ram.0);
        format!("ready {dir} {size}, stop with Ctrl-C or: vdfs down {dir}")
    }

    /// Files whose bytes were in RAM that is gone, and how many bytes; (0, 0) as a rule.
    pub fn lost(&self) -> Result<(u64, u64), Failure> {
        loop {
            let report = self.runtime.block_on(self.fs.status()).blame("status")?;
            if report.is_counted {
                return Ok((report.lost_files, report.lost_bytes));
            }
        }
    }

    /// Flushes, unmounts and ends everything, within 10 s; what cannot be flushed or unmounted by
    /// then is told.
    pub fn stop(self) -> Stopped {
        let Up {
            parameters,
            mount,
            fs,
            servers,
            runtime,
            state,
        } = self;
        let busy = match mount.unmount(UNMOUNT_WAIT) {
            Unmounted::Detached { holders } => holders.iter().map(ToString::to_string).collect(),
            Unmounted::Clean | Unmounted::Gone => Vec::new(),
        };
        let flushed = runtime.block_on(fs.shutdown(FLUSH_WAIT));
        drop(fs);
        servers.stop();
        runtime.shutdown_background();
        Stopped {
            dir: parameters.dir,
            busy,
            not_flushed: flushed.err().map(|error| error.to_string()),
            ram_bytes: ram::in_use_bytes(&state.ram()),
        }
    }
}

/// Where the filesystem of a state directory is, or was last, mounted.
pub(crate) fn mounted_dir(state: &Path) -> Result<Option<PathBuf>, Failure> {
    Ok(Parameters::load(state)?.map(|parameters| parameters.dir))
}

fn lock_state(config: &UpConfig) -> Result<StateDir, Failure> {
    StateDir::open(&config.state).map_err(|error| match error {
        StateError::InUse { pid: Some(pid), .. } => {
            let dir = mounted_dir(&config.state).ok().flatten();
            let dir = dir.unwrap_or_else(|| config.dir.clone());
            let why = format!("already running as pid {pid} on {}", dir.display());
            Failure::new(config.state.display(), why)
                .way_out(format!("stop it with: vdfs down {}", dir.display()))
        }
        other => Failure::of(other),
    })
}

/// Decides what to run with, sets the old files aside if asked, and notes the decision.
fn settle_parameters(config: &UpConfig, state: &StateDir) -> Result<Parameters, Failure> {
    let in_use = ram::in_use_bytes(&state.ram());
    let memory = Memory {
        available: vdfs_program::available_bytes().blame("/proc/meminfo")?,
        in_use,
    };
    if !config.fresh {
        // Without a log nothing has been made yet: an earlier start did not get so far.
        let old = if state.log().exists() {
            Parameters::load(state.path())?
        } else {
            None
        };
        let parameters = Parameters::resolve(old.clone(), &config.wishes(), memory)?;
        if let Some(old) = old {
            check_shares(&old, &parameters, state)?;
        }
        parameters.save(state.path())?;
        return Ok(parameters);
    }
    let emptied = Memory {
        available: memory.available + in_use,
        in_use: 0,
    };
    let parameters = Parameters::resolve(None, &config.wishes(), emptied)?;
    fresh::set_aside(state)?;
    parameters.save(state.path())?;
    Ok(parameters)
}

/// What each volume holds must fit its share, if that has become smaller.
fn check_shares(old: &Parameters, new: &Parameters, state: &StateDir) -> Result<(), Failure> {
    if new.volume_budget_bytes() >= old.volume_budget_bytes() {
        return Ok(());
    }
    for node in (1..=old.volumes).map(volume_node) {
        let held = ram::in_use_bytes(&state.ram().join(&node));
        if held > new.volume_budget_bytes() {
            let share = human(new.volume_budget_bytes());
            let why = format!("{node} holds {} and would get {share}", human(held));
            return Err(Failure::new(format!("--ram {}", new.ram), why)
                .way_out("ask for more RAM, or for fewer new volumes"));
        }
    }
    Ok(())
}

fn start_runtime() -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .thread_name("client")
        .enable_all()
        .build()
        .blame("runtime")
}

fn mount(
    parameters: &Parameters,
    servers: &Servers,
    runtime: &Runtime,
) -> Result<(Fs, Mount), Failure> {
    let kernel_cache = KernelNotifier::start().blame("threads of the mount")?;
    runtime.block_on(servers.wait_for_volumes())?;
    let fs = runtime.block_on(connect(parameters, servers, kernel_cache.clone()))?;
    let source = servers.master_addr().to_string();
    let options = MountOptions::new(parameters.dir.clone(), source, kernel_cache);
    let mount = Mount::start(fs.clone(), options, runtime.handle().clone()).map_err(Failure::of)?;
    Ok((fs, mount))
}

async fn connect(
    parameters: &Parameters,
    servers: &Servers,
    kernel_cache: Arc<KernelNotifier>,
) -> Result<Fs, Failure> {
    let host = Host::here().blame("/proc")?.name;
    let mount = parameters.dir.display().to_string();
    let config = ClientConfig {
        // The same wherever it is mounted: a start after a kill ends the old session at once.
        identity: "up".to_owned(),
        host,
        mount,
        master: vec![servers.master_target()],
        connector: servers.client_connector(),
        timeout: None,
        kernel_cache,
        read_only: false,
    };
    match tokio::time::timeout(CONNECT_WAIT, Fs::connect(config)).await {
        Ok(connected) => connected.blame("session at the master"),
        Err(_) => Err(Failure::new("session at the master", "not opened in time")),
    }
}
