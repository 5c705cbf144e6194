//! A range of one file and a range of another as pieces that lie within one chunk of each.

use vdfs_proto::limits::COPY_BYTES_MAX;
use vdfs_proto::{ChainId, ChunkId, ChunkSize, Layout};

use super::len_expected;

/// Where a volume finds the bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyFrom {
    pub(crate) chain: ChainId,
    pub(crate) chunk: ChunkId,
    /// Within the chunk.
    pub(crate) offset: u32,
    pub(crate) len_expected: u32,
}

/// A piece of a copy, by offsets in both files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopySpan {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// At most `COPY_BYTES_MAX`.
    pub(crate) len: u64,
}

/// Cuts a copy of `len` bytes, in order.
pub(crate) fn plan_copy(
    chunk_size: ChunkSize,
    (from, to): (u64, u64),
    len: u64,
) -> impl Iterator<Item = CopySpan> {
    let chunk = u64::from(chunk_size.bytes());
    let mut done = 0;
    std::iter::from_fn(move || {
        let (from, to) = (from + done, to + done);
        let len = (len - done)
            .min(u64::from(COPY_BYTES_MAX))
            .min(chunk - from % chunk)
            .min(chunk - to % chunk);
        done += len;
        (len > 0).then_some(CopySpan { from, to, len })
    })
}

impl CopySpan {
    /// The source of the piece, all of which lies within the file of this layout.
    pub(crate) fn source(&self, layout: &Layout, chunk_size: ChunkSize) -> CopyFrom {
        let index = chunk_size.index_of(self.from);
        let offset = (self.from % u64::from(chunk_size.bytes())) as u32;
        let len_expected = match layout.holes {
            true => 0,
            // The file may have grown since the layout was given.
            false => len_expected(layout, chunk_size, index).max(offset + self.len as u32),
        };
        CopyFrom {
            chain: layout.chain(index),
            chunk: ChunkId {
                data: layout.data,
                index,
            },
            offset,
            len_expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plan_copy_covers_both_ranges_within_chunks(
            shift in 16u32..=28,
            from in 0u64..1 << 30,
            to in 0u64..1 << 30,
            len in 0u64..1 << 24,
        ) {
            let chunk_size = ChunkSize::new(1 << shift).expect("a power of two in range");
            let mut done = 0;
            for span in plan_copy(chunk_size, (from, to), len) {
                prop_assert_eq!((span.from, span.to), (from + done, to + done));
                prop_assert!(span.len > 0 && span.len <= u64::from(COPY_BYTES_MAX));
                for start in [span.from, span.to] {
                    let last = start + span.len - 1;
                    prop_assert_eq!(chunk_size.index_of(start), chunk_size.index_of(last));
                }
                done += span.len;
            }
            prop_assert_eq!(done, len);
        }
    }
}
