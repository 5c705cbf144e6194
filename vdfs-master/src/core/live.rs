//! What is not logged: leases, open handles, parked callers, messages under way. Its owners tell it
//! again after a restart, or it is asked for again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use vdfs_proto::meta::{MutateRequest, QueryRequest};
use vdfs_proto::session::{Event, OpenHandle, OpenSession, Right};
use vdfs_proto::volume::{Command, Register};
use vdfs_proto::{
    ChainId, ChainTable, DataId, Epoch, HandleId, Ino, NetTotals, OpId, SessionId, VolumeId,
};

use super::budget::Budget;
use super::departed::Departed;
use super::dispatch::WaitFor;
use super::limits::LOW_SPACE_FRACTION;
use super::lingering::Lingering;
use super::lock_queues::LockQueues;
use super::moving::Progress;
use super::opens::Opens;
use super::outbox::Outbox;
use super::removal::Removal;
use super::state::State;
use super::survey::Survey;
use super::truncation::Work;
use super::{CoreReply, Effect, Now, Peer, Ticket};

#[derive(Debug)]
pub(crate) struct Live {
    /// Of the present step.
    pub(crate) now: Now,
    pub(crate) started_ms: u64,
    /// What the present step emits.
    pub(crate) effects: Vec<Effect>,
    pub(crate) next_tick_ms: u64,
    /// Why mutations are refused, if they are.
    pub(crate) log_full: Option<String>,
    pub(crate) log_full_since_ms: u64,
    /// A volume knows data ids that this log does not.
    pub(crate) history_lost: Option<String>,
    /// So many records are on the disk.
    pub(crate) durable: u64,
    /// What waits for a record to be durable, by its number.
    pub(crate) after_durable: BTreeMap<u64, Vec<AfterDurable>>,
    pub(crate) sessions: BTreeMap<SessionId, LiveSession>,
    /// Sessions whose parked poll may have its answer.
    pub(crate) woken: BTreeSet<SessionId>,
    /// Live sessions that have not yet said what they hold open, after a restart.
    pub(crate) unresumed: BTreeSet<SessionId>,
    /// Those that have not done so by then end: everybody waits for them.
    pub(crate) resume_by_ms: u64,
    pub(crate) closings: BTreeMap<SessionId, LiveClosing>,
    /// Callers that wait for the end of their predecessor.
    pub(crate) opening: Vec<Opening>,
    pub(crate) opens: Opens,
    /// Where each caller waits that is not answered yet, so that one who has gone is found at once.
    pub(crate) seats: BTreeMap<Ticket, Seat>,
    /// Mutations that are parked, with who waits for each.
    pub(crate) in_progress: BTreeMap<(SessionId, u16), InProgress>,
    pub(crate) works: BTreeMap<Ino, Work>,
    pub(crate) append_waiters: BTreeMap<Ino, VecDeque<Parked>>,
    /// What must know all open handles first.
    pub(crate) resume_waiters: VecDeque<Parked>,
    pub(crate) lock_queues: LockQueues,
    pub(crate) recalls: BTreeMap<u64, AskedBack>,
    pub(crate) next_recall: u64,
    pub(crate) departed: Departed,
    pub(crate) lingering: Lingering,
    /// Orphans to look at again.
    pub(crate) maybe_dead: BTreeSet<Ino>,
    /// Tails to be marked once the log has room.
    pub(crate) tails_to_mark: BTreeSet<Ino>,
    /// Have stopped writing, which is to be logged at the next tick.
    pub(crate) closed_writers: BTreeSet<(SessionId, Ino)>,
    pub(crate) volumes: BTreeMap<VolumeId, LiveVolume>,
    /// When a chain lost a member last.
    pub(crate) lost_member_ms: u64,
    /// Whom each chain has lost last, in this term.
    pub(crate) last_removed: BTreeMap<ChainId, VolumeId>,
    /// Since when the first member of a chain that waits is back.
    pub(crate) waiting_since_ms: BTreeMap<ChainId, u64>,
    /// Members that were asked to leave.
    pub(crate) removals: BTreeMap<ChainId, Removal>,
    /// When members were asked last because chains move.
    pub(crate) departures_ms: u64,
    /// How far chains have moved to balance volumes, while some are to.
    pub(crate) balance: Option<Progress>,
    /// The same of volumes that are drained.
    pub(crate) drains: BTreeMap<VolumeId, Progress>,
    /// Volumes that get no leases because of that.
    pub(crate) withheld: BTreeSet<VolumeId>,
    /// The chain table as of the last durable change: what others may see.
    pub(crate) table: Arc<ChainTable>,
    pub(crate) survey: Survey,
    pub(crate) budget: Budget,
}

#[derive(Debug)]
pub(crate) struct LiveSession {
    pub(crate) heard_ms: u64,
    pub(crate) handles: BTreeMap<HandleId, OpenHandle>,
    pub(crate) outbox: Outbox<Event>,
    /// It has not fetched its events for too long: it is ended.
    pub(crate) deaf: bool,
    /// Its wall clock less the master's, when it last told it.
    pub(crate) clock_ahead_ms: Option<i64>,
}

/// A session that is fenced before it ends.
#[derive(Debug, Default)]
pub(crate) struct LiveClosing {
    /// Fences may go out.
    pub(crate) durable: bool,
    /// Volumes that may still take its writes, or have some under way.
    pub(crate) awaiting: BTreeSet<VolumeId>,
}

#[derive(Debug)]
pub(crate) struct LiveVolume {
    /// Of its registration in this term; `None` until it registers (again).
    pub(crate) incarnation: Option<u64>,
    /// The record of its last life, if it was taken in within this term.
    pub(crate) logged_as: u64,
    /// Number of its last registration, above those of all earlier terms.
    pub(crate) registration: u64,
    pub(crate) away: bool,
    pub(crate) heard_ms: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) used_bytes: u64,
    /// Its wall clock less the master's, when it last told it.
    pub(crate) clock_ahead_ms: Option<i64>,
    /// What its door has seen, when it last told.
    pub(crate) net: NetTotals,
    pub(crate) outbox: Outbox<Command>,
    pub(crate) sent: BTreeMap<u64, Sent>,
    /// Free slots of the master's own session there.
    pub(crate) free_slots: BTreeSet<u16>,
    pub(crate) next_seq: u64,
    /// Ids whose reap is durable and not yet sent.
    pub(crate) reap_ready: VecDeque<DataId>,
    /// The batch under way.
    pub(crate) reaping: Vec<DataId>,
    /// Acknowledged, not yet logged.
    pub(crate) reaped: Vec<DataId>,
    /// The log has lost ids that the volume knows: nothing is deleted there.
    pub(crate) keeps_all: bool,
}

/// What a command to a volume was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Trim(Ino),
    Reap,
    Fence(SessionId),
    Leave(ChainId, Epoch),
    /// Nobody waits for its result.
    News,
}

#[derive(Debug)]
pub(crate) enum AfterDurable {
    Reply(Ticket, CoreReply),
    Registered {
        ticket: Ticket,
        volume: VolumeId,
        register: Register,
        /// As of that record.
        table: Arc<ChainTable>,
    },
    Fence(SessionId),
    Forget(SessionId),
    Trim(Ino),
    Reap(Vec<DataId>),
    /// What a volume with a new store has to drop.
    Inherited(VolumeId, Vec<DataId>),
    /// Everybody may see it.
    Table(Arc<ChainTable>),
}

/// A caller that waits for the end of its predecessor.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) ticket: Ticket,
    pub(crate) owner: Peer,
    pub(crate) open: OpenSession,
}

#[derive(Debug)]
pub(crate) struct InProgress {
    pub(crate) seq: u64,
    /// `None` if nobody waits any more.
    pub(crate) ticket: Option<Ticket>,
}

/// Where a caller waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seat {
    /// For a mutation in progress.
    Op(SessionId, u16),
    Query(WaitFor),
    /// For the end of its predecessor.
    Opening,
    Events(SessionId),
    Commands(VolumeId),
}

/// A request that is taken up again later.
#[derive(Debug)]
pub(crate) enum Parked {
    Mutation(MutateRequest),
    Query(Ticket, QueryRequest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recall {
    pub(crate) session: SessionId,
    pub(crate) ino: Ino,
    pub(crate) right: Right,
}

/// A recall under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedBack {
    pub(crate) recall: Recall,
    pub(crate) asked_ms: u64,
    /// When the session last said that it is about it.
    pub(crate) heard_ms: u64,
}

impl Live {
    pub(crate) fn new(state: &State) -> Self {
        Live {
            now: Now {
                wall: vdfs_proto::Timestamp::default(),
                boot_ms: 0,
            },
            started_ms: 0,
            effects: Vec::new(),
            next_tick_ms: 0,
            log_full: None,
            log_full_since_ms: 0,
            history_lost: None,
            durable: 0,
            after_durable: BTreeMap::new(),
            sessions: BTreeMap::new(),
            woken: BTreeSet::new(),
            unresumed: BTreeSet::new(),
            resume_by_ms: 0,
            closings: BTreeMap::new(),
            opening: Vec::new(),
            opens: Opens::default(),
            seats: BTreeMap::new(),
            in_progress: BTreeMap::new(),
            works: BTreeMap::new(),
            append_waiters: BTreeMap::new(),
            resume_waiters: VecDeque::new(),
            lock_queues: LockQueues::new(0),
            recalls: BTreeMap::new(),
            next_recall: 1,
            departed: Departed::default(),
            lingering: Lingering::default(),
            maybe_dead: BTreeSet::new(),
            tails_to_mark: BTreeSet::new(),
            closed_writers: BTreeSet::new(),
            volumes: BTreeMap::new(),
            lost_member_ms: 0,
            last_removed: BTreeMap::new(),
            waiting_since_ms: BTreeMap::new(),
            removals: BTreeMap::new(),
            departures_ms: 0,
            balance: None,
            drains: BTreeMap::new(),
            withheld: BTreeSet::new(),
            table: state.table.clone(),
            survey: Survey::default(),
            budget: Budget::default(),
        }
    }

    /// Somebody has the inode open, or may have, or it is being worked on.
    pub(crate) fn is_pinned(&self, ino: Ino) -> bool {
        !self.unresumed.is_empty() || self.opens.is_open(ino) || self.works.contains_key(&ino)
    }

    pub(crate) fn reply(&mut self, ticket: Ticket, outcome: Result<CoreReply, vdfs_proto::Status>) {
        self.seats.remove(&ticket);
        self.effects.push(Effect::Reply { ticket, outcome });
    }

    /// Queues a command. A volume that is not registered is told what it missed when it registers.
    pub(crate) fn send(&mut self, volume: VolumeId, command: Command, sent: Sent) {
        let Some(live) = self.volumes.get_mut(&volume) else {
            return;
        };
        if !live.is_registered() {
            return;
        }
        match live.outbox.push(command) {
            Some(number) => drop(live.sent.insert(number, sent)),
            None => {
                live.leave();
                self.effects.push(Effect::Lease {
                    volume,
                    grant: None,
                });
            }
        }
    }

    /// Queues an event. A session that does not fetch its events is ended by its lease.
    pub(crate) fn notify(&mut self, session: SessionId, event: Event) {
        self.woken.insert(session);
        if let Some(live) = self.sessions.get_mut(&session) {
            let pushed = live.outbox.push(event);
            live.deaf |= pushed.is_none();
        }
    }
}

impl LiveSession {
    pub(crate) fn new(term: u64, now_ms: u64) -> Self {
        LiveSession {
            heard_ms: now_ms,
            handles: BTreeMap::new(),
            outbox: Outbox::new(term),
            deaf: false,
            clock_ahead_ms: None,
        }
    }
}

impl LiveVolume {
    pub(crate) fn new(term: u64, now_ms: u64) -> Self {
        LiveVolume {
            incarnation: None,
            logged_as: 0,
            registration: term << 32,
            away: false,
            heard_ms: now_ms,
            capacity_bytes: 0,
            used_bytes: 0,
            clock_ahead_ms: None,
            net: NetTotals::default(),
            outbox: Outbox::new(term),
            sent: BTreeMap::new(),
            free_slots: (0..vdfs_proto::limits::DATA_SLOTS_PER_SESSION).collect(),
            next_seq: (term << 32) + 1,
            reap_ready: VecDeque::new(),
            reaping: Vec::new(),
            reaped: Vec::new(),
            keeps_all: false,
        }
    }

    /// An op id of the master's own session, if a slot is free.
    pub(crate) fn take_slot(&mut self) -> Option<OpId> {
        let slot = self.free_slots.pop_first()?;
        Some(OpId {
            session: SessionId::MASTER,
            slot,
            seq: self.take_seq(),
        })
    }

    pub(crate) fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.incarnation.is_some()
    }

    /// New files go elsewhere before it is full.
    pub(crate) fn has_room(&self) -> bool {
        self.room_bytes() > 0
    }

    /// What others may still give it.
    pub(crate) fn room_bytes(&self) -> u64 {
        let usable_bytes = self.capacity_bytes - self.capacity_bytes / LOW_SPACE_FRACTION;
        usable_bytes.saturating_sub(self.used_bytes)
    }

    /// It must register again before it is served or asked anything.
    pub(crate) fn leave(&mut self) {
        self.incarnation = None;
        self.outbox.clear();
        self.sent.clear();
        self.return_reaps();
    }

    pub(crate) fn return_reaps(&mut self) {
        for id in self.reaping.drain(..).rev() {
            self.reap_ready.push_front(id);
        }
    }
}
