//! LOOKUP: what a name in a directory is.

use std::ffi::OsStr;

use fuser::{INodeNo, ReplyEntry, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::found_directories::Looked;
use crate::ops::file_name;

pub(crate) fn lookup(
    door: &Door,
    request: &Request,
    parent: INodeNo,
    name: &OsStr,
    reply: ReplyEntry,
) {
    let (fs, directories) = (door.fs(), door.directories());
    let looked = file_name(name).map(|name| Looked::by(request, Ino(parent.0), name));
    door.answer(request, reply, async move {
        let looked = looked?;
        let found = fs.lookup(looked.parent, &looked.name).await;
        directories.note(looked, found.as_ref().ok());
        found
    });
}
