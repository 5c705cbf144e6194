//! OPEN of a regular file, and how opens use the page cache. `NOFLUSH` is not among the flags, not
//! even for readers: a close gives up locks, and FLUSH says so.
//!
//! | open | flags | why |
//! |---|---|---|
//! | unchanged since its pages were read | `KEEP_CACHE` | they are good |
//! | `O_APPEND` for writing | `DIRECT_IO` | the kernel takes its own idea of the end for the offset; pages filled there would be wrong if another mount has appended |
//! | of a file that another mount writes (`OpenFile::is_shared`) | `DIRECT_IO` | pages would be as old as the last open; and a shared mapping is refused (`ENODEV`), since page caches of two mounts cannot be one |

use fuser::{FopenFlags, INodeNo, OpenAccMode, OpenFlags, ReplyOpen, Request};
use vdfs_client::{OpenFile, OpenOptions};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::handle::DoorHandle;
use crate::reply::OpenedFile;

pub(crate) fn open(
    door: &Door,
    request: &Request,
    ino: INodeNo,
    flags: OpenFlags,
    reply: ReplyOpen,
) {
    let (fs, ino, options) = (door.fs(), Ino(ino.0), open_options(door, request, flags));
    door.answer(request, reply, async move {
        let file = fs.open(ino, options).await?;
        Ok(opened(file, options))
    });
}

/// What a truncating open does to suid and sgid the kernel says in a flag
/// (`FUSE_OPEN_KILL_SUIDGID`) that fuser 0.18 does not pass on; uid 0 stands for `CAP_FSETID`.
pub(crate) fn open_options(door: &Door, request: &Request, flags: OpenFlags) -> OpenOptions {
    OpenOptions {
        no_atime: door.is_without_atime(flags),
        kill_privileges: request.uid() != 0,
        ..decode(flags)
    }
}

fn decode(flags: OpenFlags) -> OpenOptions {
    let is_set = |flag: i32| flags.0 & flag != 0;
    let access = flags.acc_mode();
    OpenOptions {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
        append: is_set(libc::O_APPEND),
        truncate: is_set(libc::O_TRUNC),
        sync: is_set(libc::O_DSYNC),
        no_atime: false,
        kill_privileges: false,
    }
}

pub(crate) fn opened(file: OpenFile, options: OpenOptions) -> OpenedFile {
    let uncached = file.is_shared || options.append && options.write;
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, uncached);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, file.keep_cache);
    OpenedFile {
        handle: DoorHandle {
            id: file.handle,
            uncached,
        },
        flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_of_flags_gives_what_they_mean() {
        let options = decode(OpenFlags(libc::O_RDWR | libc::O_TRUNC | libc::O_SYNC));
        assert!(options.read && options.write && options.truncate && options.sync);
        assert!(!options.append);
        let options = decode(OpenFlags(libc::O_WRONLY | libc::O_APPEND | libc::O_DSYNC));
        assert!(!options.read && options.write && options.append && options.sync);
        let options = decode(OpenFlags(libc::O_RDONLY));
        assert!(options.read && !options.write && !options.sync);
    }
}
