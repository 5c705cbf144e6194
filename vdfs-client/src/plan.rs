//! Pure arithmetic: what a layout and a range mean for volumes, and what a commit may say.

mod commit;
mod copy;
mod part;
mod read;
mod write;

pub(crate) use commit::Extents;
pub(crate) use copy::{CopyFrom, CopySpan, plan_copy};
pub(crate) use part::{Asked, plan_parts};
pub(crate) use read::{ReadSpan, plan_read};
pub(crate) use write::{WriteSpan, plan_write};

use vdfs_proto::{ChunkSize, Layout};

/// The bytes that chunk `index` must have at its volumes: its committed length, or none where holes
/// are allowed.
fn len_expected(layout: &Layout, chunk_size: ChunkSize, index: u32) -> u32 {
    if layout.holes {
        return 0;
    }
    chunk_size.chunk_len(layout.size, index)
}
