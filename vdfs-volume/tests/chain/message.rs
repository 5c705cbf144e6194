//! What travels in a simulation, and what happens in it.

use vdfs_proto::volume::{Fence, Registered};
use vdfs_proto::{ChainId, ChainTable, ChunkId, Epoch, OpId, SessionId, Status, Version};
use vdfs_volume::chain::{Input, Order};

use crate::shelf::{Cells, Patch};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Master,
    Volume(usize),
    Client(usize),
}

pub(crate) const CHAINS: u64 = 4;

/// Every chunk of a file lies in one chain here.
pub(crate) fn chain_of(chunk: ChunkId) -> ChainId {
    ChainId((chunk.data.0 % CHAINS) as u32)
}

/// Who waits for an answer of a volume.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    Writer {
        client: usize,
        op: OpId,
        chunk: ChunkId,
    },
    Reader {
        client: usize,
        read: Read,
    },
    /// A predecessor, in one of its lives.
    Above {
        volume: usize,
        life: u64,
        exchange: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) chain: ChainId,
    pub(crate) epoch: Epoch,
    pub(crate) chunk: ChunkId,
    /// Of one attempt.
    pub(crate) number: u64,
}

pub(crate) type CoreInput = Input<Patch, Caller>;

#[derive(Clone, Debug)]
pub(crate) enum Command {
    Table(ChainTable),
    /// Serve this chain no more: this volume is about to lose its place in it.
    Leave {
        chain: ChainId,
        epoch: Epoch,
    },
    Fence(Fence),
    Forget(SessionId),
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Write {
        order: Order<Patch>,
        epoch: Epoch,
    },
    Written {
        op: OpId,
        chunk: ChunkId,
        outcome: Result<Version, Status>,
    },
    Read(Read),
    ReadDone {
        number: u64,
        outcome: Result<(Version, Cells), Status>,
    },
    Forward {
        life: u64,
        exchange: u64,
        order: Order<Patch>,
        epoch: Epoch,
        base: Version,
        version: Version,
    },
    Forwarded {
        life: u64,
        exchange: u64,
        answer: Result<Version, Status>,
    },
    Register {
        life: u64,
        attempt: u64,
    },
    Registered {
        life: u64,
        attempt: u64,
        registered: Box<Registered>,
    },
    Heartbeat {
        life: u64,
        sent_us: u64,
    },
    Heard {
        life: u64,
        sent_us: u64,
    },
    Unknown {
        life: u64,
    },
    Command {
        life: u64,
        number: u64,
        command: Command,
    },
    CommandDone {
        life: u64,
        number: u64,
    },
    Activate {
        life: u64,
        chain: ChainId,
        epoch: Epoch,
    },
    Activated {
        life: u64,
        chain: ChainId,
        epoch: Epoch,
    },
    Report {
        chain: ChainId,
        epoch: Epoch,
        suspect: usize,
    },
    FetchTable,
    Table(ChainTable),
}

/// Something that happens at its time.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        from: Place,
        to: Place,
        message: Message,
    },
    /// The store has done what it was asked.
    Stored {
        volume: usize,
        life: u64,
        input: CoreInput,
    },
    /// Bytes for a reader were copied.
    Copied {
        volume: usize,
        life: u64,
        client: usize,
        read: Read,
        version: Version,
        cells: Cells,
    },
    VolumeTick {
        volume: usize,
        life: u64,
        count: u64,
    },
    VolumeStart {
        volume: usize,
    },
    /// A message to a successor, or its answer, was lost.
    ForwardLost {
        volume: usize,
        life: u64,
        exchange: u64,
        status: Status,
    },
    ClientTimer {
        client: usize,
        life: u64,
        slot: usize,
        attempt: u64,
    },
    MasterTick {
        life: u64,
    },
    MasterStart,
    /// The master's disk has taken the log up to here.
    LogDue {
        life: u64,
    },
    SessionSilent {
        session: SessionId,
    },
    Fault,
    SpaceReturns {
        volume: usize,
    },
}

/// What a part of the simulated world wants done.
#[derive(Debug)]
pub(crate) enum Action {
    Send {
        from: Place,
        to: Place,
        message: Message,
    },
    After {
        delay_us: u64,
        event: Event,
    },
    /// The rights of this session went to others.
    Release(SessionId),
}
