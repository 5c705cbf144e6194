//! What a volume and the master say to each other. The volume always asks: it keeps one
//! [`NextCommands`] parked at the master, which also acknowledges what it has done.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::attr::Timestamp;
use crate::chunk::ChunkSize;
use crate::ids::{ChainId, DataId, Epoch, OpId, SessionId, StoreId, VolumeId};
use crate::layout::{ChainTable, Layout};
use crate::operation::operations;
use crate::status::Status;
use crate::totals::NetTotals;

operations!(
    /// Volume to master.
    VolumeRequest,
    /// Replies to [`VolumeRequest`]s.
    VolumeReply {
        Register -> Registered,
        Heartbeat -> HeartbeatAck,
        NextCommands -> Commands,
    }
);

/// Begins one incarnation of a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Register {
    pub name: String,
    pub host: String,
    pub addr: SocketAddr,
    pub store: StoreId,
    /// Random; the exclusive lock on the store proves every earlier incarnation dead.
    pub incarnation: u64,
    /// What chunks may take, in bytes.
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// The highest data id in the store: one above the master's mark means lost history.
    pub data_id_max: DataId,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    pub volume: VolumeId,
    /// Named in what follows; another one each time, over all terms of the master.
    pub registration: u64,
    /// Of this life of the master; commands of a lower term are refused.
    pub term: u64,
    pub chunk_size: ChunkSize,
    pub table: ChainTable,
    /// All fences in force, before the first lease. Each is ordered too where the master waits for the end of
    /// what may be under way.
    pub fences: Vec<Fence>,
    /// The next data id that the master gives out.
    pub data_next: DataId,
    /// Sessions whose retry records are kept; records of others are dropped.
    pub live_sessions: Vec<SessionId>,
    /// The next session that the master opens: all below that are not named here have ended, or were opened
    /// by a log that has lost its end.
    pub session_next: SessionId,
}

/// Writes of `session` are refused at commit; numbered, so that a late one is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub number: u64,
    pub session: SessionId,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub volume: VolumeId,
    /// As which the volume knows itself taken in: whoever has not heard of his last one gets no lease.
    pub registration: u64,
    pub capacity_bytes: u64,
    pub used_bytes: u64,
}

/// Extends the lease, counted from when the heartbeat was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    pub term: u64,
    pub lease_ms: u64,
}

/// Waits at most `EVENTS_PARK_MS` for commands numbered above `seen`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextCommands {
    pub volume: VolumeId,
    pub incarnation: u64,
    pub registration: u64,
    /// The last command taken.
    pub seen: u64,
    /// The volume's clock, so that the master can say whose differs.
    pub wall: Timestamp,
    /// What its door has seen, for the status.
    pub net: NetTotals,
    /// Said again until the chain table shows that the master has it.
    pub news: Vec<ChainNews>,
    /// What became of commands since the last `NextCommands`. A repeated result is harmless.
    pub results: Vec<(u64, Result<(), Status>)>,
}

/// What a member has to say of a chain in its present epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainNews {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub what: ChainEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChainEvent {
    /// From the head: it has taken over, and acknowledges what clients write from now on.
    Active,
    /// From the last one that serves: the member that is syncing has all that it has.
    InSync(VolumeId),
    /// The sender serves the chain no more, as it was told.
    HasLeft,
    /// This member does not answer, or is the sender itself, whose copy is not the chain's: it must
    /// lose its place.
    Suspect(VolumeId),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commands {
    pub term: u64,
    /// Ascending by number.
    pub commands: Vec<(u64, Command)>,
}

/// Orders of the master. Each is idempotent, and leaves only after its log record is synced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Table(ChainTable),
    /// Cut a file, as far as it lies here: chunk `index` to `len` bytes, and all behind it to
    /// nothing. Done under an op id of the master's own session, which is new each time it is sent.
    Trim {
        op: OpId,
        layout: Layout,
        index: u32,
        len: u32,
    },
    /// Drop all chunks of these ids; they answer `Gone` from now on.
    Reap {
        ids: Vec<DataId>,
    },
    /// Refuse the session's writes; done when its pending ones have ended.
    Fence(Fence),
    /// The session has ended: drop its retry records and its fence.
    ForgetSession(SessionId),
    /// Serve nothing of the chain under this epoch: this volume is about to lose its place.
    Leave {
        chain: ChainId,
        epoch: Epoch,
    },
}
