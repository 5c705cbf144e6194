//! FLUSH: `close(2)`, whose result the program sees, and with which its locks of the file go.

use fuser::{FileHandle, LockOwner as KernelOwner, ReplyEmpty, Request};
use vdfs_proto::LockOwner;

use crate::door::Door;
use crate::handle::DoorHandle;

pub(crate) fn flush(
    door: &Door,
    request: &Request,
    handle: FileHandle,
    owner: KernelOwner,
    reply: ReplyEmpty,
) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    let owner = LockOwner(owner.0);
    door.answer(request, reply, async move {
        fs.flush_and_unlock(handle.id, owner).await
    });
}
