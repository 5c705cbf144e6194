//! MKNOD: regular files, pipes, sockets, devices.

use fuser::{ReplyEntry, Request};
use vdfs_proto::Status;
use vdfs_proto::meta::NewKind;

use crate::door::Door;
use crate::ops::{NewMode, Place, new_file};

/// What is to be made: `st_mode` with the file type, and the device number as `stat(2)` encodes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) umask: u32,
    pub(crate) rdev: u32,
}

impl Node {
    fn kind(self) -> Result<NewKind, Status> {
        match self.mode & libc::S_IFMT {
            libc::S_IFREG => Ok(NewKind::Regular),
            libc::S_IFIFO => Ok(NewKind::Fifo),
            libc::S_IFSOCK => Ok(NewKind::Socket),
            libc::S_IFCHR => Ok(NewKind::CharDevice { rdev: self.rdev }),
            libc::S_IFBLK => Ok(NewKind::BlockDevice { rdev: self.rdev }),
            _ => Err(Status::Invalid),
        }
    }
}

pub(crate) fn mknod(
    door: &Door,
    request: &Request,
    place: Place<'_>,
    node: Node,
    reply: ReplyEntry,
) {
    let fs = door.fs();
    let mode = NewMode {
        mode: node.mode,
        umask: node.umask,
    };
    let new = node
        .kind()
        .and_then(|kind| new_file(request, place, kind, mode));
    door.answer(request, reply, async move { fs.create(new?).await });
}
