//! One trait over the reply types of fuser: what a value of the filesystem is to the kernel.

use std::time::Duration;

use bytes::Bytes;
use fuser::{
    Errno, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};
use vdfs_client::LockConflict;
use vdfs_proto::meta::FsStats;
use vdfs_proto::{Attr, SymlinkTarget, limits};

use crate::errno::errno;
use crate::handle::DoorHandle;
use crate::ops::listing::{ListingPage, PlusPage};
use crate::ops::lock::kernel_kind;
use crate::stat::{Stat, file_attr};

/// How long the kernel may believe what it was told. Nothing tells it of other mounts' changes, so
/// it asks each time.
const TTL: Duration = Duration::ZERO;
/// Inode numbers carry their generation, so the kernel needs none beside them.
const GENERATION: Generation = Generation(0);
/// Unit of `statfs(2)`; old programs take `f_bsize` for it, so both are the same.
const STATFS_BLOCK_BYTES: u32 = 4096;

/// Answers one request, exactly once.
pub(crate) trait Answer<T>: Send + 'static {
    fn value(self, value: T);
    fn errno(self, code: Errno);
}

/// A file that was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenedFile {
    pub(crate) handle: DoorHandle,
    pub(crate) flags: FopenFlags,
}

/// What `getxattr` and `listxattr` ask for: the bytes, or how many there are if `room` is 0.
#[derive(Clone, Debug)]
pub(crate) struct XattrBytes {
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: u32,
}

macro_rules! answer {
    ($reply:ty, $value:ty, |$this:ident, $name:ident| $send:expr) => {
        impl Answer<$value> for $reply {
            fn value(self, $name: $value) {
                let $this = self;
                $send
            }

            fn errno(self, code: Errno) {
                self.error(code);
            }
        }
    };
}

answer!(ReplyEmpty, (), |reply, _nothing| reply.ok());
answer!(ReplyEntry, Attr, |reply, attr| reply.entry(
    &TTL,
    &file_attr(&attr),
    GENERATION
));
answer!(ReplyAttr, Attr, |reply, attr| reply
    .attr(&TTL, &file_attr(&attr)));
answer!(ReplyAttr, Stat, |reply, stat| reply
    .attr(&TTL, &stat.file_attr()));
answer!(ReplyLseek, u64, |reply, offset| reply.offset(offset as i64));
answer!(ReplyData, Bytes, |reply, bytes| reply.data(&bytes));
answer!(ReplyData, SymlinkTarget, |reply, target| reply
    .data(target.as_bytes()));
answer!(ReplyWrite, u32, |reply, written| reply.written(written));
answer!(ReplyOpen, OpenedFile, |reply, file| reply
    .opened(file.handle.to_kernel(), file.flags));
answer!(ReplyCreate, (Attr, OpenedFile), |reply, created| {
    let (attr, file) = created;
    reply.created(
        &TTL,
        &file_attr(&attr),
        GENERATION,
        file.handle.to_kernel(),
        file.flags,
    );
});
answer!(ReplyStatfs, FsStats, |reply, stats| {
    let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
    reply.statfs(
        blocks(stats.capacity_bytes),
        blocks(stats.free_bytes),
        blocks(stats.free_bytes),
        stats.files_max,
        stats.files_max.saturating_sub(stats.files),
        STATFS_BLOCK_BYTES,
        limits::NAME_BYTES_MAX as u32,
        STATFS_BLOCK_BYTES,
    );
});
answer!(ReplyLock, Option<LockConflict>, |reply, conflict| {
    match conflict {
        Some(lock) => reply.locked(
            lock.range.first(),
            lock.range.last(),
            kernel_kind(lock.kind),
            // 0 is shown for who cannot be named.
            lock.pid.unwrap_or(0),
        ),
        None => reply.locked(0, 0, libc::F_UNLCK, 0),
    }
});
answer!(ReplyXattr, XattrBytes, |reply, xattr| {
    if xattr.room == 0 {
        reply.size(xattr.bytes.len() as u32);
    } else if xattr.bytes.len() > xattr.room as usize {
        reply.error(errno(vdfs_proto::Status::OutOfRange));
    } else {
        reply.data(&xattr.bytes);
    }
});
answer!(ReplyDirectory, ListingPage, |reply, page| {
    let mut reply = reply;
    page.pack(|entry| reply.add(INodeNo(entry.ino.0), entry.offset, entry.kind, entry.name));
    reply.ok();
});
answer!(ReplyDirectoryPlus, PlusPage, |reply, page| {
    let mut reply = reply;
    page.pack(|entry| {
        reply.add(
            entry.attr.ino,
            entry.offset,
            entry.name,
            &TTL,
            &entry.attr,
            GENERATION,
        )
    });
    reply.ok();
});
