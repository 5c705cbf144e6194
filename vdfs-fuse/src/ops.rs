//! One operation a file: decode the arguments, call the filesystem, answer. None decides, retries or
//! caches.

pub(crate) mod acl;
pub(crate) mod copy_file_range;
pub(crate) mod create;
pub(crate) mod fallocate;
pub(crate) mod flush;
pub(crate) mod fsync;
pub(crate) mod getattr;
pub(crate) mod link;
pub(crate) mod listing;
pub(crate) mod lock;
pub(crate) mod lookup;
pub(crate) mod lseek;
pub(crate) mod mkdir;
pub(crate) mod mknod;
pub(crate) mod open;
pub(crate) mod read;
pub(crate) mod readdir;
pub(crate) mod readlink;
pub(crate) mod release;
pub(crate) mod rename;
pub(crate) mod rmdir;
pub(crate) mod setattr;
pub(crate) mod statfs;
pub(crate) mod symlink;
pub(crate) mod unlink;
pub(crate) mod write;
pub(crate) mod xattr;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{INodeNo, Request};
use vdfs_client::NewFile;
use vdfs_proto::meta::NewKind;
use vdfs_proto::{FileName, Ino, Status};

/// Where a name is, or is to be.
type Place<'a> = (INodeNo, &'a OsStr);

/// The low bits of `st_mode` that are not its type.
const MODE_BITS: u32 = 0o7777;

fn file_name(name: &OsStr) -> Result<FileName, Status> {
    FileName::new(name.as_bytes())
}

/// What the caller asks for, and its umask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewMode {
    pub(crate) mode: u32,
    pub(crate) umask: u32,
}

/// The caller owns what it makes.
fn new_file(
    request: &Request,
    (parent, name): Place<'_>,
    kind: NewKind,
    NewMode { mode, umask }: NewMode,
) -> Result<NewFile, Status> {
    Ok(NewFile {
        parent: Ino(parent.0),
        name: file_name(name)?,
        kind,
        mode: (mode & MODE_BITS) as u16,
        umask: (umask & MODE_BITS) as u16,
        uid: request.uid(),
        gid: request.gid(),
    })
}
