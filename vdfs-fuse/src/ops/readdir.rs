//! READDIR and READDIRPLUS. A reply shorter than what the kernel has room for is no end: only an
//! empty one is.

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::limits::{READDIR_ENTRIES, READDIRPLUS_ENTRIES};
use crate::ops::listing::{ListingPage, PlusPage, Position};

pub(crate) fn readdir(
    door: &Door,
    request: &Request,
    ino: INodeNo,
    offset: u64,
    reply: ReplyDirectory,
) {
    let (fs, ino, from) = (door.fs(), Ino(ino.0), Position(offset));
    door.answer(request, reply, async move {
        let listing = fs
            .readdir(ino, from.cookie(), READDIR_ENTRIES, false)
            .await?;
        Ok(ListingPage::new(ino, from, listing))
    });
}

pub(crate) fn readdirplus(
    door: &Door,
    request: &Request,
    ino: INodeNo,
    offset: u64,
    reply: ReplyDirectoryPlus,
) {
    let (fs, ino, from) = (door.fs(), Ino(ino.0), Position(offset));
    door.answer(request, reply, async move {
        let listing = fs
            .readdir(ino, from.cookie(), READDIRPLUS_ENTRIES, true)
            .await?;
        PlusPage::new(ino, from, listing)
    });
}
