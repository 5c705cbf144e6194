//! A master, two volumes or three and any number of clients, each of which can end and return.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use vdfs_client::{ClientConfig, Fs, NewFile, NoKernelCache, OpenOptions};
use vdfs_master::{FsConfig, Master, MasterConfig};
use vdfs_net::in_process::Switchboard;
use vdfs_net::{Connector, PeerIdentity, Target};
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::NewKind;
use vdfs_proto::{ChunkSize, ClusterId, FileName, Ino};
use vdfs_volume::{PanicHook, PeerWays, Ram, Registration, Volume, VolumeConfig};

/// Of a cluster that keeps one copy of everything.
pub(crate) const VOLUMES: usize = 2;
const CLUSTER: ClusterId = ClusterId(7);
pub(crate) const CHUNK_BYTES: u64 = 256 << 10;
const VOLUME_BYTES: u64 = 256 << 20;
/// How long a part stays away, in milliseconds: shorter and longer than the pauses of retries.
const AWAY_MS: std::ops::Range<u64> = 0..200;
/// The same, now and then, where another one has all copies: longer than a lease.
const AWAY_LONG_MS: std::ops::Range<u64> = 2_600..3_500;

#[derive(Debug)]
pub(crate) struct Cluster {
    dir: TempDir,
    board: Switchboard,
    copies: u32,
    checkpoint_log_bytes: Option<u64>,
    master: Option<Master>,
    volumes: Vec<Option<Volume>>,
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        Cluster::start_with(1, None).await
    }

    /// With two copies of everything, and a volume to spare.
    pub(crate) async fn start_with_copies() -> Cluster {
        Cluster::start_with(2, None).await
    }

    /// All volumes have their chains before there is a client: one that came later would get its own in
    /// the course of time.
    pub(crate) async fn start_with(copies: u32, checkpoint_log_bytes: Option<u64>) -> Cluster {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in RAM");
        let mut cluster = Cluster {
            dir,
            board: Switchboard::default(),
            copies,
            checkpoint_log_bytes,
            master: None,
            volumes: Vec::new(),
        };
        let volumes = VOLUMES + copies as usize - 1;
        cluster.volumes.resize_with(volumes, || None);
        cluster.start_master();
        (0..volumes).for_each(|index| cluster.start_volume(index));
        for volume in cluster.volumes.iter().flatten() {
            assert_eq!(volume.wait_registered().await, Registration::Done);
        }
        cluster
    }

    fn start_master(&mut self) {
        let format = FsConfig {
            cluster: CLUSTER,
            chunk_size: ChunkSize::new(CHUNK_BYTES).expect("a power of two"),
            replicas: Some(self.copies),
            hash_key: [3; 16],
            root_uid: 0,
            root_gid: 0,
            files_max: 1 << 20,
        };
        let config = MasterConfig {
            log_dir: self.log_dir(),
            format,
            sync_log: false,
            checkpoint_log_bytes: self.checkpoint_log_bytes,
            ram_bytes: None,
            before_abort: None,
        };
        let master = Master::start(config).expect("the master starts");
        self.board.attach(Role::Master, "master", master.service());
        self.master = Some(master);
    }

    pub(crate) fn start_volume(&mut self, index: usize) {
        let name = volume_name(index);
        let config = VolumeConfig {
            name: name.clone(),
            host: name.clone(),
            ram_dir: self.dir.path().join(&name),
            budget_bytes: VOLUME_BYTES,
            copy_rate: None,
            addr: anywhere(),
            panic_hook: PanicHook::default(),
        };
        let connector = self.connector(Role::Volume, &name);
        let carrier = connector.carrier(&master_target());
        let ways = PeerWays {
            connector,
            tasks: None,
            master: master_target().addr.ip(),
        };
        let volume = Volume::start(config, carrier, ways).expect("the volume starts");
        self.board.attach(Role::Volume, &name, volume.service());
        self.volumes[index] = Some(volume);
    }

    /// Ends the master as a kill would, and starts it again.
    pub(crate) async fn restart_master(&mut self, away: Duration) {
        self.board.detach(Role::Master, "master");
        drop(self.master.take());
        tokio::time::sleep(away).await;
        self.start_master();
    }

    pub(crate) async fn restart_volume(&mut self, index: usize, away: Duration) {
        self.stop_volume(index);
        tokio::time::sleep(away).await;
        self.start_volume(index);
    }

    pub(crate) fn stop_volume(&mut self, index: usize) {
        self.board.detach(Role::Volume, &volume_name(index));
        if let Some(volume) = self.volumes[index].take() {
            volume.stop();
        }
    }

    /// Takes the master or a volume away for a moment.
    pub(crate) async fn restart_one(&mut self, rng: &mut Rng) {
        let is_long = self.copies > 1 && rng.random_bool(0.2);
        let away_ms = if is_long { AWAY_LONG_MS } else { AWAY_MS };
        let away = Duration::from_millis(rng.random_range(away_ms));
        match rng.random_range(0..=self.volumes.len()) {
            index if index == self.volumes.len() => self.restart_master(away).await,
            index => self.restart_volume(index, away).await,
        }
    }

    /// A client; it replaces the one before it of the same name.
    pub(crate) async fn client(&self, name: &str) -> Fs {
        self.client_through(name, self.connector(Role::Client, name))
            .await
    }

    /// A client whose way to the others is the caller's.
    pub(crate) async fn client_through(&self, name: &str, connector: Arc<dyn Connector>) -> Fs {
        let config = ClientConfig {
            identity: name.to_owned(),
            host: "host".to_owned(),
            mount: name.to_owned(),
            master: vec![master_target()],
            connector,
            timeout: None,
            kernel_cache: Arc::new(NoKernelCache),
            read_only: false,
        };
        Fs::connect(config).await.expect("a session")
    }

    pub(crate) fn connector(&self, role: Role, node: &str) -> Arc<dyn Connector> {
        let identity = PeerIdentity {
            cluster: CLUSTER,
            role,
            node: node.to_owned(),
            addr: None,
            same_host: true,
            certificate_ends: None,
        };
        Arc::new(self.board.connector(identity))
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.master.take());
        for index in 0..self.volumes.len() {
            if let Some(volume) = self.volumes[index].take() {
                volume.stop();
            }
            let ram = self.dir.path().join(volume_name(index));
            Ram::destroy(&ram).expect("the RAM is given back");
        }
    }
}

pub(crate) type Rng = StdRng;

pub(crate) fn rng(seed: u64) -> Rng {
    StdRng::seed_from_u64(seed)
}

pub(crate) fn regular(name: &str) -> NewFile {
    NewFile {
        parent: Ino::ROOT,
        name: FileName::new(name.as_bytes()).expect("a plain name"),
        kind: NewKind::Regular,
        mode: 0o644,
        umask: 0,
        uid: 0,
        gid: 0,
    }
}

pub(crate) fn read_write() -> OpenOptions {
    OpenOptions {
        read: true,
        write: true,
        ..OpenOptions::default()
    }
}

pub(crate) fn volume_name(index: usize) -> String {
    format!("volume-{index}")
}

/// Nobody listens anywhere: the switchboard goes by names.
fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
}

fn master_target() -> Target {
    Target {
        addr: anywhere(),
        role: Role::Master,
        node: None,
    }
}
