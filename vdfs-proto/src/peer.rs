//! What volumes ask of one another: changes that are passed down a chain, and chunks for a member
//! that is not in step yet. The asker is the predecessor, the asked its successor; or the
//! head of a chain whose members had all gone, and one that waits with it. A request's bytes travel behind
//! it as the payload of a bulk transfer.

use serde::{Deserialize, Serialize};

use crate::data::{ChangeSpace, Content, Write};
use crate::ids::{ChainId, ChunkId, Epoch, OpId, Version};
use crate::operation::operations;
use crate::status::Status;

operations!(
    /// Volume to volume.
    PeerRequest,
    /// Replies to [`PeerRequest`]s.
    PeerReply {
        Forward -> Forwarded,
        LearnReplies -> (),
        ListChunks -> ChunkList,
        PutChunk -> PutReply,
        DropChunk -> (),
        CheckChunk -> (),
        FetchBlocks -> FetchedBlocks,
    }
);

/// Passes a change on. Answered when it is applied from the successor down, or definitely refused;
/// `NotInSync` if the successor needs the chunk first. Every other failure leaves it open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// Under which it is passed on; the change itself names the one that its client knew.
    pub epoch: Epoch,
    pub base: Version,
    pub version: Version,
    pub change: PassedChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    pub version: Version,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PassedChange {
    /// With the payload.
    Write(Write),
    Space(ChangeSpace),
    Cut(CutChunk),
}

/// Drops the bytes of a chunk at and past `len`: a part of a truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutChunk {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub op: OpId,
    pub len: u32,
}

/// What ops of a chain were answered, so that the successor recognises their retries once it is the
/// head. What it remembers of earlier epochs and is not told, the chain has not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearnReplies {
    pub chain: ChainId,
    pub epoch: Epoch,
    /// At most `REPLIES_PER_LESSON_MAX`; more follow unless `is_last`.
    pub replies: Vec<(OpId, Result<Version, Status>)>,
    pub is_first: bool,
    pub is_last: bool,
}

/// Asks which chunks a successor that is syncing has, or a member that waits, of all chains, in an order of
/// its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChunks {
    /// It is about to be supplied in these, or asked for better copies.
    pub chains: Vec<(ChainId, Epoch)>,
    /// Those behind this one.
    pub after: Option<ChunkId>,
}

/// At most `CHUNKS_PER_LIST_MAX`; the list goes on behind the last one, unless it is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkList {
    pub chunks: Vec<ChunkCopy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkCopy {
    pub chain: ChainId,
    pub chunk: ChunkId,
    pub version: Version,
    pub len: u32,
    /// What made this version. None if that is not known: the bytes may be of two minds.
    pub op: Option<OpId>,
}

/// A piece of a chunk's content, which takes the place of what the successor has when its last piece
/// has come. Pieces come in order; blocks between them are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PutChunk {
    /// Of the chain.
    pub epoch: Epoch,
    pub copy: ChunkCopy,
    /// The same for all pieces of one copy: pieces of an earlier one come too late.
    pub stream: u64,
    /// Where the payload begins: a multiple of `BLOCK_BYTES`.
    pub offset: u32,
    /// CRC32C of each block of the payload, as it is stored.
    pub sums: Vec<u32>,
    pub is_first: bool,
    pub is_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReply {
    /// The successor has got the chunk some other way: the rest need not come.
    pub is_done: bool,
}

/// The chain has no such chunk: it is dropped unless it has come to be since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropChunk {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
}

/// Asks a member that waits, or serves beside the asker, for what a copy of it has in adjacent blocks, as far
/// as the asker has not. `NotInSync` if it has another copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchBlocks {
    /// Of the chain.
    pub epoch: Epoch,
    pub copy: ChunkCopy,
    /// Number of the first one.
    pub first: u32,
    /// CRC32C of each block at the asker, at most `BLOCKS_PER_FETCH_MAX`; none of one that is absent there,
    /// or damaged.
    pub sums: Vec<Option<u32>>,
}

/// The payload has the bytes of the blocks that are there and have other sums than the asker's, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchedBlocks {
    /// Of each block; none of an absent one.
    pub sums: Vec<Option<u32>>,
}

/// Asks another member that serves whether all of its copy matches its sums: `Corrupt` if not, `NotFound`
/// if it has none, or one of other content than is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckChunk {
    pub chain: ChainId,
    pub epoch: Epoch,
    pub chunk: ChunkId,
    pub expected: Option<Content>,
}
