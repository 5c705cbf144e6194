//! The chain core and the store, put together: brings inputs to the core, performs what it decides,
//! and tells it what became of that.
//!
//! Whoever brings an input performs what follows at once: the core's lock is not held meanwhile. What
//! waits for another volume goes on in a task (`peers`).
//!
//! Lock order: the core, then whatever the store locks. No work of the store is done under the core's
//! lock but on retry records, and on plans that are dropped.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use vdfs_net::clock::boot_ms;
use vdfs_proto::data::{FilePart, Read, ReadDone, Written};
use vdfs_proto::limits::{DATA_SLOTS_PER_SESSION, NEWS_PER_REQUEST_MAX};
use vdfs_proto::peer::{ChunkCopy, CutChunk};
use vdfs_proto::volume::{ChainEvent, ChainNews, Fence, Registered};
use vdfs_proto::{
    ChainId, ChainTable, ChunkId, DataId, Epoch, Layout, OpId, SessionId, Status, Version,
};

use crate::chain::{
    Effect, Failure, Input, Member, Order, Outcome, PassedOn, Place, Reading, Reply, Rule,
};
use crate::early::Interest;
use crate::limits::{EARLY_BYTES_MIN, EARLY_CHANGES_MAX};
use crate::pace::Traffic;
use crate::peers::Peers;
use crate::repair::Doubts;
use crate::store::{Job, Store};
use crate::supplied::Supplied;

type Caller = oneshot::Sender<Result<Version, Status>>;
type Core = Member<Arc<Job>, Caller>;
type CoreInput = Input<Arc<Job>, Caller>;
type CoreEffect = Effect<Arc<Job>, Caller>;

/// A store, and the core that decides what is done to it.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    core: Mutex<Core>,
    tidings: Mutex<Tidings>,
    /// There is something new among the tidings.
    told: Notify,
    /// The ways to other volumes, once there are any.
    peers: OnceLock<Peers>,
    /// What this volume is given while it is syncing.
    pub(crate) supplied: tokio::sync::Mutex<Supplied>,
    /// Chunks that may be damaged here.
    doubts: Doubts,
    traffic: Traffic,
    /// Of the volume's own changes.
    next_seq: AtomicU64,
    me: Weak<Engine>,
}

/// What the master is to hear.
#[derive(Debug, Default)]
struct Tidings {
    /// Commands that are done, by their numbers.
    done: Vec<(u64, Result<(), Status>)>,
    /// Until the table shows that it has been heard.
    news: BTreeSet<ChainNews>,
}

/// A change that was begun. Dropping it ends only the wait.
#[derive(Debug)]
pub struct BegunChange<'a> {
    store: &'a Store,
    answer: oneshot::Receiver<Result<Version, Status>>,
    _early: Option<Interest<'a>>,
}

impl BegunChange<'_> {
    /// The definite answer, or why there is none.
    pub async fn written(self) -> Result<Written, Status> {
        // The core answers everybody before it is dropped.
        let outcome = self.answer.await.unwrap_or(Err(Status::ShuttingDown));
        Ok(Written {
            version: outcome?,
            low_space: self.store.is_low(),
        })
    }
}

impl Engine {
    pub fn new(store: Store) -> Arc<Self> {
        let replies = store.replies();
        let next_seq = AtomicU64::new(first_seq(&replies));
        let core = Member::new(store.id(), replies, store.replies_max());
        Arc::new_cyclic(|me| Engine {
            store,
            core: Mutex::new(core),
            tidings: Mutex::default(),
            told: Notify::new(),
            peers: OnceLock::new(),
            supplied: tokio::sync::Mutex::default(),
            doubts: Doubts::default(),
            traffic: Traffic::default(),
            next_seq,
            me: me.clone(),
        })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// From now on changes can be passed on.
    pub(crate) fn set_peers(&self, peers: Peers) {
        self.peers.set(peers).expect("set once");
    }

    pub(crate) fn peers(&self) -> Option<&Peers> {
        self.peers.get()
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(crate) fn doubts(&self) -> &Doubts {
        &self.doubts
    }

    /// The chunk may be damaged. Whether it may be repaired in a moment: others serve its chain too, and it
    /// was not looked into lately.
    pub(crate) fn doubt(&self, chunk: ChunkId, chain: ChainId) -> bool {
        let serves_with_others = self.look(|core| {
            let row = core.membership().table().chain(chain);
            let has_others = row.is_some_and(|row| row.serving().count() > 1);
            has_others && core.place(chain).is_some_and(|place| place.serves)
        });
        serves_with_others && self.doubts.raise(chunk)
    }

    /// Takes a client's change in. Refuses what [`Store::check`] does, and with `StaleEpoch`,
    /// `NotServing` or `NotSupported`; all else is the answer's.
    pub fn begin(&self, job: Job) -> Result<BegunChange<'_>, Status> {
        self.store.check(&job)?;
        let (chain, epoch) = job.chain();
        let has_others = {
            let core = self.core.lock();
            let place = core.serving_place(chain, epoch)?;
            // The others may not have the source.
            if place.members > 1 && matches!(job, Job::Copy { .. }) {
                return Err(Status::NotSupported);
            }
            core.check_data(job.chunk().data)?;
            place.members > 1
        };
        let (caller, answer) = oneshot::channel();
        let order = order(job);
        let (op, chunk) = (order.op, order.chunk);
        let early = early_bytes(&order.body).filter(|_| has_others);
        let early = early.and(self.peers());
        let early = early.map(|peers| peers.early().expect(op));
        self.take(Input::Request {
            order,
            epoch,
            caller,
        });
        if early.is_some() {
            self.send_ahead(chunk);
        }
        Ok(BegunChange {
            store: &self.store,
            answer,
            _early: early,
        })
    }

    /// The bytes of those that wait for their turns at the chunk need not wait.
    fn send_ahead(&self, chunk: ChunkId) {
        let Some(peers) = self.peers() else { return };
        let next = self.look(|core| core.next_in_line(chunk, EARLY_CHANGES_MAX));
        let Some((to, orders)) = next else { return };
        for order in &orders {
            if let Some(bytes) = early_bytes(&order.body) {
                peers.send_early(self, (order.op, to), bytes);
            }
        }
    }

    /// Takes a change in that the predecessor passes on. Ends when it is applied from here on, or not.
    pub(crate) async fn follow(
        &self,
        job: Job,
        epoch: Epoch,
        (base, version): (Version, Version),
    ) -> Result<Version, Status> {
        self.store.check(&job)?;
        let (caller, answer) = oneshot::channel();
        self.take(Input::Forward {
            order: order(job),
            epoch,
            base,
            version,
            caller,
        });
        answer.await.unwrap_or(Err(Status::ShuttingDown))
    }

    /// Cuts chunk `index` of a file to `len` bytes, and all behind it to nothing, as far as this volume
    /// is the head of their chains. It may be repeated as long as its truncation is pending.
    pub async fn cut(&self, layout: &Layout, index: u32, len: u32) -> Result<(), Status> {
        let data = layout.data;
        let first = ChunkId { data, index };
        // The first change of a chunk may be under way; the store lists it when it has ended.
        let closed = self.look(|core| core.closed_from(first));
        let mut chunks = BTreeSet::from_iter(closed);
        chunks.extend(self.store.chunks_from(first));
        for chunk in chunks {
            let chain = layout.chain(chunk.index);
            let is_ours = self.look(|core| core.membership().own_state(chain).is_some());
            match self.place(chain) {
                Some(place) if place.is_head => {
                    let len = if chunk == first { len } else { 0 };
                    self.cut_chunk(chunk, (chain, place.epoch), len).await?;
                }
                None if is_ours => return Err(Status::NotServing),
                // Others cut it; what is here may be of a time when this volume was a member.
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    async fn cut_chunk(
        &self,
        chunk: ChunkId,
        (chain, epoch): (ChainId, Epoch),
        len: u32,
    ) -> Result<(), Status> {
        let op = self.own_op()?;
        let begun = self.begin(Job::Cut(CutChunk {
            chain,
            epoch,
            chunk,
            op,
            len,
        }))?;
        match begun.written().await {
            Ok(_) | Err(Status::Gone) => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// For a change that this volume makes by itself.
    fn own_op(&self) -> Result<OpId, Status> {
        let volume = self.core.lock().membership().volume();
        let seq = self.next_seq.fetch_add(1, Ordering::Relaxed);
        Ok(OpId {
            session: SessionId::of_volume(volume.ok_or(Status::NotServing)?),
            slot: (seq % u64::from(DATA_SLOTS_PER_SESSION)) as u16,
            seq,
        })
    }

    /// Reads as [`Store::read`] does, if this volume serves the chain under that epoch; waits while the
    /// chunk is closed.
    pub async fn read(&self, read: &Read) -> Result<(ReadDone, Bytes), Status> {
        let Read {
            chain,
            epoch,
            chunk,
            ..
        } = *read;
        loop {
            let lost_below = self.readable(chain, epoch, chunk).await?;
            let copied = self.store.read(read, lost_below);
            let copied = copied.map_err(|status| self.or_in_a_moment(read, status))?;
            // What was copied is good if it may still be served.
            if matches!(self.reading(chain, epoch, chunk)?, Reading::Now(_)) {
                return Ok(copied);
            }
        }
    }

    /// Waits until the chunk may be read: below which data id all is lost.
    pub(crate) async fn readable(
        &self,
        chain: ChainId,
        epoch: Epoch,
        chunk: ChunkId,
    ) -> Result<DataId, Status> {
        loop {
            if let Reading::Now(lost_below) = self.reading(chain, epoch, chunk)? {
                return Ok(lost_below);
            }
            self.wait_for_open(chunk).await;
        }
    }

    /// Damaged bytes may be good again in a moment, also if others have damaged ones too.
    fn or_in_a_moment(&self, read: &Read, status: Status) -> Status {
        let is_in_doubt = is_of_damage(status) && self.doubt(read.chunk, read.chain);
        match status {
            Status::Corrupt if is_in_doubt => Status::Busy,
            status => status,
        }
    }

    fn reading(&self, chain: ChainId, epoch: Epoch, chunk: ChunkId) -> Result<Reading, Status> {
        self.core.lock().reading(boot_ms(), chain, epoch, chunk)
    }

    async fn wait_for_open(&self, chunk: ChunkId) {
        let (caller, opened) = oneshot::channel();
        self.take(Input::WaitForOpen { chunk, caller });
        // However it ends, the reader looks again; too many wait if it is at once.
        opened.await.ok();
        tokio::task::yield_now().await;
    }

    /// Takes what the master says of this volume. All of it replaces what was known.
    pub fn register(&self, registered: Registered) {
        self.take(Input::Registered(Box::new(registered)));
        self.table_changed();
    }

    /// A heartbeat sent at `sent_ms` of CLOCK_BOOTTIME was acknowledged.
    pub fn extend_lease(&self, sent_ms: u64, lease_ms: u64) {
        self.take(Input::Lease { sent_ms, lease_ms });
    }

    pub(crate) fn install_table(&self, table: ChainTable) {
        self.take(Input::Table(table));
        self.table_changed();
    }

    fn table_changed(&self) {
        if let Ok(mut supplied) = self.supplied.try_lock() {
            let is_syncing = |chain| self.place(chain).is_some_and(|place| !place.serves);
            supplied.keep_chains(is_syncing);
        }
        if let Some(peers) = self.peers() {
            peers.table_changed();
        }
    }

    /// Refuses writes of the session from now on. The command `ack` is done when none is under way any
    /// more.
    pub(crate) fn fence(&self, fence: Fence, ack: u64) {
        self.take(Input::Fence { fence, ack });
    }

    pub(crate) fn forget_session(&self, session: SessionId) {
        self.take(Input::ForgetSession(session));
    }

    /// Serves nothing of the chain under this epoch.
    pub(crate) fn leave(&self, chain: ChainId, epoch: Epoch) {
        self.take(Input::Leave { chain, epoch });
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        self.take(Input::Tick);
    }

    /// Answers a question about a part of a file with what is here, given below which data id all is lost.
    /// What others may have been shown, or promised to find, before the question is here before the answer.
    pub(crate) async fn ask<T>(
        &self,
        part: &FilePart,
        look: impl FnOnce(DataId) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let serves = || self.look(|core| core.part(boot_ms(), part));
        let mut lost_below = serves()?;
        let to_be_seen = || self.look(|core| core.to_be_seen(boot_ms(), part));
        let mut changes = to_be_seen();
        while !changes.is_empty() {
            let waits = changes.iter().map(|(chunk, _)| self.wait_for_open(*chunk));
            join_all(waits).await;
            lost_below = serves()?;
            let still = to_be_seen();
            changes.retain(|of| still.contains(of));
        }
        let found = look(lost_below)?;
        // What was found is good if it may still be served.
        serves()?;
        Ok(found)
    }

    pub(crate) fn accepts_term(&self, term: u64) -> bool {
        self.core.lock().accepts_term(term)
    }

    /// Looks at what the core knows.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Core) -> T) -> T {
        at(&self.core.lock())
    }

    pub(crate) fn place(&self, chain: ChainId) -> Option<Place> {
        self.core.lock().place(chain)
    }

    /// What the predecessor knows of the chain's ops, so that their retries are recognised here too.
    pub(crate) fn learn(&self, chain: ChainId, epoch: Epoch, replies: Vec<(OpId, Outcome)>) {
        self.take(Input::Taught {
            chain,
            epoch,
            replies,
        });
    }

    /// A better copy of a chunk was taken from a member that waits.
    pub(crate) fn taken(&self, copy: &ChunkCopy) {
        let (chain, version) = (copy.chain, copy.version);
        if let Some(op) = copy.op {
            self.take(Input::Taken { chain, op, version });
        }
    }

    /// Nobody who waits has a better copy of anything.
    pub(crate) fn merged(&self, chain: ChainId, epoch: Epoch) {
        self.take(Input::Merged { chain, epoch });
    }

    /// The command is done.
    pub(crate) fn note_done(&self, number: u64, result: Result<(), Status>) {
        self.tidings.lock().done.push((number, result));
        self.told.notify_one();
    }

    /// To be said to the master until its table shows that it knows.
    pub(crate) fn note_news(&self, chain: ChainId, epoch: Epoch, what: ChainEvent) {
        let news = ChainNews { chain, epoch, what };
        if self.tidings.lock().news.insert(news) {
            self.told.notify_one();
        }
    }

    /// Commands that are done since the last time.
    pub(crate) fn take_done(&self) -> Vec<(u64, Result<(), Status>)> {
        std::mem::take(&mut self.tidings.lock().done)
    }

    /// What the master is to know of chains, as far as it still matters.
    pub(crate) fn news(&self) -> Vec<ChainNews> {
        let core = self.core.lock();
        let mut tidings = self.tidings.lock();
        tidings.news.retain(|news| core.membership().is_news(news));
        let first = tidings.news.iter().take(NEWS_PER_REQUEST_MAX);
        first.copied().collect()
    }

    /// Ends when there is something that the master has not been told.
    pub(crate) async fn wait_told(&self) {
        self.told.notified().await;
    }

    /// Brings an input to the core, and performs what follows.
    pub(crate) fn take(&self, input: CoreInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.step(input) {
                inputs.extend(self.perform(effect));
            }
        }
    }

    /// What became of a change that was passed on.
    pub(crate) fn answered(&self, exchange: u64, answer: Result<Version, Status>) {
        self.take(Input::Answered { exchange, answer });
    }

    fn step(&self, input: CoreInput) -> Vec<CoreEffect> {
        let mut effects = Vec::new();
        let mut core = self.core.lock();
        core.step(boot_ms(), input, &mut effects);
        #[cfg(debug_assertions)]
        core.check();
        // Retry records: before others are given the room.
        for effect in &effects {
            match effect {
                Effect::KeepReplies => self.store.keep_sessions(|of| core.may_retry(of)),
                Effect::ForgetReplies { session } => self.store.forget_session(*session),
                Effect::Remember { chain, op, outcome } => {
                    self.store.keep_reply(Reply {
                        op: *op,
                        chain: Some(*chain),
                        outcome: Some(*outcome),
                    });
                }
                Effect::ForgetReply { op } => self.store.forget_reply(*op),
                // Before others find the chunk open.
                Effect::Discard { op, chunk } => self.store.discard(*op, *chunk),
                _ => {}
            }
        }
        effects
    }

    /// Gives what the core is to hear of it.
    fn perform(&self, effect: CoreEffect) -> Option<CoreInput> {
        match effect {
            Effect::Answer { caller, outcome } => {
                // Whoever has gone away asks again with the same op.
                caller.send(outcome).ok();
            }
            Effect::Opened { caller } => {
                caller.send(Err(Status::Busy)).ok();
            }
            Effect::Fenced { ack } => self.note_done(ack, Ok(())),
            Effect::KeepReplies
            | Effect::ForgetReplies { .. }
            | Effect::Remember { .. }
            | Effect::ForgetReply { .. }
            | Effect::Discard { .. } => {}
            Effect::Activate { chain, epoch } => self.note_news(chain, epoch, ChainEvent::Active),
            Effect::HasLeft { chain, epoch } => self.note_news(chain, epoch, ChainEvent::HasLeft),
            Effect::Report {
                chain,
                epoch,
                suspect,
            } => self.note_news(chain, epoch, ChainEvent::Suspect(suspect)),
            Effect::Left { chain, epoch } => self.note_left(chain, epoch),
            Effect::PassOn(passed) => self.pass_on(passed),
            of_store => return Some(self.perform_in_store(of_store)),
        }
        None
    }

    fn perform_in_store(&self, effect: CoreEffect) -> CoreInput {
        match effect {
            Effect::Execute { order, rule, terms } => {
                let outcome = self.store.execute(&order.body, rule, terms);
                let outcome = self.or_later(&order, rule, outcome);
                let op = order.op;
                Input::Executed { op, outcome }
            }
            Effect::Prepare { order, rule, terms } => {
                let outcome = self.store.prepare(&order.body, rule, terms);
                let outcome = self.or_later(&order, rule, outcome);
                let op = order.op;
                Input::Prepared { op, outcome }
            }
            Effect::Apply { op, chunk } => {
                self.store.apply(op, chunk);
                Input::Applied { op }
            }
            Effect::Record {
                op,
                chain,
                chunk,
                outcome,
            } => {
                self.store.record_reply(op, (chain, chunk), outcome);
                Input::Recorded { op }
            }
            other => unreachable!("{other:?} is not the store's"),
        }
    }

    /// A change that needs bytes which are damaged here is asked for again: others may have them. If that
    /// is one that others have made, they do, and this copy is not the chain's.
    fn or_later<T>(
        &self,
        order: &Order<Arc<Job>>,
        rule: Rule,
        outcome: Result<T, Failure>,
    ) -> Result<T, Failure> {
        match (outcome, rule) {
            (Err(Failure::Refused(status)), _)
                if is_of_damage(status) && self.doubt(order.chunk, order.chain) =>
            {
                Err(Failure::Refused(Status::Busy))
            }
            (Err(Failure::Refused(status)), Rule::Given { .. }) if is_of_damage(status) => {
                Err(Failure::Diverged)
            }
            (outcome, _) => outcome,
        }
    }

    fn note_left(&self, chain: ChainId, epoch: Epoch) {
        tracing::error!(%chain, %epoch, "a copy here is not the chain's: it is left, and made anew");
        if let Some(me) = self.look(|core| core.membership().volume()) {
            self.note_news(chain, epoch, ChainEvent::Suspect(me));
        }
    }

    fn pass_on(&self, passed: PassedOn<Arc<Job>>) {
        let (peers, me) = (self.peers(), self.me.upgrade());
        let (peers, me) = peers.zip(me).expect("chains of several have peers");
        let chunk = passed.order.chunk;
        peers.pass_on(me, passed);
        self.send_ahead(chunk);
    }
}

/// Bytes that should be here are not, or not what they were; it may also be that they never were.
fn is_of_damage(status: Status) -> bool {
    matches!(status, Status::Corrupt | Status::DataLost)
}

/// What may be passed on before the change itself.
fn early_bytes(job: &Job) -> Option<&Bytes> {
    match job {
        Job::Write { payload, .. } if payload.len() >= EARLY_BYTES_MIN => Some(payload),
        Job::Write { .. } | Job::Space(_) | Job::Copy { .. } | Job::Cut(_) => None,
    }
}

fn order(job: Job) -> Order<Arc<Job>> {
    let (chain, _) = job.chain();
    Order {
        chain,
        chunk: job.chunk(),
        op: job.op(),
        body: Arc::new(job),
    }
}

/// Above all that the volume has used, also in lives whose records are gone.
fn first_seq(replies: &[Reply]) -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let by_clock = since_epoch.map_or(0, |since| since.as_nanos() as u64);
    let own = replies.iter().filter(|of| !of.op.session.is_client());
    own.map(|of| of.op.seq + 1).fold(by_clock, u64::max)
}
