//! FSYNC and FSYNCDIR.

use fuser::{FileHandle, INodeNo, ReplyEmpty, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::handle::DoorHandle;

/// `fdatasync(2)` too: a size without which the data cannot be read is committed with it anyway.
pub(crate) fn fsync(door: &Door, request: &Request, handle: FileHandle, reply: ReplyEmpty) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    door.answer(request, reply, async move { fs.fsync(handle.id).await });
}

pub(crate) fn fsyncdir(door: &Door, request: &Request, ino: INodeNo, reply: ReplyEmpty) {
    let fs = door.fs();
    door.answer(
        request,
        reply,
        async move { fs.fsync_dir(Ino(ino.0)).await },
    );
}
