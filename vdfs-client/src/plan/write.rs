//! A run as a write of one chunk.

use vdfs_proto::{ChainId, ChunkId, ChunkSize, Layout};

use super::len_expected;

/// Where a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteSpan {
    pub(crate) chain: ChainId,
    pub(crate) chunk: ChunkId,
    /// Within the chunk.
    pub(crate) offset: u32,
    pub(crate) len_expected: u32,
}

/// Panics if the run crosses a chunk border: runs never do.
pub(crate) fn plan_write(
    layout: &Layout,
    chunk_size: ChunkSize,
    offset: u64,
    len: u64,
) -> WriteSpan {
    let mut spans = chunk_size.spans(offset, len);
    let span = spans.next().expect("a run is not empty");
    assert!(spans.next().is_none(), "a run lies within one chunk");
    WriteSpan {
        chain: layout.chain(span.index),
        chunk: ChunkId {
            data: layout.data,
            index: span.index,
        },
        offset: span.offset,
        len_expected: len_expected(layout, chunk_size, span.index),
    }
}
