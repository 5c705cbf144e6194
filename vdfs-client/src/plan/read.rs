//! Ranges of a file as aligned reads of chunks.

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;
use vdfs_proto::{ChainId, ChunkId, ChunkSize, Layout};

use super::len_expected;

/// One read of a volume, and which of its bytes were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadSpan {
    pub(crate) chain: ChainId,
    pub(crate) chunk: ChunkId,
    /// Within the chunk; a multiple of `BLOCK_BYTES`, as is `len`.
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) len_expected: u32,
    /// Bytes of the payload before the ones asked for.
    pub(crate) skip: u32,
    /// Bytes asked for.
    pub(crate) take: u32,
}

/// The reads that bring `len` bytes at `offset`, in order. All of the range lies within the file.
pub(crate) fn plan_read(
    layout: &Layout,
    chunk_size: ChunkSize,
    offset: u64,
    len: u64,
) -> Vec<ReadSpan> {
    let mut spans = Vec::new();
    for whole in chunk_size.spans(offset, len) {
        let end = whole.offset + whole.len;
        let mut at = whole.offset;
        while at < end {
            let start = at - at % BLOCK_BYTES;
            let stop = end.min(start + PAYLOAD_BYTES_MAX as u32);
            spans.push(ReadSpan {
                chain: layout.chain(whole.index),
                chunk: ChunkId {
                    data: layout.data,
                    index: whole.index,
                },
                offset: start,
                len: stop.next_multiple_of(BLOCK_BYTES) - start,
                len_expected: len_expected(layout, chunk_size, whole.index),
                skip: at - start,
                take: stop - at,
            });
            at = stop;
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vdfs_proto::DataId;

    use super::*;

    fn layout(size: u64, holes: bool) -> Layout {
        Layout {
            data: DataId(9),
            truncations: 0,
            group: 0,
            seed: 3,
            size,
            holes,
        }
    }

    proptest! {
        #[test]
        fn plan_read_covers_the_range_in_order_with_aligned_reads(
            shift in 16u32..=28,
            offset in 0u64..1 << 30,
            len in 0u64..1 << 25,
        ) {
            let chunk_size = ChunkSize::new(1 << shift).expect("a power of two in range");
            let mut at = offset;
            for span in plan_read(&layout(u64::MAX >> 2, false), chunk_size, offset, len) {
                prop_assert_eq!((span.offset % BLOCK_BYTES, span.len % BLOCK_BYTES), (0, 0));
                prop_assert!(span.len as usize <= PAYLOAD_BYTES_MAX);
                prop_assert!(span.take > 0 && span.skip + span.take <= span.len);
                prop_assert!(span.offset + span.len <= chunk_size.bytes());
                let start = u64::from(span.chunk.index) * u64::from(chunk_size.bytes());
                prop_assert_eq!(start + u64::from(span.offset + span.skip), at);
                at += u64::from(span.take);
            }
            prop_assert_eq!(at, offset + len);
        }

        #[test]
        fn plan_read_expects_the_committed_bytes_unless_there_are_holes(
            size in 1u64..1 << 24,
            holes in any::<bool>(),
        ) {
            let chunk_size = ChunkSize::new(1 << 20).expect("a power of two in range");
            let spans = plan_read(&layout(size, holes), chunk_size, 0, size);
            for span in spans {
                let committed = chunk_size.chunk_len(size, span.chunk.index);
                prop_assert_eq!(span.len_expected, if holes { 0 } else { committed });
                prop_assert!(holes || span.offset + span.skip + span.take <= committed);
            }
        }
    }
}
