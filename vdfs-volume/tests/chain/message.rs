//! What travels in a simulation, and what happens in it.

use vdfs_master::core::CoreRequest;
use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::session::SessionReply;
use vdfs_proto::volume::VolumeReply;
use vdfs_proto::{ChainId, ChunkId, Epoch, Member, OpId, SessionId, Status, Version};
use vdfs_volume::chain::{Input, Order};

use crate::node::CoreEffect;
use crate::shelf::{Cells, Patch};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Master,
    Volume(usize),
    Client(usize),
}

pub(crate) const CHAINS: u64 = 4;
/// That are there from the begin, and those that come later, one each second.
pub(crate) const FILES: u64 = 2 * CHAINS;
pub(crate) const LATE_FILES: u64 = 40;

/// Every chunk of a file lies in one chain here.
pub(crate) fn chain_of(chunk: ChunkId) -> ChainId {
    ChainId((chunk.data.0 % CHAINS) as u32)
}

/// Who waits for an answer of a volume.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    Writer {
        client: usize,
        /// Of the client's attempts at this op: it hears of no other any more.
        attempt: u64,
        op: OpId,
        chunk: ChunkId,
    },
    Reader {
        client: usize,
        read: Read,
    },
    /// The volume itself: whoever has asked it for a cut asks again.
    Own {
        op: OpId,
    },
    /// A predecessor, in one of its lives.
    Above {
        volume: usize,
        life: u64,
        exchange: u64,
        /// Of a chunk that this volume follows while it is syncing.
        syncing: Option<(ChainId, Epoch, ChunkId)>,
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

/// What the master answers.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Volume(VolumeReply),
    Session(SessionReply),
    Refused(Status),
}

/// A chunk as one volume tells another of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) copy: ChunkCopy,
    /// What the last change was made for: for the history alone.
    pub(crate) base: Version,
}

/// Cells of a chunk that is given.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) at: usize,
    pub(crate) cells: Vec<u64>,
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
}

/// What ops of a chain were answered, in this epoch.
pub(crate) type Lesson = (ChainId, Epoch, Vec<(OpId, vdfs_volume::chain::Outcome)>);

/// What a predecessor asks of a successor that is syncing, and a head of a member that waits.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Learn(Vec<Lesson>),
    List(Vec<(ChainId, Epoch)>),
    Put {
        epoch: Epoch,
        told: Told,
        stream: u64,
        piece: Piece,
    },
    Drop {
        chain: ChainId,
        epoch: Epoch,
        chunk: ChunkId,
    },
    ListToMerge {
        chain: ChainId,
        epoch: Epoch,
    },
    Fetch {
        chain: ChainId,
        epoch: Epoch,
        copy: ChunkCopy,
        at: usize,
        cells: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Done,
    List(Vec<ChunkCopy>),
    Put { is_done: bool },
    Fetched { told: Told, piece: Piece },
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Write {
        order: Order<Patch>,
        epoch: Epoch,
        attempt: u64,
    },
    Written {
        attempt: u64,
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
    Ask {
        life: u64,
        call: u64,
        ask: Ask,
    },
    Reply {
        life: u64,
        call: u64,
        reply: Result<Reply, Status>,
    },
    /// To the master, by one life of a volume or client.
    Call {
        life: u64,
        call: u64,
        request: Box<CoreRequest>,
    },
    Answer {
        life: u64,
        call: u64,
        said: Box<Said>,
    },
}

impl Message {
    /// The call of one life to the master.
    pub(crate) fn call((life, call): (u64, u64), request: CoreRequest) -> Self {
        let request = Box::new(request);
        Message::Call {
            life,
            call,
            request,
        }
    }
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
    /// The thread that stood still goes on.
    PerformLate {
        volume: usize,
        life: u64,
        effect: CoreEffect,
    },
    /// A reader that waited for a chunk looks again.
    ReadAgain {
        volume: usize,
        life: u64,
        client: usize,
        read: Read,
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
    /// An ask, or its reply, was lost.
    AskLost {
        volume: usize,
        life: u64,
        call: u64,
        status: Status,
    },
    /// A chunk that was closed is looked at again.
    GiveAgain {
        volume: usize,
        life: u64,
        giving: u64,
    },
    /// A successor may be supplied anew.
    SupplyAgain {
        volume: usize,
        life: u64,
        peer: usize,
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
    ClientStart {
        client: usize,
        life: u64,
    },
    ClientBeat {
        client: usize,
        life: u64,
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
    /// The chain has lost all that it had.
    Lost(ChainId),
    /// The chain goes on with what this volume has; `is_complete` unless others were in sync and are not
    /// back: it may lack what they had shown.
    Resumed {
        chain: ChainId,
        head: Member,
        epoch: Epoch,
        is_complete: bool,
    },
}
