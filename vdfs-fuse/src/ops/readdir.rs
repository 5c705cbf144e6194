//! OPENDIR, READDIR and READDIRPLUS. A reply shorter than what the kernel has room for is no end: only
//! an empty one is.

use fuser::{
    FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyDirectory, ReplyDirectoryPlus, ReplyOpen,
    Request,
};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::limits::{READDIR_ENTRIES, READDIRPLUS_ENTRIES};
use crate::ops::listing::{ListingPage, PlusPage, Position};

/// Listings need no state: the handle says only whether they move the access time.
const MARKS_ACCESS: FileHandle = FileHandle(0);
const WITHOUT_ATIME: FileHandle = FileHandle(1);

pub(crate) fn opendir(door: &Door, flags: OpenFlags, reply: ReplyOpen) {
    let handle = match door.is_without_atime(flags) {
        true => WITHOUT_ATIME,
        false => MARKS_ACCESS,
    };
    reply.opened(handle, FopenFlags::empty());
}

pub(crate) fn readdir(
    door: &Door,
    request: &Request,
    (ino, handle): (INodeNo, FileHandle),
    offset: u64,
    reply: ReplyDirectory,
) {
    let (fs, ino, from) = (door.fs(), Ino(ino.0), Position(offset));
    let marks_access = handle == MARKS_ACCESS;
    door.answer(request, reply, async move {
        let listing = fs
            .readdir(ino, from.cookie(), READDIR_ENTRIES, false, marks_access)
            .await?;
        Ok(ListingPage::new(ino, from, listing))
    });
}

pub(crate) fn readdirplus(
    door: &Door,
    request: &Request,
    (ino, handle): (INodeNo, FileHandle),
    offset: u64,
    reply: ReplyDirectoryPlus,
) {
    let (fs, ino, from) = (door.fs(), Ino(ino.0), Position(offset));
    let marks_access = handle == MARKS_ACCESS;
    door.answer(request, reply, async move {
        let listing = fs
            .readdir(ino, from.cookie(), READDIRPLUS_ENTRIES, true, marks_access)
            .await?;
        PlusPage::new(ino, from, listing)
    });
}
