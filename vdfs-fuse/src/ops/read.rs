//! READ.

use fuser::{FileHandle, ReplyData, Request};

use crate::door::Door;
use crate::handle::DoorHandle;

/// `offset` and `size` in bytes.
pub(crate) fn read(
    door: &Door,
    request: &Request,
    handle: FileHandle,
    (offset, size): (u64, u32),
    reply: ReplyData,
) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    door.answer(request, reply, async move {
        fs.read(handle.id, offset, size).await
    });
}
