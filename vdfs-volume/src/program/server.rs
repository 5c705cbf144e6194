//! A volume with its state directory and its door.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vdfs_net::{Identity, QuicConfig, QuicEndpoint, Rotation, StateDir, Target};
use vdfs_program::{Blame, Failure, Size, human};
use vdfs_proto::handshake::Role;

use super::Options;
use crate::PanicHook;
use crate::ram;
use crate::shell::{Volume, VolumeConfig};

/// How long replies that are begun may take when all stops.
const DOOR_WAIT: Duration = Duration::from_millis(500);
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
    /// `None` takes a quarter of the available memory.
    pub ram: Option<Size>,
    /// `None` takes the address at which others reach the volume.
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
        let door = QuicEndpoint::start(&identity, config.listen, None, QuicConfig::default());
        let door = door.map_err(|error| {
            Failure::of(error).way_out("name another address or port with --listen IP:PORT")
        })?;
        let addr = reachable(door.local_addr(), config.masters[0])?;
        let name = config.name.clone();
        let name = name.unwrap_or_else(|| identity.node().to_owned());
        let masters: Vec<Target> = config.masters.iter().map(master).collect();
        let carrier = Rotation::new(&*door.connector(), &masters);
        let volume_config = VolumeConfig {
            name: name.clone(),
            host: config.host.clone().unwrap_or_else(|| addr.ip().to_string()),
            ram_dir: state.ram(),
            budget_bytes: budget_bytes(config)?,
            addr,
            panic_hook: PanicHook::default(),
        };
        let volume = Volume::start(volume_config, Arc::new(carrier)).map_err(Failure::of)?;
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
    pub(super) fn ready_line(&self) -> String {
        let size = human(self.volume.usage().capacity_bytes);
        format!("volume {} {} {size}", self.name, self.addr)
    }

    /// Ends when the master has taken the volume in.
    pub async fn wait_registered(&self) {
        if !self.volume.wait_registered().await {
            std::future::pending::<()>().await;
        }
    }

    /// What keeps the master from taking the volume in.
    pub(super) fn why_unregistered(&self) -> String {
        let why = |target: &Target| {
            let why = self.door.last_failure(target);
            let why = why.unwrap_or_else(|| "has not taken the volume in yet".to_owned());
            format!("master {}: {why}", target.addr)
        };
        let all: Vec<String> = self.masters.iter().map(why).collect();
        all.join(", ")
    }

    /// The door first, so that nobody new comes in. The contents stay in RAM.
    pub fn stop(self) {
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

fn budget_bytes(config: &ServerConfig) -> Result<u64, Failure> {
    if let Some(Size(bytes)) = config.ram {
        return Ok(bytes);
    }
    let available = ram::available_bytes().blame("/proc/meminfo")?;
    Ok((available / 4) >> 20 << 20)
}

fn master(addr: &SocketAddr) -> Target {
    Target {
        addr: *addr,
        role: Role::Master,
        node: None,
    }
}

/// Where others reach what listens at `local`: for a wildcard, the address from which this machine
/// reaches the master.
fn reachable(local: SocketAddr, master: SocketAddr) -> Result<SocketAddr, Failure> {
    if !local.ip().is_unspecified() {
        return Ok(local);
    }
    let any: IpAddr = match master {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = || {
        let socket = UdpSocket::bind((any, 0))?;
        // Sends nothing: it only chooses the way.
        socket.connect(master)?;
        socket.local_addr()
    };
    let towards = probe().blame(format!("way to the master {master}"))?;
    Ok(SocketAddr::new(towards.ip(), local.port()))
}
