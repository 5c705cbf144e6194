//! Bytes of chunks: what clients ask of volumes. A request's or a reply's bytes travel behind it as
//! the payload of a bulk transfer.

use serde::{Deserialize, Serialize};

use crate::ids::{ChainId, ChunkId, Epoch, OpId, Version};
use crate::operation::operations;

operations!(
    /// Client to volume.
    DataRequest,
    /// Replies to [`DataRequest`]s.
    DataReply {
        Write -> Written,
        Read -> ReadDone,
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
