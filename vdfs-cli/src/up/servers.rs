//! The serving parts of an `up`: one master, its volumes, and the doors through which others come.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vdfs_master::format::FormatError;
use vdfs_master::{AbortHook, FsConfig, Master, MasterConfig};
use vdfs_net::host::Host;
use vdfs_net::identity::MASTER_NODE;
use vdfs_net::in_process::Switchboard;
use vdfs_net::{
    Connector, Identity, Issuer, PeerIdentity, QuicConfig, QuicEndpoint, Service, StateDir, Target,
};
use vdfs_proto::ClusterId;
use vdfs_proto::handshake::Role;
use vdfs_volume::{PanicHook, PeerWays, Ram, Volume, VolumeConfig};

use super::mounted::Mounted;
use super::parameters::Parameters;
use crate::state_files;
use vdfs_program::{Blame, Failure};

/// How long replies to others may take when all stops.
const DOOR_WAIT: Duration = Duration::from_millis(500);
/// How long the volumes may take to register.
const REGISTER_WAIT: Duration = Duration::from_secs(10);

/// What the servers of an `up` are made from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) state: &'a StateDir,
    pub(super) parameters: &'a Parameters,
    pub(super) doors: Doors,
    /// Detached before a panic of a server ends the process.
    pub(super) mounted: &'a Mounted,
}

#[derive(Debug)]
pub(super) struct Servers {
    cluster: ClusterId,
    switchboard: Switchboard,
    volumes: Vec<Volume>,
    master: Master,
    doors: Vec<QuicEndpoint>,
    master_addr: SocketAddr,
}

impl Servers {
    /// Starts all; the volumes register in the background.
    pub(super) fn start(plan: &Plan<'_>) -> Result<Servers, Failure> {
        let issuer = Issuer::open_or_make(plan.state).map_err(Failure::of)?;
        let master = plan.start_master(issuer.cluster())?;
        Ram::open(&plan.state.ram(), plan.parameters.ram.0).map_err(Failure::of)?;
        let identity = issuer.keep(Role::Master, MASTER_NODE, &plan.state.identity());
        let identity = identity.map_err(Failure::of)?;
        master.note_certificate(&identity);
        let door = plan
            .doors
            .open(0, &identity, Some(master.service()), QuicConfig::default())?;
        master.count_door(door.counters().clone());
        let doors = plan.doors.behind(door.local_addr());
        let switchboard = Switchboard::default();
        switchboard.attach(Role::Master, MASTER_NODE, master.service());
        let mut servers = Servers {
            cluster: issuer.cluster(),
            switchboard,
            volumes: Vec::new(),
            master,
            master_addr: door.dialable_addr(),
            doors: vec![door],
        };
        for number in 1..=plan.parameters.volumes {
            let node = volume_node(number);
            let dir = state_files::volume_identity(plan.state, &node);
            let identity = issuer
                .keep(Role::Volume, &node, &dir)
                .map_err(Failure::of)?;
            let door = doors.open(number, &identity, None, plan.volume_tuning())?;
            servers.start_volume(plan, identity.node(), door)?;
        }
        Ok(servers)
    }

    fn start_volume(
        &mut self,
        plan: &Plan<'_>,
        node: &str,
        door: QuicEndpoint,
    ) -> Result<(), Failure> {
        let config = plan.volume_config(node, door.local_addr())?;
        let connector = self.connector(Role::Volume, node);
        let master = connector.carrier(&self.master_target());
        let ways = PeerWays {
            connector,
            tasks: None,
            master: self.master_addr.ip(),
        };
        let volume = Volume::start(config, master, ways).map_err(Failure::of)?;
        volume.count_door(door.counters().clone());
        door.set_service(volume.service());
        self.switchboard
            .attach(Role::Volume, node, volume.service());
        self.volumes.push(volume);
        self.doors.push(door);
        Ok(())
    }

    /// Returns when the master knows all volumes, and so what they still hold.
    pub(super) async fn wait_for_volumes(&self) -> Result<(), Failure> {
        let registered = async {
            for volume in &self.volumes {
                volume.wait_registered().await;
            }
        };
        tokio::time::timeout(REGISTER_WAIT, registered)
            .await
            .map_err(|_| Failure::new("volumes", "not all have registered with the master in time"))
    }

    /// Ends when the master has taken a turn: never if it hangs.
    pub(super) async fn wait_turn(&self) {
        self.master.wait_turn().await;
    }

    pub(super) fn master_addr(&self) -> SocketAddr {
        self.master_addr
    }

    pub(super) fn master_target(&self) -> Target {
        let node = Some(MASTER_NODE.to_owned());
        Target {
            addr: self.master_addr,
            role: Role::Master,
            node,
        }
    }

    /// The way of this process's own mount to the master and the volumes.
    pub(super) fn client_connector(&self) -> Arc<dyn Connector> {
        self.connector(Role::Client, "client")
    }

    fn connector(&self, role: Role, node: &str) -> Arc<dyn Connector> {
        Arc::new(self.switchboard.connector(PeerIdentity {
            cluster: self.cluster,
            role,
            node: node.to_owned(),
            addr: None,
            same_host: true,
            certificate_ends: None,
        }))
    }

    /// The doors first, so that nobody new comes in; the master last, so that the others can still
    /// tell it what they have done.
    pub(super) fn stop(self) {
        stop_side_by_side(self.doors, |door| door.shutdown(DOOR_WAIT));
        stop_side_by_side(self.volumes, Volume::stop);
        self.master.stop();
    }
}

/// Each may wait a while for its peers: all wait at the same time.
fn stop_side_by_side<T: Send>(all: Vec<T>, stop: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for one in all {
            scope.spawn(|| stop(one));
        }
    });
}

impl Plan<'_> {
    fn start_master(&self, cluster: ClusterId) -> Result<Master, Failure> {
        let mounted = self.mounted.clone();
        let config = MasterConfig {
            log_dir: self.state.log(),
            format: FsConfig::new(cluster, self.parameters.chunk_size),
            sync_log: false,
            checkpoint_log_bytes: None,
            ram_bytes: Some(self.parameters.names_bytes()),
            before_abort: Some(AbortHook(Arc::new(move |_| mounted.detach()))),
        };
        let master = Master::start(config).map_err(Failure::of)?;
        match self.check_filesystem(master.config(), cluster) {
            Ok(()) => Ok(master),
            Err(failure) => {
                master.stop();
                Err(failure)
            }
        }
    }

    /// `up.toml` may have been lost, too.
    fn check_filesystem(&self, found: &FsConfig, cluster: ClusterId) -> Result<(), Failure> {
        let checked = found.check(cluster, Some(self.parameters.chunk_size));
        checked.map_err(|error| {
            let way_out = match error {
                FormatError::OtherCluster => "put back the one that belongs here",
                FormatError::ChunkSize { .. } => "name that with --chunk-size",
                FormatError::Replicas { .. } | FormatError::ReplicasByHosts => {
                    "change that with `vdfs replicas set`"
                }
            };
            Failure::new(self.state.log().display(), error)
                .way_out(format!("{way_out}, or start empty with --fresh"))
        })
    }

    fn volume_tuning(&self) -> QuicConfig {
        let budget_bytes = self.parameters.volume_budget_bytes();
        QuicConfig {
            payloads_bytes: vdfs_volume::limits::payloads_bytes(budget_bytes),
            ..QuicConfig::default()
        }
    }

    fn volume_config(&self, node: &str, addr: SocketAddr) -> Result<VolumeConfig, Failure> {
        let mounted = self.mounted.clone();
        Ok(VolumeConfig {
            name: node.to_owned(),
            host: Host::here().blame("/proc")?.name,
            ram_dir: self.state.ram().join(node),
            budget_bytes: self.parameters.volume_budget_bytes(),
            copy_rate: None,
            addr,
            panic_hook: PanicHook::new(move || mounted.detach()),
        })
    }
}

/// Name, node and directory of the `number`th volume.
pub(super) fn volume_node(number: u32) -> String {
    format!("volume-{number}")
}

/// Where the programs of others come in: the master's door, and the volumes' behind it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doors {
    /// At this address and the ports that follow it, or not at all.
    At(SocketAddr),
    /// On 127.0.0.1: at this port and those that follow, so that mounts of others find the master
    /// where it was, or, where one is taken or 0, at a free one.
    Near(u16),
}

impl Doors {
    /// As `--listen` says, else where the program of `state` was before.
    pub(super) fn choose(listen: Option<SocketAddr>, state: &Path) -> Doors {
        match listen {
            Some(addr) => Doors::At(addr),
            None => {
                let before = StateDir::read_addr(state).ok().flatten();
                Doors::Near(before.map_or(0, |addr| addr.port()))
            }
        }
    }

    /// The volumes' doors follow the master's, wherever that is now.
    fn behind(self, master: SocketAddr) -> Doors {
        match self {
            Doors::At(addr) => Doors::At(addr),
            Doors::Near(_) => Doors::Near(master.port()),
        }
    }

    /// Opens the `index`th door.
    fn open(
        self,
        index: u32,
        identity: &Identity,
        service: Option<Arc<dyn Service>>,
        tuning: QuicConfig,
    ) -> Result<QuicEndpoint, Failure> {
        let start = |addr, service| QuicEndpoint::start(identity, addr, service, tuning);
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let opened = match self {
            Doors::At(addr) => {
                let port = port_behind(addr.port(), index).ok_or_else(|| {
                    let why = "too few ports follow it for the volumes";
                    Failure::new(format!("--listen {addr}"), why)
                })?;
                start(SocketAddr::new(addr.ip(), port), service)
            }
            Doors::Near(first) => match port_behind(first, index) {
                Some(port) if port != 0 => {
                    start(loopback(port), service.clone()).or_else(|_| start(loopback(0), service))
                }
                Some(_) | None => start(loopback(0), service),
            },
        };
        opened.map_err(Failure::of)
    }
}

/// Ports follow one another, unless they are free ones: then all are 0.
fn port_behind(first: u16, index: u32) -> Option<u16> {
    match first {
        0 => Some(0),
        first => u16::try_from(u32::from(first) + index).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_one_another_unless_they_are_free_ones() {
        assert_eq!(port_behind(7400, 2), Some(7402));
        assert_eq!(port_behind(0, 2), Some(0));
        assert_eq!(port_behind(65_535, 1), None);
    }

    #[test]
    fn doors_are_where_they_were_before_unless_another_place_is_asked_for() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let dir = scratch.path().join("state");
        assert!(matches!(Doors::choose(None, &dir), Doors::Near(0)));
        let state = StateDir::open(&dir).expect("a state directory");
        let addr: SocketAddr = "192.0.2.7:7400".parse().expect("an address");
        state.write_addr(addr).expect("writes");
        assert!(matches!(Doors::choose(None, &dir), Doors::Near(7400)));
        assert!(matches!(Doors::choose(Some(addr), &dir), Doors::At(at) if at == addr));
    }
}
