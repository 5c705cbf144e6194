//! RMDIR.

use std::ffi::OsStr;

use fuser::{INodeNo, ReplyEmpty, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::ops::file_name;

pub(crate) fn rmdir(
    door: &Door,
    request: &Request,
    parent: INodeNo,
    name: &OsStr,
    reply: ReplyEmpty,
) {
    let (fs, name) = (door.fs(), file_name(name));
    door.answer(request, reply, async move {
        fs.rmdir(Ino(parent.0), name?).await
    });
}
