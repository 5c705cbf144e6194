//! GETATTR: `stat(2)`.

use fuser::{INodeNo, ReplyAttr, Request};
use vdfs_proto::Ino;

use crate::door::Door;

pub(crate) fn getattr(door: &Door, request: &Request, ino: INodeNo, reply: ReplyAttr) {
    let fs = door.fs();
    door.answer(request, reply, async move { fs.getattr(Ino(ino.0)).await });
}
