//! WRITE: of a program, or of the page cache for a mapping.

use bytes::Bytes;
use fuser::{FileHandle, INodeNo, OpenFlags, ReplyWrite, Request, WriteFlags as KernelWriteFlags};
use vdfs_client::WriteFlags;
use vdfs_proto::Ino;

use crate::door::Door;
use crate::handle::DoorHandle;

/// How the kernel is told that pages go up to the end of the file: only the filesystem knows where an
/// append went.
const TO_THE_END: u64 = 0;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) ino: INodeNo,
    pub(crate) handle: FileHandle,
    /// In bytes.
    pub(crate) offset: u64,
}

pub(crate) fn write(
    door: &Door,
    request: &Request,
    target: Target,
    data: &[u8],
    flags: (KernelWriteFlags, OpenFlags),
    reply: ReplyWrite,
) {
    let (fs, kernel_cache) = (door.fs(), door.kernel_cache());
    let (handle, flags) = (DoorHandle::from_kernel(target.handle), decode(flags));
    // The loop's buffer takes the next request as soon as this returns.
    let data = Bytes::copy_from_slice(data);
    let work = async move {
        let written = fs.write(handle.id, target.offset, data, flags).await?;
        // The kernel drops the pages under an uncached write only before it: a reader that comes in
        // between fills one with what was there. So they are dropped again before the answer.
        if !flags.from_page_cache {
            let len = if flags.append {
                TO_THE_END
            } else {
                written.into()
            };
            let ino = Ino(target.ino.0);
            match handle.uncached {
                true => kernel_cache.drop_now(ino, target.offset, len).await,
                false => kernel_cache.drop_older(ino, target.offset, len).await,
            }
        }
        Ok(written)
    };
    if flags.from_page_cache {
        door.answer_patiently(request, reply, work);
    } else {
        door.answer(request, reply, work);
    }
}

fn decode((write, open): (KernelWriteFlags, OpenFlags)) -> WriteFlags {
    let from_page_cache = write.contains(KernelWriteFlags::FUSE_WRITE_CACHE);
    WriteFlags {
        sync: open.0 & (libc::O_DSYNC | libc::O_DIRECT) != 0,
        append: open.0 & libc::O_APPEND != 0 && !from_page_cache,
        kill_privileges: write.contains(KernelWriteFlags::FUSE_WRITE_KILL_SUIDGID),
        from_page_cache,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_of_a_mappings_writeback_is_no_append() {
        let flags = (
            KernelWriteFlags::FUSE_WRITE_CACHE,
            OpenFlags(libc::O_APPEND),
        );
        assert_eq!(
            decode(flags),
            WriteFlags {
                from_page_cache: true,
                ..WriteFlags::default()
            }
        );
    }

    #[test]
    fn decode_of_flags_that_ask_for_safety_is_sync() {
        for flag in [libc::O_SYNC, libc::O_DSYNC, libc::O_DIRECT] {
            assert!(decode((KernelWriteFlags::empty(), OpenFlags(flag))).sync);
        }
        let flags = (
            KernelWriteFlags::FUSE_WRITE_KILL_SUIDGID,
            OpenFlags(libc::O_APPEND),
        );
        let flags = decode(flags);
        assert!(flags.append && flags.kill_privileges && !flags.sync);
    }
}
