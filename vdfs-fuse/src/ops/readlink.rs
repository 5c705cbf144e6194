//! READLINK.

use fuser::{INodeNo, ReplyData, Request};
use vdfs_proto::Ino;

use crate::door::Door;

pub(crate) fn readlink(door: &Door, request: &Request, ino: INodeNo, reply: ReplyData) {
    let fs = door.fs();
    door.answer(request, reply, async move { fs.readlink(Ino(ino.0)).await });
}
