//! A master with its state directory and its door.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use vdfs_net::identity::MASTER_NODE;
use vdfs_net::{Issuer, QuicConfig, QuicEndpoint, StateDir};
use vdfs_program::{Blame, Daemon, Failure};
use vdfs_proto::handshake::Role;
use vdfs_proto::limits::CHAIN_MEMBERS_MAX;
use vdfs_proto::{ChunkSize, ClusterId};

use super::{Options, PROGRAM};
use crate::core::FsConfig;
use crate::shell::{Master, MasterConfig};

/// How long replies that are begun may take when all stops.
const DOOR_WAIT: Duration = Duration::from_millis(500);

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Absolute.
    pub state: PathBuf,
    pub listen: SocketAddr,
    /// `None` takes that of the filesystem, or the default for a new one.
    pub chunk_size: Option<ChunkSize>,
    /// Likewise.
    pub replicas: Option<u32>,
    /// What the process may take of the machine's memory.
    pub ram_bytes: u64,
    pub sync_log: bool,
}

impl ServerConfig {
    /// `options` have the defaults filled in.
    pub(super) fn of(options: &Options) -> Result<ServerConfig, Failure> {
        let state = options.state.as_deref().expect("has a default");
        let chunk_size = options.chunk_size.map(|size| {
            ChunkSize::new(size.0).blame(format!(
                "chunk size {size}: a power of two from 64KiB to 256MiB"
            ))
        });
        Ok(ServerConfig {
            state: std::path::absolute(state).blame(state.display())?,
            listen: options.listen.expect("has a default"),
            chunk_size: chunk_size.transpose()?,
            replicas: replicas_of(options)?,
            ram_bytes: options.ram.expect("has a default").0,
            sync_log: options.sync_log.expect("has a default"),
        })
    }
}

/// A config file says any number.
fn replicas_of(options: &Options) -> Result<Option<u32>, Failure> {
    let asked = options.replicas;
    match asked.is_none_or(|asked| (1..=CHAIN_MEMBERS_MAX).contains(&(asked as usize))) {
        true => Ok(asked),
        false => Err(Failure::new("replicas", "must be from 1 to 3")),
    }
}

/// A master that runs, and can be reached.
#[derive(Debug)]
pub struct Server {
    door: QuicEndpoint,
    master: Master,
    /// Locked until the rest has ended.
    _state: StateDir,
}

impl Server {
    /// Restores the filesystem of the state directory, or makes it, and opens the door.
    pub fn start(config: &ServerConfig) -> Result<Server, Failure> {
        let state = StateDir::open(&config.state).map_err(Failure::of)?;
        let issuer = Issuer::open_or_make(&state).map_err(Failure::of)?;
        let identity = issuer.keep(Role::Master, MASTER_NODE, &state.identity());
        let identity = identity.map_err(Failure::of)?;
        let master = start_master(config, &state, issuer.cluster())?;
        master.note_certificate(&identity);
        let service = Some(master.service());
        let opened = QuicEndpoint::start(&identity, config.listen, service, QuicConfig::default());
        let door = opened.map_err(|error| {
            Failure::of(error).way_out("name another address or port with --listen IP:PORT")
        })?;
        master.count_door(door.counters().clone());
        state
            .write_addr(door.dialable_addr())
            .map_err(Failure::of)?;
        Ok(Server {
            door,
            master,
            _state: state,
        })
    }

    /// Where it can be reached from this machine.
    pub fn addr(&self) -> SocketAddr {
        self.door.dialable_addr()
    }
}

impl Daemon for Server {
    const PROGRAM: &'static str = PROGRAM;

    async fn wait_ready(&self) -> Result<String, Failure> {
        Ok(format!("master {}", self.addr()))
    }

    async fn wait_turn(&self) {
        self.master.wait_turn().await;
    }

    /// The door first, so that nobody new comes in; then everything is put on the disk.
    fn stop(self) {
        self.door.shutdown(DOOR_WAIT);
        self.master.stop();
    }
}

fn start_master(
    config: &ServerConfig,
    state: &StateDir,
    cluster: ClusterId,
) -> Result<Master, Failure> {
    let chunk_size = config.chunk_size.unwrap_or(ChunkSize::DEFAULT);
    let mut format = FsConfig::new(cluster, chunk_size);
    format.replicas = config.replicas;
    let master = Master::start(MasterConfig {
        log_dir: state.log(),
        format,
        sync_log: config.sync_log,
        checkpoint_log_bytes: None,
        ram_bytes: Some(config.ram_bytes),
        before_abort: None,
    });
    let master = master.map_err(Failure::of)?;
    match check_format(config, state, master.config(), cluster) {
        Ok(()) => Ok(master),
        Err(failure) => {
            master.stop();
            Err(failure)
        }
    }
}

fn check_format(
    config: &ServerConfig,
    state: &StateDir,
    found: &FsConfig,
    cluster: ClusterId,
) -> Result<(), Failure> {
    let failure = |error, way_out| {
        let failure = Failure::new(state.log().display(), error);
        Err(failure.way_out(way_out))
    };
    if let Err(error) = found.check(cluster, config.chunk_size) {
        let way_out = "name that with --chunk-size, or another directory with --state";
        return failure(error, way_out);
    }
    match found.check_replicas(config.replicas) {
        Ok(()) => Ok(()),
        Err(error) => failure(
            error,
            "start it without --replicas, and change that with: vdfs replicas set N",
        ),
    }
}
