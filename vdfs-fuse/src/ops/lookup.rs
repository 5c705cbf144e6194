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
    let (caller, parent, name) = (request.pid(), Ino(parent.0), file_name(name));
    door.answer(request, reply, async move {
        let name = name?;
        let found = fs.lookup(parent, &name).await;
        let looked = Looked {
            caller,
            parent,
            name,
        };
        directories.note(looked, found.as_ref().ok());
        found
    });
}
