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
    let (fs, parent) = (door.fs(), Ino(parent.0));
    let place = file_name(name).map(|name| (door.directories().find(parent, &name), name));
    door.answer(request, reply, async move {
        let (found, name) = place?;
        fs.rmdir(parent, name, found).await
    });
}
