//! The master's decisions: a deterministic state machine without IO, clock, tasks or chance.
//!
//! [`Core::step`] takes one [`Input`] at a given [`Now`] and emits [`Effect`]s. A mutation is
//! checked against the state (*plan*), becomes a [`Record`] that holds everything which depends on
//! chance or time, and the record is *applied*; replay applies the same records and so arrives at
//! the same state. What is not logged (leases, open handles, parked callers, rights) is in
//! [`Live`] and is told again by its owners after a restart.
//!
//! Invariants: [`State`] changes only in `State::apply`; what must not overtake the log (fences,
//! reaps, trims, chain tables) leaves only after [`Input::LogDurable`] covers its record; a reply
//! is emitted behind the record that it speaks of.
//!
//! Left out: writing the log, timers, frames, roles. The shell does these.

mod accesses;
mod acls;
mod budget;
mod chains;
mod check;
mod cow;
mod departed;
mod directory;
mod dispatch;
mod dump;
mod files;
mod groups;
mod healing;
mod image;
mod inode;
mod inodes;
mod limits;
mod lingering;
mod live;
mod loads;
mod lock_list;
mod lock_queues;
mod locks;
mod membership;
mod moving;
mod namespace;
mod opens;
mod outbox;
mod queries;
mod reap;
mod record;
mod registration;
mod removal;
mod replies;
mod retirement;
mod sessions;
#[cfg(feature = "simulation")]
mod simulation;
mod spread;
mod state;
mod status;
mod survey;
mod term;
mod truncation;
mod turn;
mod volumes;
mod weight;
mod writers;
mod xattrs;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::{AdminReply, AdminRequest, Answer, MutateRequest, Mutated, QueryRequest};
use vdfs_proto::session::{SessionReply, SessionRequest};
use vdfs_proto::volume::{VolumeReply, VolumeRequest};
use vdfs_proto::{ChunkSize, ClusterId, Status, Timestamp, VolumeId};

pub use budget::RamLimits;
pub use dump::{LoadError, Loader, Progress};
pub use image::{Image, Recall};
use live::Live;
use record::Record;
use state::State;

/// The time of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock; what inodes show.
    pub wall: Timestamp,
    /// `CLOCK_BOOTTIME` in milliseconds; what leases count in.
    pub boot_ms: u64,
}

/// Names one waiting caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Whose certificate a request came under. A session belongs to the one that opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub role: Role,
    /// Shared by the requests of one peer.
    pub node: Arc<str>,
}

/// What a caller asks.
#[derive(Clone, Debug, PartialEq)]
pub enum CoreRequest {
    Mutate(Peer, MutateRequest),
    Query(Peer, QueryRequest),
    Session(Peer, SessionRequest),
    Admin(AdminRequest),
    Volume {
        /// Node name in the volume's certificate.
        node: String,
        request: VolumeRequest,
    },
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum CoreReply {
    Mutate(Mutated),
    Query(Answer),
    Session(SessionReply),
    Admin(AdminReply),
    Volume(VolumeReply),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Request {
        ticket: Ticket,
        request: CoreRequest,
    },
    /// Nobody waits for it any more. Ends only the wait, never a mutation.
    Abandoned(Ticket),
    /// The first `records` records since the filesystem was made are on the disk.
    LogDurable {
        records: u64,
    },
    /// No room for another turn: mutations are answered `NoSpace`, reads are served.
    LogFull {
        why: String,
    },
    LogHasRoom,
    /// Volumes whose heartbeats were answered since the last time.
    Heard(Vec<Heard>),
    /// [`Core::next_deadline`] is due.
    Tick,
}

/// When a volume was heard last, on the scale of [`Now::boot_ms`], and how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub volume: VolumeId,
    pub heard_ms: u64,
    pub capacity_bytes: u64,
    pub used_bytes: u64,
}

/// Whose heartbeats are answered, and when it was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub registration: u64,
    pub heard_ms: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// One log record. In order, numbered 1, 2, 3.. since the filesystem was made.
    Append(Vec<u8>),
    /// Leaves when the records of this turn are written.
    Reply {
        ticket: Ticket,
        outcome: Result<CoreReply, Status>,
    },
    /// Heartbeats of the volume are answered for this registration alone, or not at all. Holds before
    /// the replies of the turn leave.
    Lease {
        volume: VolumeId,
        grant: Option<Grant>,
    },
    /// Heartbeats of the volume are left unanswered, or are answered again. Ends with its grant.
    Withhold { volume: VolumeId, is_on: bool },
    /// Somebody waits for [`Input::LogDurable`]: sync as soon as the turn is written.
    Sync,
}

/// What is fixed when a filesystem is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsConfig {
    pub cluster: ClusterId,
    pub chunk_size: ChunkSize,
    /// Members that each chain is to have, from 1 to `CHAIN_MEMBERS_MAX`: copies of each chunk. Can be
    /// changed later. `None`: nobody has said; 1, or 2 while there are volumes on two hosts.
    pub replicas: Option<u32>,
    /// Key of the hash that orders directories; random, so that nobody can make names collide.
    pub hash_key: [u8; 16],
    pub root_uid: u32,
    pub root_gid: u32,
    /// Inodes there can be.
    pub files_max: u64,
}

/// A log or a checkpoint that does not describe a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("the first record does not make a filesystem")]
    NotAFormat,
    #[error("record {number} cannot be decoded")]
    Undecodable { number: u64 },
    #[error("a checkpoint section cannot be decoded")]
    BadSection,
    #[error("a checkpoint section is missing")]
    MissingSection,
}

/// The master's state and decisions.
#[derive(Debug)]
pub struct Core {
    state: State,
    live: Live,
}

impl Core {
    /// Makes a new filesystem; gives also its first record.
    pub fn format(config: FsConfig, now: Now) -> (Core, Vec<u8>) {
        let record = Record::Format {
            config,
            at: now.wall,
        };
        let bytes = record.encode();
        let core = Core::from_first_record(&bytes).expect("a format record makes a filesystem");
        (core, bytes)
    }

    /// Replay begins here when there is no checkpoint.
    pub fn from_first_record(record: &[u8]) -> Result<Core, RestoreError> {
        let state = State::from_first_record(record)?;
        Ok(Core::of_state(state))
    }

    /// Applies the next record of the log.
    pub fn replay(&mut self, record: &[u8]) -> Result<(), RestoreError> {
        self.state.replay(record)
    }

    /// How many records the state contains.
    pub fn records(&self) -> u64 {
        self.state.records
    }

    pub fn config(&self) -> &FsConfig {
        &self.state.config
    }

    /// One instant of everything: a clone of pointers.
    pub fn image(&self) -> Image {
        Image::of(&self.state, self.live.budget.images.clone())
    }

    /// Restores what [`Image::sections`] gave.
    pub fn from_image(
        sections: impl Iterator<Item = (String, Vec<u8>)>,
    ) -> Result<Core, RestoreError> {
        Ok(Core::of_state(image::restore(sections)?))
    }

    /// After replay, before the first step: begins a new term and gives all sessions and volumes a
    /// fresh lease. `same_boot` is false if the machine has rebooted since the log was written:
    /// then its unsynced end may be gone, so all sessions end and ids skip ahead.
    pub fn start(&mut self, now: Now, same_boot: bool, effects: &mut Vec<Effect>) {
        self.begin_turn(now);
        self.start_term(same_boot);
        self.end_turn(effects);
    }

    /// Of this life of the master.
    pub fn term(&self) -> u64 {
        self.state.numbers.term
    }

    /// Takes one input and emits what follows from it.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.begin_turn(now);
        self.notice_stall();
        match input {
            Input::Request { ticket, request } => self.take_request(ticket, request),
            Input::Abandoned(ticket) => self.abandon(ticket),
            Input::LogDurable { records } => self.log_became_durable(records),
            Input::LogFull { why } => self.log_is_full(why),
            Input::LogHasRoom => self.live.log_full = None,
            Input::Heard(heard) => self.take_heard(&heard),
            Input::Tick => {}
        }
        self.run_timers();
        self.housekeep();
        self.end_turn(effects);
    }

    /// When [`Input::Tick`] is due, on the scale of [`Now::boot_ms`].
    pub fn next_deadline(&self) -> Option<u64> {
        let idle = self.live.sessions.is_empty() && self.live.volumes.is_empty();
        (!idle).then_some(self.live.next_tick_ms)
    }

    /// Asserts the invariants of the whole state. Takes time in proportion to it.
    pub fn check(&self) {
        check::check_state(&self.state);
        check::check_live(&self.state, &self.live);
    }

    fn of_state(state: State) -> Self {
        let live = Live::new(&state);
        Core { state, live }
    }

    /// A text that is equal exactly for equal logged states.
    #[cfg(test)]
    pub(crate) fn dump(&self) -> String {
        self.state.dump()
    }
}
