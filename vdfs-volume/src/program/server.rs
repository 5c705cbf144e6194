//! A volume with its state directory and its door.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdfs_net::buffers;
use vdfs_net::{Identity, QuicConfig, QuicEndpoint, Rotation, StateDir, Target};
use vdfs_program::{Blame, Daemon, Failure, Size, human, notify};
use vdfs_proto::handshake::Role;

use super::{Options, PROGRAM};
use crate::limits;
use crate::ram::{self, Ram};
use crate::shell::{Registration, Volume, VolumeConfig};
use crate::{PanicHook, PeerWays};

/// How long replies that are begun may take when all stops.
const DOOR_WAIT: Duration = Duration::from_millis(500);
/// A master that takes longer to answer is spoken of.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const ISSUE: &str = "make one where the master's state is: vdfs cert issue --ca MASTER_STATE \
    --role volume --name NAME --out DIR";

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Absolute.
    pub state: PathBuf,
    pub identity: PathBuf,
    /// Not empty.
    pub masters: Vec<SocketAddr>,
    pub listen: SocketAddr,
    /// `None` takes what [`budget_bytes`] finds.
    pub ram: Option<Size>,
    /// `None` sets none.
    pub copy_rate: Option<NonZeroU64>,
    /// `None` takes the address at which the master sees the volume.
    pub host: Option<String>,
    /// `None` takes the name in the certificate.
    pub name: Option<String>,
}

impl ServerConfig {
    /// `options` have the defaults filled in.
    pub(super) fn of(options: &Options) -> Result<ServerConfig, Failure> {
        let state = options.state.as_deref().expect("has a default");
        let Some(masters) = options.master.as_deref().filter(|all| !all.is_empty()) else {
            return Err(Failure::new("master", "not named")
                .way_out("name it with --master HOST[:PORT], or in /etc/vdfs/volume.toml"));
        };
        Ok(ServerConfig {
            state: std::path::absolute(state).blame(state.display())?,
            identity: options.identity.clone().expect("has a default"),
            masters: vdfs_program::masters::resolve(masters)?,
            listen: options.listen.expect("has a default"),
            ram: options.ram,
            copy_rate: options.copy_rate.map(copy_rate).transpose()?,
            host: options.host.clone(),
            name: options.name.clone(),
        })
    }
}

/// A volume that runs, and can be reached.
#[derive(Debug)]
pub struct Server {
    name: String,
    addr: SocketAddr,
    masters: Vec<Target>,
    door: QuicEndpoint,
    volume: Volume,
    /// Locked until the rest has ended.
    _state: StateDir,
}

impl Server {
    /// Brings the RAM back, or makes it, and opens the door; registers in the background.
    pub fn start(config: &ServerConfig) -> Result<Server, Failure> {
        let state = StateDir::open(&config.state).map_err(Failure::of)?;
        let identity = load_identity(config)?;
        let budget_bytes = budget_bytes(config, &state)?;
        let payloads_bytes = limits::payloads_bytes(budget_bytes);
        buffers::keep_at_most(payloads_bytes / 2);
        let tuning = QuicConfig {
            payloads_bytes,
            ..QuicConfig::default()
        };
        let door = QuicEndpoint::start(&identity, config.listen, None, tuning);
        let door = door.map_err(|error| {
            Failure::of(error).way_out("name another address or port with --listen IP:PORT")
        })?;
        let addr = door.dialable_addr();
        let name = config.name.clone();
        let name = name.unwrap_or_else(|| identity.node().to_owned());
        let masters: Vec<Target> = config.masters.iter().map(master).collect();
        let carrier = Rotation::new(&*door.connector(), &masters);
        let volume_config = VolumeConfig {
            name: name.clone(),
            host: config.host.clone().unwrap_or_default(),
            ram_dir: state.ram(),
            budget_bytes,
            copy_rate: config.copy_rate,
            addr,
            panic_hook: PanicHook::default(),
        };
        let ways = PeerWays {
            connector: door.connector(),
            tasks: Some(door.runtime()),
            master: config.masters[0].ip(),
        };
        let volume = Volume::start(volume_config, Arc::new(carrier), ways).map_err(Failure::of)?;
        volume.count_door(door.counters().clone());
        door.set_service(volume.service());
        state.write_addr(addr).map_err(Failure::of)?;
        Ok(Server {
            name,
            addr,
            masters,
            door,
            volume,
            _state: state,
        })
    }

    /// `volume NAME ADDR SIZE`
    fn line(&self) -> String {
        let size = human(self.volume.usage().capacity_bytes);
        format!("volume {} {} {size}", self.name, self.addr)
    }

    /// What keeps the master from taking the volume in.
    fn why_waiting(&self) -> String {
        let why = |target: &Target| {
            let failure = self.door.last_failure(target).map(|failure| failure.why);
            let refusal = self.volume.refusal().map(|status| status.to_string());
            let why = refusal.filter(|_| failure.is_none()).or(failure);
            let why = why.unwrap_or("no answer yet".to_owned());
            format!("master {}: {why}", target.addr)
        };
        let all: Vec<String> = self.masters.iter().map(why).collect();
        all.join(", ")
    }

    /// Tells once that there is no master yet; ends when all refuse.
    async fn wait_refused(&self) -> Failure {
        let begun = Instant::now();
        let mut has_told = false;
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            if self.door.is_refused_by(&self.masters) {
                let why = self.why_waiting();
                return Failure::of(why).way_out("see vdfs cert show for whose certificate it is");
            }
            if !has_told && begun.elapsed() > PATIENCE {
                has_told = true;
                let why = self.why_waiting();
                eprintln!("{PROGRAM}: {why}; waiting");
                notify::status(&format!("waiting: {why}"));
            }
        }
    }
}

impl Daemon for Server {
    const PROGRAM: &'static str = PROGRAM;

    async fn wait_ready(&self) -> Result<String, Failure> {
        let registration = tokio::select! {
            registration = self.volume.wait_registered() => registration,
            failure = self.wait_refused() => return Err(failure),
        };
        match registration {
            Registration::Refused { why } => {
                Err(Failure::new(format!("volume {}", self.name), why))
            }
            Registration::Done | Registration::Waiting(_) => Ok(self.line()),
        }
    }

    async fn wait_turn(&self) {
        self.volume.wait_turn().await;
    }

    /// The door first, so that nobody new comes in. The contents stay in RAM.
    fn stop(self) {
        self.door.shutdown(DOOR_WAIT);
        self.volume.stop();
    }
}

fn load_identity(config: &ServerConfig) -> Result<Identity, Failure> {
    let dir = &config.identity;
    if !dir.exists() {
        return Err(Failure::new(dir.display(), "no identity there").way_out(ISSUE));
    }
    let identity = Identity::load(dir).map_err(Failure::of)?;
    match identity.role() {
        Role::Volume => Ok(identity),
        other => {
            let why = format!("the certificate is a {}'s, not a volume's", other.as_str());
            Err(Failure::new(dir.display(), why).way_out(ISSUE))
        }
    }
}

/// What is asked for, else the whole of a tmpfs that is there, else a quarter of what can be had.
fn budget_bytes(config: &ServerConfig, state: &StateDir) -> Result<u64, Failure> {
    if let Some(Size(bytes)) = config.ram {
        return Ok(bytes);
    }
    if let Some(bytes) = Ram::mounted_bytes(&state.ram()).map_err(Failure::of)? {
        return Ok(bytes);
    }
    let available = vdfs_program::available_bytes().blame("/proc/meminfo")?;
    let quarter = (available + ram::in_use_bytes(&state.ram())) / 4;
    Ok(quarter >> 20 << 20)
}

fn copy_rate(Size(bytes): Size) -> Result<NonZeroU64, Failure> {
    NonZeroU64::new(bytes).ok_or_else(|| {
        Failure::new("copy-rate", "nothing would ever be copied").way_out(
            "name what copies may take a second, as in --copy-rate 200MiB, or leave it out",
        )
    })
}

fn master(addr: &SocketAddr) -> Target {
    Target {
        addr: *addr,
        role: Role::Master,
        node: None,
    }
}
