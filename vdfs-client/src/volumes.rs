//! The ways to the volumes, by chain.
//!
//! A request belongs to the chain's epoch under which it was sent. A volume that was killed answers
//! nothing and resets nothing: the next epoch is how its clients learn that no answer comes.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use vdfs_net::{Carrier, Connector, Target, address, rpc};
use vdfs_proto::data::{DataReply, DataRequest};
use vdfs_proto::handshake::Role;
use vdfs_proto::operation::Operation;
use vdfs_proto::{Chain, ChainId, ChainTable, Epoch, Member, Status, VolumeId};

use crate::limits::{ATTEMPT_BULK, SILENT_FOR};

/// The newest chain table this client has seen, with a carrier for each volume in it.
pub(crate) struct Volumes {
    connector: Arc<dyn Connector>,
    /// Where the master is: what it sees on its loopback is there.
    master: IpAddr,
    routes: watch::Sender<Arc<Routes>>,
    /// Held by the one who fetches a newer table.
    fetching: tokio::sync::Mutex<()>,
    fetches_begun: AtomicU64,
    /// Volumes that have not answered, and until when others are asked first.
    silent: Mutex<HashMap<VolumeId, Instant>>,
}

/// One table, as it was: what an attempt goes by.
#[derive(Clone)]
pub(crate) struct Snapshot(Arc<Routes>);

struct Routes {
    table: ChainTable,
    carriers: HashMap<VolumeId, Arc<dyn Carrier>>,
}

/// Whom to send a request for a chain, and under which epoch.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) chain: ChainId,
    pub(crate) epoch: Epoch,
    pub(crate) volume: VolumeId,
    carrier: Arc<dyn Carrier>,
}

impl Volumes {
    pub(crate) fn new(connector: Arc<dyn Connector>, master: IpAddr, table: ChainTable) -> Self {
        let routes = Routes::new(&*connector, master, table);
        Volumes {
            connector,
            master,
            routes: watch::Sender::new(Arc::new(routes)),
            fetching: tokio::sync::Mutex::new(()),
            fetches_begun: AtomicU64::new(0),
            silent: Mutex::default(),
        }
    }

    /// The ways for a change of the chain, or a question about it: to its head, and then through the other
    /// members that serve. Those who did not answer a moment ago are the last.
    pub(crate) fn ways_in(&self, table: &Snapshot, chain: ChainId) -> Vec<Route> {
        let now = Instant::now();
        let mut silent = self.silent.lock();
        silent.retain(|_, until| *until > now);
        let mut ways = table.readers(chain, 0);
        ways.sort_by_key(|route| silent.contains_key(&route.volume));
        ways
    }

    /// What became of a change, or a question, that was sent this way.
    pub(crate) fn note_answer<T>(&self, route: &Route, answer: &Result<T, Status>) {
        let is_silent = answer.as_ref().is_err_and(|status| status.is_silence());
        // In another epoch nobody waits for an answer any more.
        let epoch = self
            .routes
            .borrow()
            .table
            .chain(route.chain)
            .map(|of| of.epoch);
        if is_silent && epoch == Some(route.epoch) {
            let until = Instant::now() + SILENT_FOR;
            self.silent.lock().insert(route.volume, until);
        }
    }

    /// Takes `table` unless a newer one is known: nobody goes back to an older epoch.
    pub(crate) fn install(&self, table: ChainTable) {
        if table.version <= self.version() {
            return;
        }
        let routes = Arc::new(Routes::new(&*self.connector, self.master, table));
        self.routes.send_if_modified(|current| {
            let is_newer = routes.table.version > current.table.version;
            if is_newer {
                *current = routes;
            }
            is_newer
        });
    }

    pub(crate) fn version(&self) -> u64 {
        self.routes.borrow().table.version
    }

    pub(crate) fn table(&self) -> ChainTable {
        self.routes.borrow().table.clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.routes.borrow().clone())
    }

    /// The volume that a change of the chain goes to.
    pub(crate) fn head_volume(&self, chain: ChainId) -> Option<VolumeId> {
        self.routes.borrow().head(chain).map(|head| head.volume)
    }

    /// The same, if the chain has no other member, of whatever state.
    pub(crate) fn lone_member(&self, chain: ChainId) -> Option<VolumeId> {
        let routes = self.routes.borrow();
        let is_alone = routes.table.chain(chain)?.members.len() == 1;
        let head = routes.head(chain).filter(|_| is_alone);
        head.map(|head| head.volume)
    }

    /// Runs `fetch`, or waits for the end of one that has begun since: many want a newer table at the
    /// same time, and a master that is away takes its time for each question.
    pub(crate) async fn fetch_together(&self, fetch: impl Future<Output = ()>) {
        let begun = self.fetches_begun.load(Ordering::SeqCst);
        let turn = self.fetching.lock().await;
        if self.fetches_begun.load(Ordering::SeqCst) == begun {
            self.fetches_begun.fetch_add(1, Ordering::SeqCst);
            fetch.await;
        }
        drop(turn);
    }

    /// Waits for a table newer than `seen`.
    pub(crate) async fn newer_than(&self, seen: u64) {
        self.until(|table| table.version > seen).await;
    }

    /// Waits until a chain is not as it was in `seen`.
    pub(crate) async fn other_than(&self, seen: &Snapshot, chain: ChainId) {
        let before = seen.0.table.chain(chain);
        self.until(|table| table.chain(chain) != before).await;
    }

    /// Sends a request by `route` and waits for the answer: `Disconnected` as soon as the chain has
    /// another epoch, for whoever was asked may be gone without a word.
    pub(crate) async fn ask<O>(
        &self,
        route: &Route,
        operation: O,
        payload: Bytes,
    ) -> Result<(O::Reply, Bytes), Status>
    where
        O: Operation<Request = DataRequest, Envelope = DataReply>,
    {
        let asked = rpc::call_data(&*route.carrier, operation, payload, ATTEMPT_BULK);
        let has_moved = |table: &ChainTable| {
            let chain = table.chain(route.chain);
            chain.is_none_or(|chain| chain.epoch != route.epoch)
        };
        tokio::select! {
            biased;
            answer = asked => answer,
            () = self.until(has_moved) => Err(Status::Disconnected),
        }
    }

    async fn until(&self, holds: impl Fn(&ChainTable) -> bool) {
        let mut routes = self.routes.subscribe();
        let seen = routes.wait_for(|routes| holds(&routes.table)).await;
        assert!(seen.is_ok(), "the sender lives as long as the volumes");
    }
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volumes(table {})", self.version())
    }
}

impl Snapshot {
    /// Of the table.
    pub(crate) fn version(&self) -> u64 {
        self.0.table.version
    }

    /// The way to whoever takes the chain's changes; `NotServing` if nobody does.
    pub(crate) fn head(&self, chain: ChainId) -> Result<Route, Status> {
        let member = self.0.head(chain).ok_or(Status::NotServing)?;
        self.0.route(chain, member).ok_or(Status::NotServing)
    }

    /// All who may answer reads of the chain, each once, beginning with another one at each `turn`.
    pub(crate) fn readers(&self, chain: ChainId, turn: usize) -> Vec<Route> {
        let members = self.0.table.chain(chain).into_iter();
        let members = members.flat_map(Chain::serving);
        let routes = members.filter_map(|member| self.0.route(chain, member));
        let mut routes: Vec<_> = routes.collect();
        if let Some(first) = turn.checked_rem(routes.len()) {
            routes.rotate_left(first);
        }
        routes
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot(table {})", self.version())
    }
}

impl Routes {
    fn new(connector: &dyn Connector, master: IpAddr, table: ChainTable) -> Self {
        let carriers = table.volumes.iter().map(|volume| {
            let target = Target {
                addr: address::named_by(master, volume.addr),
                role: Role::Volume,
                node: Some(volume.node.clone()),
            };
            (volume.id, connector.carrier(&target))
        });
        Routes {
            carriers: carriers.collect(),
            table,
        }
    }

    fn head(&self, chain: ChainId) -> Option<&Member> {
        self.table.chain(chain)?.head()
    }

    fn route(&self, chain: ChainId, member: &Member) -> Option<Route> {
        Some(Route {
            chain,
            epoch: self.table.chain(chain)?.epoch,
            volume: member.volume,
            carrier: self.carriers.get(&member.volume)?.clone(),
        })
    }
}
