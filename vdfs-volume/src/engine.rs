//! Performs what the chain core decides: the store's work, and the answers.
//!
//! Whoever brings an input to the core performs what follows from it, and brings back what became of
//! it, until nothing follows any more. So a change is made on the thread of the request that brought
//! it, or of the one that it waited for; and a caller who goes away ends only its own wait.
//!
//! Lock order: the core, then whatever the store locks. No work of the store is done under the core's
//! lock but dropping retry records.
//!
//! Left out: chains of several members. The core decides for them too, but nothing is passed on yet:
//! their requests are `NotSupported`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use vdfs_net::clock::boot_ms;
use vdfs_proto::data::{FilePart, Read, ReadDone, Written};
use vdfs_proto::volume::{Fence, Registered};
use vdfs_proto::{ChainId, ChainTable, DataId, Epoch, SessionId, Status, Version};

use crate::chain::{Effect, Input, Member, Order, Reading};
use crate::store::{Job, Store};

type Caller = oneshot::Sender<Result<Version, Status>>;
type Core = Member<Arc<Job>, Caller>;
type CoreInput = Input<Arc<Job>, Caller>;
type CoreEffect = Effect<Arc<Job>, Caller>;

/// A store, and the core that decides what is done to it.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    core: Mutex<Core>,
    /// Numbers of fences that have taken hold, until somebody takes them.
    fenced: Mutex<Vec<u64>>,
    fence_held: Notify,
    /// The fences of a registration have taken hold.
    registered: Notify,
}

/// A change that was begun. Dropping it ends only the wait.
#[derive(Debug)]
pub struct BegunChange<'a> {
    store: &'a Store,
    answer: oneshot::Receiver<Result<Version, Status>>,
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
    pub fn new(store: Store) -> Self {
        let core = Member::new(store.id(), store.replies(), store.replies_max());
        Engine {
            store,
            core: Mutex::new(core),
            fenced: Mutex::default(),
            fence_held: Notify::new(),
            registered: Notify::new(),
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes a client's change in. Refuses what [`Store::check`] does, and with `StaleEpoch`,
    /// `NotServing` or `NotSupported`; all else is the answer's.
    pub fn begin(&self, job: Job) -> Result<BegunChange<'_>, Status> {
        self.store.check(&job)?;
        let (chain, epoch) = job.chain();
        {
            let core = self.core.lock();
            core.sole_place(chain, epoch)?;
            core.check_data(job.chunk().data)?;
        }
        let (caller, answer) = oneshot::channel();
        let order = Order {
            chain,
            chunk: job.chunk(),
            op: job.op(),
            body: Arc::new(job),
        };
        self.take(Input::Request {
            order,
            epoch,
            caller,
        });
        Ok(BegunChange {
            store: &self.store,
            answer,
        })
    }

    /// Reads as [`Store::read`] does, if this volume serves the chain under that epoch.
    pub fn read(&self, read: &Read) -> Result<(ReadDone, Bytes), Status> {
        let lost_below = self.may_read(read)?;
        let copied = self.store.read(read, lost_below)?;
        // What was copied is good if it may still be served.
        self.may_read(read)?;
        Ok(copied)
    }

    /// Data ids below the one given without a record are lost.
    fn may_read(&self, read: &Read) -> Result<DataId, Status> {
        let core = self.core.lock();
        core.sole_place(read.chain, read.epoch)?;
        match core.reading(boot_ms(), read.chain, read.epoch, read.chunk)? {
            Reading::Now(lost_below) => Ok(lost_below),
            Reading::WhenOpen => Err(Status::Busy),
        }
    }

    /// Takes what the master says of this volume. All of it replaces what was known. Ends when the
    /// fences have taken hold; one caller at a time.
    pub async fn register(&self, registered: Registered) {
        self.take(Input::Registered(Box::new(registered)));
        self.registered.notified().await;
    }

    /// A heartbeat sent at `sent_ms` of CLOCK_BOOTTIME was acknowledged.
    pub fn extend_lease(&self, sent_ms: u64, lease_ms: u64) {
        self.take(Input::Lease { sent_ms, lease_ms });
    }

    pub(crate) fn install_table(&self, table: ChainTable) {
        self.take(Input::Table(table));
    }

    /// Refuses writes of the session from now on. [`Engine::take_fenced`] gives `ack` when none is
    /// under way any more.
    pub(crate) fn fence(&self, fence: Fence, ack: u64) {
        self.take(Input::Fence { fence, ack });
    }

    pub(crate) fn forget_session(&self, session: SessionId) {
        self.take(Input::ForgetSession(session));
    }

    /// The epoch of a chain that this volume serves alone.
    pub(crate) fn epoch_alone(&self, chain: ChainId) -> Result<Epoch, Status> {
        let core = self.core.lock();
        let place = core.place(chain).ok_or(Status::NotServing)?;
        Ok(core.sole_place(chain, place.epoch)?.epoch)
    }

    /// Data ids below this one without a record are lost, in a chain that this volume serves alone.
    pub(crate) fn lost_below(&self, chain: ChainId, epoch: Epoch) -> Result<DataId, Status> {
        Ok(self.core.lock().sole_place(chain, epoch)?.lost_below)
    }

    /// Checks that all chains of a part of a file are here, as the asker believes; gives the highest
    /// `lost_below` of them.
    pub(crate) fn part(&self, part: &FilePart) -> Result<DataId, Status> {
        self.core.lock().part(part)
    }

    pub(crate) fn accepts_term(&self, term: u64) -> bool {
        self.core.lock().accepts_term(term)
    }

    /// Fences that have taken hold since the last time.
    pub(crate) fn take_fenced(&self) -> Vec<u64> {
        std::mem::take(&mut *self.fenced.lock())
    }

    /// Ends when there is something for [`Engine::take_fenced`].
    pub(crate) async fn wait_fenced(&self) {
        while self.fenced.lock().is_empty() {
            self.fence_held.notified().await;
        }
    }

    /// Brings an input to the core, and performs what follows.
    fn take(&self, input: CoreInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.step(input) {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn step(&self, input: CoreInput) -> Vec<CoreEffect> {
        let mut effects = Vec::new();
        let mut core = self.core.lock();
        core.step(boot_ms(), input, &mut effects);
        #[cfg(debug_assertions)]
        core.check();
        // Before others are given the room.
        for effect in &effects {
            match effect {
                Effect::KeepReplies => self.store.keep_sessions(|of| core.may_retry(of)),
                Effect::ForgetReplies { session } => self.store.forget_session(*session),
                _ => {}
            }
        }
        effects
    }

    /// Gives what the core is to hear of it.
    fn perform(&self, effect: CoreEffect) -> Option<CoreInput> {
        match effect {
            Effect::Execute { order, rule, terms } => {
                let outcome = self.store.execute(&order.body, rule, terms);
                let op = order.op;
                Some(Input::Executed { op, outcome })
            }
            Effect::Record { op, chunk, outcome } => {
                self.store.record_reply(op, chunk, outcome);
                Some(Input::Recorded { op })
            }
            Effect::Answer { caller, outcome } => {
                // Whoever has gone away asks again with the same op.
                caller.send(outcome).ok();
                None
            }
            Effect::Opened { caller } => {
                caller.send(Err(Status::Busy)).ok();
                None
            }
            Effect::Fenced { ack } => {
                self.fenced.lock().push(ack);
                self.fence_held.notify_one();
                None
            }
            Effect::FencesHold => {
                self.registered.notify_one();
                None
            }
            Effect::KeepReplies | Effect::ForgetReplies { .. } => None,
            // The master does so by itself for chains of one member.
            Effect::Activate { .. } => None,
            Effect::Prepare { .. }
            | Effect::Apply { .. }
            | Effect::Discard { .. }
            | Effect::Forward { .. }
            | Effect::Report { .. }
            | Effect::Left { .. } => unreachable!("no request for several members is taken in"),
        }
    }
}
