//! FLUSH: `close(2)`, whose result the program sees.

use fuser::{FileHandle, ReplyEmpty, Request};

use crate::door::Door;
use crate::handle::DoorHandle;

pub(crate) fn flush(door: &Door, request: &Request, handle: FileHandle, reply: ReplyEmpty) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    door.answer(request, reply, async move { fs.flush(handle.id).await });
}
