//! A running volume: opens the store, keeps the master informed, and does what it orders.
//!
//! Three threads. The *control* thread registers, then keeps one `NextCommands` parked and executes
//! what comes. The *heartbeat* thread does nothing but heartbeats, so that a long command never
//! costs the lease. The *peers* thread passes changes on to other volumes. All go on for ever: a
//! volume whose master is away waits for it.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use vdfs_net::carrier::{Carrier, Service};
use vdfs_net::quic::NetCounters;
use vdfs_proto::{Status, StoreId};

use crate::node::Node;
use crate::panics::PanicHook;
use crate::peers::{self, PeerWays, Peers};
use crate::ram::{Ram, RamError};
use crate::service::DataService;
use crate::store::steps::NoFaults;
use crate::store::{Recovery, Store, StoreConfig, StoreError, Usage};

mod commands;
mod control;
mod heartbeat;
mod pulse;

use control::Link;
pub use control::Registration;

/// What a volume is started with.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// Unique in the cluster; the node name of the volume's identity.
    pub name: String,
    /// Which machine it is on: members of a chain are on different hosts. Nothing stands for the
    /// address at which the master sees it.
    pub host: String,
    /// Where its chunks lie: a tmpfs of its own is mounted there.
    pub ram_dir: PathBuf,
    /// All that it may take of the RAM, in bytes.
    pub budget_bytes: u64,
    /// What copies for other volumes may take, in bytes a second; no more than what they leave to clients
    /// anyway if there is none.
    pub copy_rate: Option<NonZeroU64>,
    /// Where others reach it.
    pub addr: SocketAddr,
    /// Called before a panic ends the process.
    pub panic_hook: PanicHook,
}

/// Why a volume cannot start.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(transparent)]
    Ram(#[from] RamError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A volume that runs until it is stopped. Its chunks stay in RAM afterwards.
#[derive(Debug)]
pub struct Volume {
    node: Arc<Node>,
    recovery: Recovery,
    panic_hook: PanicHook,
    stop: watch::Sender<bool>,
    registered: watch::Receiver<Registration>,
    link: Arc<Link>,
    threads: Vec<JoinHandle<()>>,
}

impl Volume {
    /// Makes or reopens the store and begins to serve; it registers in the background, and answers
    /// `NotServing` until the master has told it its chains.
    pub fn start(
        config: VolumeConfig,
        master: Arc<dyn Carrier>,
        ways: PeerWays,
    ) -> Result<Self, VolumeError> {
        let ram = Ram::open(&config.ram_dir, config.budget_bytes)?;
        let store_config = StoreConfig {
            budget_bytes: config.budget_bytes,
            is_shared: ram.is_shared(),
            steps: Arc::new(NoFaults),
        };
        let (store, recovery) = Store::open(ram.path(), store_config)?;
        report(&config.name, &recovery);
        let node = Node::new(store, config.panic_hook.clone());
        let (stop, stopped) = watch::channel(false);
        let (tell_registered, registered) = watch::channel(Registration::Waiting(None));
        let link = Link::new(config.clone(), node.clone(), master, tell_registered);
        let peers = runtime()?;
        let engine = node.engine.clone();
        if let Some(rate) = config.copy_rate {
            engine.traffic().limit_copies(rate.get());
        }
        engine.set_peers(Peers::new(ways, peers.handle().clone()));
        let spawn = |task, runtime, work| spawn(task, &config, runtime, work);
        let threads = vec![
            spawn(
                "control",
                runtime()?,
                control::run(link.clone(), stopped.clone()).boxed(),
            )?,
            spawn(
                "heartbeat",
                runtime()?,
                heartbeat::run(link.clone(), stopped.clone()).boxed(),
            )?,
            spawn("peers", peers, peers::run(engine, stopped).boxed())?,
        ];
        Ok(Volume {
            node,
            recovery,
            panic_hook: config.panic_hook,
            stop,
            registered,
            link,
            threads,
        })
    }

    /// Answers clients. May be called from any runtime and over any carrier.
    pub fn service(&self) -> Arc<dyn Service> {
        let hook = self.panic_hook.clone();
        Arc::new(DataService::new(self.node.clone(), hook))
    }

    /// The master is told what the door has seen; the first door given counts.
    pub fn count_door(&self, counters: Arc<NetCounters>) {
        self.link.net.get_or_init(|| counters);
    }

    pub fn store_id(&self) -> StoreId {
        self.node.store().id()
    }

    /// What was found in RAM at the start.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    pub fn usage(&self) -> Usage {
        self.node.store().usage()
    }

    /// Waits until the master has taken the volume in, or has refused it for good.
    pub async fn wait_registered(&self) -> Registration {
        let mut registered = self.registered.clone();
        let is_settled = |state: &Registration| !matches!(state, Registration::Waiting(_));
        let settled = registered.wait_for(is_settled).await;
        settled
            .expect("the sender lives as long as the volume")
            .clone()
    }

    /// What the master has answered, if it has not taken the volume in.
    pub fn refusal(&self) -> Option<Status> {
        match *self.registered.borrow() {
            Registration::Waiting(status) => status,
            Registration::Done | Registration::Refused { .. } => None,
        }
    }

    /// Ends when the control thread has taken a turn: never if it hangs.
    pub async fn wait_turn(&self) {
        self.link.pulse.ask().await;
    }

    /// Requests from now on, and those that wait, are answered `ShuttingDown`. Ends the threads, and lets
    /// go of the store, unless a service is still held by somebody. The chunks stay in RAM.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.node.stop();
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // The threads' panics end the process, so a join cannot fail.
            thread.join().expect("guarded threads do not panic");
        }
        if let Some(peers) = self.node.engine.peers() {
            peers.close();
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.end();
    }
}

fn report(name: &str, recovery: &Recovery) {
    let Recovery {
        chunks,
        rolled_forward,
        taken_back,
        removed,
        bad_copies,
    } = *recovery;
    tracing::info!(
        volume = name,
        chunks,
        rolled_forward,
        taken_back,
        removed,
        "store opened"
    );
    if bad_copies > 0 {
        tracing::error!(volume = name, bad_copies, "chunks are lost");
    }
}

fn runtime() -> Result<Runtime, VolumeError> {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    built.map_err(VolumeError::Thread)
}

/// Runs a task on a thread and runtime of its own.
fn spawn(
    task: &str,
    config: &VolumeConfig,
    runtime: Runtime,
    work: BoxFuture<'static, ()>,
) -> Result<JoinHandle<()>, VolumeError> {
    let hook = config.panic_hook.clone();
    std::thread::Builder::new()
        .name(format!("volume-{task}"))
        .spawn(move || hook.guard(|| runtime.block_on(work)))
        .map_err(VolumeError::Thread)
}
