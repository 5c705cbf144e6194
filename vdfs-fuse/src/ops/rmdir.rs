//! RMDIR.

use std::ffi::OsStr;

use fuser::{INodeNo, ReplyEmpty, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::found_directories::Looked;
use crate::ops::file_name;

pub(crate) fn rmdir(
    door: &Door,
    request: &Request,
    parent: INodeNo,
    name: &OsStr,
    reply: ReplyEmpty,
) {
    let (fs, directories) = (door.fs(), door.directories());
    let looked = file_name(name).map(|name| Looked::by(request, Ino(parent.0), name));
    door.answer(request, reply, async move {
        let looked = looked?;
        let found = directories.find(&looked);
        fs.rmdir(looked.parent, looked.name, found).await
    });
}
