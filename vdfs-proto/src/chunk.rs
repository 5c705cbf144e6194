//! Where the bytes of a file lie: pure arithmetic on offsets.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;
use crate::status::Status;

/// Bytes of one checksum block: the page of the store and the granularity of sums.
pub const BLOCK_BYTES: u32 = 4096;

/// Bytes of a full chunk: a power of two from 64 KiB to 256 MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ChunkSize(u32);

impl ChunkSize {
    pub const MIN: ChunkSize = ChunkSize(64 << 10);
    pub const MAX: ChunkSize = ChunkSize(256 << 20);
    pub const DEFAULT: ChunkSize = ChunkSize(64 << 20);

    pub fn new(bytes: u64) -> Result<Self, Status> {
        let in_range = (u64::from(Self::MIN.0)..=u64::from(Self::MAX.0)).contains(&bytes);
        if !in_range || !bytes.is_power_of_two() {
            return Err(Status::Invalid);
        }
        Ok(ChunkSize(bytes as u32))
    }

    pub fn bytes(self) -> u32 {
        self.0
    }

    /// The index of the chunk that holds `offset`.
    pub fn index_of(self, offset: u64) -> u32 {
        u32::try_from(offset / u64::from(self.0)).expect("file_bytes_max bounds every offset")
    }

    /// The largest file, in bytes: chunk indexes are 32 bits.
    pub fn file_bytes_max(self) -> u64 {
        (u64::from(self.0) << 32).min(limits::FILE_BYTES_MAX)
    }

    /// The number of bytes that a file of `size` bytes has in chunk `index`.
    pub fn chunk_len(self, size: u64, index: u32) -> u32 {
        let start = u64::from(index) * u64::from(self.0);
        size.saturating_sub(start).min(u64::from(self.0)) as u32
    }

    /// Cuts `len` bytes at `offset` of a file at chunk borders, in order.
    ///
    /// Panics if the range ends beyond [`ChunkSize::file_bytes_max`].
    pub fn spans(self, offset: u64, len: u64) -> impl Iterator<Item = ChunkSpan> {
        let end = offset.checked_add(len).expect("range fits u64");
        assert!(
            end <= self.file_bytes_max(),
            "range ends at {end}, beyond the largest file"
        );
        let mut at = offset;
        std::iter::from_fn(move || {
            if at == end {
                return None;
            }
            let within = (at % u64::from(self.0)) as u32;
            let take = u64::from(self.0 - within).min(end - at) as u32;
            let span = ChunkSpan {
                index: self.index_of(at),
                offset: within,
                len: take,
            };
            at += u64::from(take);
            Some(span)
        })
    }
}

impl fmt::Debug for ChunkSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

impl<'de> Deserialize<'de> for ChunkSize {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        ChunkSize::new(u64::from(u32::deserialize(source)?)).map_err(serde::de::Error::custom)
    }
}

/// A run of bytes within one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSpan {
    /// Which chunk of the file.
    pub index: u32,
    /// Offset within the chunk, in bytes.
    pub offset: u32,
    /// Length in bytes, at least 1.
    pub len: u32,
}

/// Cuts `len` bytes at `offset` of a chunk at block borders: (block number, offset within the
/// block, length). The pieces are what checksums cover.
pub fn block_pieces(offset: u32, len: u32) -> impl Iterator<Item = (u32, u32, u32)> {
    let end = offset.checked_add(len).expect("a chunk is at most 256 MiB");
    let mut at = offset;
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let within = at % BLOCK_BYTES;
        let take = (BLOCK_BYTES - within).min(end - at);
        let piece = (at / BLOCK_BYTES, within, take);
        at += take;
        Some(piece)
    })
}

/// The number of blocks that `len` bytes at `offset` touch.
pub fn block_count(offset: u32, len: u32) -> u32 {
    if len == 0 {
        return 0;
    }
    (offset + len).div_ceil(BLOCK_BYTES) - offset / BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunk_size_takes_only_powers_of_two_in_range() {
        assert!(ChunkSize::new(64 << 10).is_ok());
        assert!(ChunkSize::new(256 << 20).is_ok());
        for bad in [0, 1, 32 << 10, (64 << 10) + 1, 3 << 20, 512 << 20, u64::MAX] {
            assert!(ChunkSize::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn spans_cover_the_range_once_and_in_order(
            shift in 16u32..=28,
            offset in 0u64..1 << 45,
            len in 0u64..1 << 26,
        ) {
            let size = ChunkSize::new(1 << shift).expect("a power of two in range");
            let mut at = offset;
            for span in size.spans(offset, len) {
                prop_assert!(span.len > 0 && span.offset + span.len <= size.bytes());
                let start = u64::from(span.index) * u64::from(size.bytes());
                prop_assert_eq!(start + u64::from(span.offset), at);
                at += u64::from(span.len);
            }
            prop_assert_eq!(at, offset + len);
        }

        #[test]
        fn block_pieces_cover_the_range_and_count_matches(
            offset in 0u32..1 << 27,
            len in 0u32..1 << 20,
        ) {
            let mut at = offset;
            let mut count = 0;
            for (block, within, take) in block_pieces(offset, len) {
                prop_assert!(take > 0 && within + take <= BLOCK_BYTES);
                prop_assert_eq!(block * BLOCK_BYTES + within, at);
                at += take;
                count += 1;
            }
            prop_assert_eq!(at, offset + len);
            prop_assert_eq!(count, block_count(offset, len));
        }

        #[test]
        fn chunk_lens_add_up_to_the_file(size in 0u64..1 << 40, shift in 24u32..=28) {
            let chunk = ChunkSize::new(1 << shift).expect("a power of two in range");
            let last = chunk.index_of(size);
            let total: u64 = (0..=last).map(|i| u64::from(chunk.chunk_len(size, i))).sum();
            prop_assert_eq!(total, size);
        }
    }
}
