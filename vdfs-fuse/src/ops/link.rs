//! LINK: another name of an inode.

use fuser::{INodeNo, ReplyEntry, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::ops::{Place, file_name};

pub(crate) fn link(
    door: &Door,
    request: &Request,
    ino: INodeNo,
    (parent, name): Place<'_>,
    reply: ReplyEntry,
) {
    let (fs, name) = (door.fs(), file_name(name));
    door.answer(request, reply, async move {
        fs.link(Ino(ino.0), Ino(parent.0), name?).await
    });
}
