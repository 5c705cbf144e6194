//! READ.

use fuser::{FileHandle, INodeNo, OpenFlags, ReplyData, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::handle::DoorHandle;

/// `offset` and `size` in bytes.
pub(crate) fn read(
    door: &Door,
    request: &Request,
    (ino, handle): (INodeNo, FileHandle),
    (offset, size): (u64, u32),
    flags: OpenFlags,
    reply: ReplyData,
) {
    let (fs, kernel_cache) = (door.fs(), door.kernel_cache());
    let handle = DoorHandle::from_kernel(handle);
    let is_direct = handle.uncached || flags.0 & libc::O_DIRECT != 0;
    door.answer(request, reply, async move {
        // Of an open that bypasses the page cache the kernel asks here at once, whatever it has.
        // Dropping pages writes them out.
        if handle.uncached && fs.may_have_mapped(handle.id)? {
            let len = u64::from(size);
            kernel_cache.drop_now(Ino(ino.0), offset, len).await;
        }
        match is_direct {
            true => fs.read_direct(handle.id, offset, size).await,
            false => fs.read(handle.id, offset, size).await,
        }
    });
}
