//! Bytes of chunks: what clients ask of volumes. A request's or a reply's bytes travel behind it as
//! the payload of a bulk transfer.

use serde::{Deserialize, Serialize};

use crate::ids::{ChainId, ChunkId, Epoch, OpId, Version};
use crate::layout::{ChainSet, Layout};
use crate::operation::operations;

operations!(
    /// Client to volume.
    DataRequest,
    /// Replies to [`DataRequest`]s.
    DataReply {
        Write -> Written,
        Read -> ReadDone,
        ChangeSpace -> Written,
        CopyBytes -> Written,
        Seek -> Sought,
        CountBlocks -> BlockCount,
        Doubt -> Doubted,
        Inventory -> Stock,
        Mend -> (),
        Scrub -> ScrubReport,
    }
);

/// Writes the payload at `offset` of a chunk; the chunk grows as needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub op: OpId,
    /// Offset within the chunk, in bytes.
    pub offset: u32,
    /// The chunk must already have this many bytes, else `DataLost`: its committed length, or 0
    /// where holes are allowed.
    pub len_expected: u32,
    /// CRC32C of each piece of the payload, cut at block borders (`sums::piece_sums`).
    pub sums: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub version: Version,
    /// Little room is left: write through from now on, instead of behind.
    pub low_space: bool,
}

/// Reads `len` bytes at `offset` of a chunk. Both are multiples of `BLOCK_BYTES`; the payload is
/// shorter where the chunk ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Read {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub offset: u32,
    /// At most `PAYLOAD_BYTES_MAX`.
    pub len: u32,
    /// As in [`Write`].
    pub len_expected: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadDone {
    pub version: Version,
    /// CRC32C of each block of the payload, as it was stored.
    pub sums: Vec<u32>,
}

/// Says that bytes read of the chunk do not match their sums. The volume looks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    pub chain: ChainId,
    pub chunk: ChunkId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubted {
    /// It is looked into, and others serve its chain too: it may be good in a moment.
    pub is_open: bool,
}

/// Asks what the volume has, in an order of its own. For [`Role::Admin`](crate::handshake::Role::Admin) alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Chunks behind this one.
    pub after: Option<ChunkId>,
}

/// At most `CHUNKS_PER_STOCK_MAX`; more may follow behind the last one, unless there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stock {
    pub chunks: Vec<StockedChunk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockedChunk {
    pub chunk: ChunkId,
    /// Whose it is; none if that is not known.
    pub chain: Option<ChainId>,
    pub content: Content,
    /// Its record or its file is missing: all of it is lost.
    pub is_bad: bool,
}

/// What the bytes of a chunk are: the same in copies that are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Content {
    pub version: Version,
    /// Bytes.
    pub len: u32,
    /// CRC32C of the sums of all blocks, each 4 bytes, little-endian.
    pub sum: u32,
}

/// These copies are not what others have of the chain: the volume is to be given them again, if another one
/// has them whole, and as it is said here. For [`Role::Admin`](crate::handshake::Role::Admin) alone. `NotServing` if the volume does
/// not serve the chain at the moment, `NotFound` or `Corrupt` if nobody else has one of them whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mend {
    pub chain: ChainId,
    pub chunks: Vec<(ChunkId, Content)>,
}

/// What becomes of the bytes of a range, and of the pages under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SpaceKind {
    /// Zeros; whole blocks give their pages back. The chunk keeps its length.
    Punch,
    /// Zeros, with a page under each block. The chunk grows as needed.
    Zero,
    /// Blocks without a page get one, of zeros; all others stay. The chunk grows as needed.
    Allocate,
}

/// Changes what `len` bytes at `offset` of a chunk are, without a payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeSpace {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub op: OpId,
    pub kind: SpaceKind,
    pub offset: u32,
    /// At least 1; at most `PAYLOAD_BYTES_MAX` unless it is a punch.
    pub len: u32,
    /// As in [`Write`].
    pub len_expected: u32,
}

/// Writes `len` bytes of another chunk, or of another place of the same one, which has its head on
/// this volume too. Holes are copied as zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyBytes {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub op: OpId,
    pub offset: u32,
    /// 1 to `COPY_BYTES_MAX`.
    pub len: u32,
    /// As in [`Write`].
    pub len_expected: u32,
    pub source: CopySource,
}

/// Where the bytes of a [`CopyBytes`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub offset: u32,
    /// As in [`Read`].
    pub len_expected: u32,
}

/// Those chunks of a file that lie on one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    pub layout: Layout,
    /// Chains of the layout's group that the asker believes to be there.
    pub chains: ChainSet,
    /// Of the chain table that the asker goes by.
    pub table_version: u64,
}

/// Looks for the first data, or the first hole, of a range of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seek {
    pub part: FilePart,
    pub target: SeekTarget,
    /// Offsets in the file, in bytes: where to begin, and where to stop.
    pub from: u64,
    pub to: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeekTarget {
    /// A block with a page; what was lost counts as data, so that it is never taken for zeros.
    Data,
    /// A block that was never written, or was punched.
    Hole,
}

/// The first offset in the range that is what was looked for; `None` if no chunk here has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    pub at: Option<u64>,
}

/// Counts the blocks of `BLOCK_BYTES` that have pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountBlocks {
    pub part: FilePart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCount {
    pub blocks: u64,
}

/// What becomes of the scrub of a volume, which compares all that is there with its sums. For
/// `Role::Admin` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scrub {
    /// Begins one in place of one that runs.
    Begin {
        bytes_per_second: u64,
    },
    Stop,
    /// Only asks.
    Report,
}

/// Of the scrub that runs, or of the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    pub state: ScrubState,
    /// Bytes of blocks that were compared.
    pub checked_bytes: u64,
    /// What the volume held when it began, with what it takes beside the bytes.
    pub total_bytes: u64,
    pub checked_chunks: u64,
    pub damaged_chunks: u64,
    /// Some of them.
    pub damaged: Vec<DamagedChunk>,
    pub took_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ScrubState {
    /// There was none in this life of the volume.
    #[default]
    Never,
    Running,
    /// It has seen everything.
    Done,
    /// It was stopped before it had.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedChunk {
    pub chunk: ChunkId,
    /// Blocks of `BLOCK_BYTES` that do not match their sums.
    pub bad_blocks: u32,
    /// Its record or its file is missing: all of it is lost.
    pub is_bad_copy: bool,
}
