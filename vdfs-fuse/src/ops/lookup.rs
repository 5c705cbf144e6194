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
    let (fs, directories) = (door.fs(), door.directories());
    let (parent, name) = (Ino(parent.0), file_name(name));
    door.answer(request, reply, async move {
        let name = name?;
        let attr = fs.lookup(parent, &name).await?;
        directories.note(parent, name, &attr);
        Ok(attr)
    });
}
