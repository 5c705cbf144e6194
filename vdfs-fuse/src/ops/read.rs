//! READ.

use fuser::{FileHandle, INodeNo, OpenFlags, ReplyData, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::handle::DoorHandle;

/// For whom the kernel reads. It names the owner of locks for a `read(2)` that bypasses the page cache,
/// and nobody for pages that it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Program,
    PageCache,
}

/// `offset` and `size` in bytes.
pub(crate) fn read(
    door: &Door,
    request: &Request,
    (ino, handle): (INodeNo, FileHandle),
    (offset, size): (u64, u32),
    (asker, flags): (Asker, OpenFlags),
    reply: ReplyData,
) {
    let (fs, kernel_cache) = (door.fs(), door.kernel_cache());
    let handle = DoorHandle::from_kernel(handle);
    let is_direct = handle.uncached || flags.0 & libc::O_DIRECT != 0;
    if asker == Asker::PageCache {
        kernel_cache.note_fill(Ino(ino.0));
    }
    door.answer(request, reply, async move {
        // Of an open that bypasses the page cache the kernel asks here at once, whatever it has.
        // Dropping pages writes them out. Not for a page of a private mapping: it would wait for
        // the very page that this fills.
        if handle.uncached && asker == Asker::Program && fs.may_have_mapped(handle.id)? {
            let len = u64::from(size);
            kernel_cache.drop_now(Ino(ino.0), offset, len).await;
        }
        match is_direct {
            true => fs.read_direct(handle.id, offset, size).await,
            false => fs.read(handle.id, offset, size).await,
        }
    });
}
