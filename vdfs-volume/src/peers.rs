//! The ways to the other volumes: passes changes on to successors, gives a successor that is syncing what
//! it lacks, and takes better copies from those that wait.
//!
//! One thread. What is passed on to another volume is a task, there or on the network's thread; it brings
//! the answer back to the engine and performs what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::MissedTickBehavior;
use vdfs_net::address;
use vdfs_net::carrier::{Carrier, Connector, Target};
use vdfs_net::rpc;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;
use vdfs_proto::peer::{FetchBlocks, FetchedBlocks, Forward, PassedChange};
use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{OpId, Status, Version, VolumeId};

use crate::chain::PassedOn;
use crate::departed;
use crate::early::Early;
use crate::engine::Engine;
use crate::limits::{PIECES_AT_ONCE, TICK_MS};
use crate::merge;
use crate::repair;
use crate::store::{Difference, Job};
use crate::supply::{self, Chains};

/// After which a message that was passed on counts as lost; it is passed on again.
pub(crate) const FORWARD_DEADLINE: Duration = Duration::from_secs(2);

/// For 1 MiB at most, which others may have their turns before.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);

/// How other volumes are reached.
#[derive(Clone, Debug)]
pub struct PeerWays {
    pub connector: Arc<dyn Connector>,
    /// Where what waits for others runs: best on the connector's own thread, so that a change meets no hop
    /// between threads. None: on one of the volume.
    pub tasks: Option<Handle>,
    /// Where the master is: a volume that says it is on its own machine is there.
    pub master: IpAddr,
}

#[derive(Debug)]
pub(crate) struct Peers {
    /// None when the volume has ended: where the parts share a process, the ways lead back to it.
    ways: Mutex<Option<PeerWays>>,
    tasks: Handle,
    early: Early,
    /// Whom tasks of this volume are supplying.
    supplied: Mutex<BTreeSet<VolumeId>>,
    /// Groups of volumes that tasks of this one are asking for better copies.
    merging: Mutex<BTreeSet<BTreeSet<VolumeId>>>,
    /// Pieces that this volume fetches at once.
    fetching: Semaphore,
    changed: Notify,
}

impl Peers {
    /// `own` is the runtime of the volume's own thread for peers.
    pub(crate) fn new(ways: PeerWays, own: Handle) -> Self {
        Peers {
            tasks: ways.tasks.clone().unwrap_or(own),
            ways: Mutex::new(Some(ways)),
            early: Early::default(),
            supplied: Mutex::default(),
            merging: Mutex::default(),
            fetching: Semaphore::new(PIECES_AT_ONCE),
            changed: Notify::new(),
        }
    }

    /// Lets go of all ways.
    pub(crate) fn close(&self) {
        *self.ways.lock() = None;
    }

    pub(crate) fn table_changed(&self) {
        self.changed.notify_one();
    }

    /// What another member has in some blocks, as far as this one has not.
    pub(crate) async fn fetch(
        &self,
        engine: &Engine,
        peer: VolumeId,
        ask: FetchBlocks,
    ) -> Result<Difference, Status> {
        let carrier = self.carrier(engine, peer)?;
        let _turn = self.fetching.acquire().await.expect("it is never closed");
        let (first, asked) = (ask.first, ask.sums.len());
        let method = Method::PeerBehind;
        let fetched = rpc::fetch_from_peer(&*carrier, method, ask, FETCH_DEADLINE);
        let (FetchedBlocks { sums }, bytes) = fetched.await?;
        match sums.len() == asked {
            true => Ok(Difference { first, sums, bytes }),
            false => Err(Status::Malformed),
        }
    }

    /// The way to a volume that the table names.
    pub(crate) fn carrier(
        &self,
        engine: &Engine,
        volume: VolumeId,
    ) -> Result<Arc<dyn Carrier>, Status> {
        let info = engine.look(|core| core.membership().table().volume(volume).cloned());
        let info = info.ok_or(Status::NotServing)?;
        let ways = self.ways.lock().clone().ok_or(Status::ShuttingDown)?;
        Ok(ways.connector.carrier(&Target {
            addr: address::named_by(ways.master, info.addr),
            role: Role::Volume,
            node: Some(info.node),
        }))
    }

    pub(crate) fn early(&self) -> &Early {
        &self.early
    }

    /// Sends the bytes of a change ahead that is to be passed on later.
    pub(crate) fn send_early(&self, engine: &Engine, (op, to): (OpId, VolumeId), bytes: &Bytes) {
        if self.early.is_expected(op)
            && let Ok(carrier) = self.carrier(engine, to)
        {
            self.early.send((op, to), bytes, &carrier, &self.tasks);
        }
    }

    /// Passes a change on, and brings the answer back.
    pub(crate) fn pass_on(&self, engine: Arc<Engine>, passed: PassedOn<Arc<Job>>) {
        self.tasks.spawn(async move {
            let answer = match passed.lacks_chunk {
                true => supply_and_forward(&engine, &passed).await,
                false => forward(&engine, &passed).await,
            };
            engine.answered(passed.exchange, answer);
        });
    }
}

async fn forward(engine: &Engine, passed: &PassedOn<Arc<Job>>) -> Result<Version, Status> {
    let peers = engine.peers().ok_or(Status::NotServing)?;
    let (change, payload) = on_the_wire(&passed.order.body);
    let message = Forward {
        epoch: passed.epoch,
        base: passed.base,
        version: passed.version,
        change,
    };
    let way = (passed.order.op, passed.to);
    if let Some(answer) = peers.early.order(way, &message).await {
        return Ok(answer?.version);
    }
    let carrier = peers.carrier(engine, passed.to)?;
    let is_head = engine
        .place(passed.order.chain)
        .is_some_and(|place| place.is_head);
    let method = if is_head {
        Method::Peer
    } else {
        Method::PeerBehind
    };
    let sent = rpc::call_peer(&*carrier, method, message, payload, FORWARD_DEADLINE);
    Ok(sent.await?.version)
}

/// The chunk is closed here for the change, so what is given is what the change is made for.
async fn supply_and_forward(
    engine: &Arc<Engine>,
    passed: &PassedOn<Arc<Job>>,
) -> Result<Version, Status> {
    let chunk = passed.order.chunk;
    let receiver = supply::Receiver::new(engine, passed.to)?;
    let given = receiver.give_closed(chunk, (passed.order.chain, passed.epoch));
    match given.await {
        Ok(()) => forward(engine, passed).await,
        // It lacks room for the chunk, not for the change: another one is to have its place.
        Err(Status::NoSpace) => {
            let suspect = ChainEvent::Suspect(passed.to);
            engine.note_news(passed.order.chain, passed.epoch, suspect);
            Err(Status::Busy)
        }
        Err(status) => Err(status),
    }
}

fn on_the_wire(job: &Job) -> (PassedChange, Bytes) {
    match job {
        Job::Write { write, payload } => (PassedChange::Write(write.clone()), payload.clone()),
        Job::Space(ask) => (PassedChange::Space(ask.clone()), Bytes::new()),
        Job::Cut(cut) => (PassedChange::Cut(*cut), Bytes::new()),
        Job::Copy { .. } => unreachable!("copies are for chains of one member"),
    }
}

/// The job that a predecessor passes on.
pub(crate) fn job_of(change: PassedChange, payload: Bytes) -> Job {
    match change {
        PassedChange::Write(write) => Job::Write { write, payload },
        PassedChange::Space(ask) => Job::Space(ask),
        PassedChange::Cut(cut) => Job::Cut(cut),
    }
}

/// The thread of the peers: lets time pass for the core, supplies whoever is syncing, frees what is
/// nobody's any more, and has damaged chunks given again.
pub(crate) async fn run(engine: Arc<Engine>, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        () = tick(&engine) => {}
        () = supply_and_merge(&engine) => {}
        () = departed::free_departed(&engine) => {}
        () = repair::repair_what_is_damaged(&engine) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

async fn tick(engine: &Engine) {
    let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        engine.tick();
    }
}

async fn supply_and_merge(engine: &Arc<Engine>) {
    let peers = engine.peers().expect("they run");
    loop {
        for (peer, chains) in to_supply(engine) {
            if peers.supplied.lock().insert(peer) {
                let engine = engine.clone();
                tokio::spawn(async move {
                    supply::supply(&engine, peer, &chains).await;
                    let peers = engine.peers().expect("they run");
                    peers.supplied.lock().remove(&peer);
                    peers.changed.notify_one();
                });
            }
        }
        for (others, chains) in to_merge(engine) {
            if peers.merging.lock().insert(others.clone()) {
                let engine = engine.clone();
                tokio::spawn(async move {
                    merge::merge(&engine, &others, &chains).await;
                    let peers = engine.peers().expect("they run");
                    peers.merging.lock().remove(&others);
                    peers.changed.notify_one();
                });
            }
        }
        peers.changed.notified().await;
    }
}

/// Chains that this volume heads, by those who wait with it in them.
fn to_merge(engine: &Engine) -> BTreeMap<BTreeSet<VolumeId>, Chains> {
    let mut by_others: BTreeMap<BTreeSet<VolumeId>, Chains> = BTreeMap::new();
    for (chain, epoch, others) in engine.look(|core| core.membership().to_merge()) {
        by_others.entry(others).or_default().insert(chain, epoch);
    }
    by_others
}

fn to_supply(engine: &Engine) -> BTreeMap<VolumeId, Chains> {
    let mut by_peer: BTreeMap<VolumeId, Chains> = BTreeMap::new();
    for (chain, epoch, peer) in engine.look(|core| core.membership().to_supply()) {
        by_peer.entry(peer).or_default().insert(chain, epoch);
    }
    by_peer
}
