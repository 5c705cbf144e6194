//! RELEASE: the last use of an open file is over. The kernel sends it once and ignores the result.

use fuser::{FileHandle, ReplyEmpty, Request};

use crate::door::Door;
use crate::handle::DoorHandle;

pub(crate) fn release(door: &Door, request: &Request, handle: FileHandle, reply: ReplyEmpty) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    door.answer_patiently(request, reply, async move { fs.release(handle.id).await });
}
