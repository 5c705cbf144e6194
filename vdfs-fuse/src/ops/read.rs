//! READ.

use fuser::{FileHandle, OpenFlags, ReplyData, Request};

use crate::door::Door;
use crate::handle::DoorHandle;

/// `offset` and `size` in bytes.
pub(crate) fn read(
    door: &Door,
    request: &Request,
    handle: FileHandle,
    (offset, size): (u64, u32),
    flags: OpenFlags,
    reply: ReplyData,
) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    let is_direct = handle.uncached || flags.0 & libc::O_DIRECT != 0;
    door.answer(request, reply, async move {
        match is_direct {
            true => fs.read_direct(handle.id, offset, size).await,
            false => fs.read(handle.id, offset, size).await,
        }
    });
}
