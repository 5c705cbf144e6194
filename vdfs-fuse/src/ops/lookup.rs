//! LOOKUP: what a name in a directory is.

use std::ffi::OsStr;

use fuser::{INodeNo, ReplyEntry, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::ops::file_name;

pub(crate) fn lookup(
    door: &Door,
    request: &Request,
    parent: INodeNo,
    name: &OsStr,
    reply: ReplyEntry,
) {
    let (fs, name) = (door.fs(), file_name(name));
    door.answer(request, reply, async move {
        fs.lookup(Ino(parent.0), &name?).await
    });
}
