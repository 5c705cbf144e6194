//! The operations, one a file: the order of checks, what the caches know, what is asked of whom.

mod copy;
mod create;
mod getattr;
mod locate;
mod lock;
mod names;
mod open;
mod read;
mod readdir;
mod release;
mod seek;
mod set_attr;
mod shutdown;
mod space;
mod sync;
mod write;
mod xattr;

pub use lock::{Contended, LockConflict};

use std::sync::Arc;

use vdfs_proto::attr::SetTime;
use vdfs_proto::data::SpaceKind;
use vdfs_proto::meta::{Access, NewKind};
use vdfs_proto::{Attr, ChunkSize, FileName, HandleId, Ino, Status};

use crate::client::Client;
use crate::config::ClientConfig;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub read: bool,
    pub write: bool,
    pub append: bool,
    pub truncate: bool,
    /// `O_SYNC` or `O_DSYNC`.
    pub sync: bool,
    /// `O_NOATIME`: reads leave the access time as it is.
    pub no_atime: bool,
    /// The caller has no `CAP_FSETID`: a truncation clears suid, and sgid of a group-executable
    /// file.
    pub kill_privileges: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    pub handle: HandleId,
    pub attr: Attr,
    /// The kernel's pages of this inode are still good.
    pub keep_cache: bool,
    /// Another client has the file open for writing: pages must not be kept, and a shared mapping
    /// not be made. Later opens may differ; this one stays as it is.
    pub is_shared: bool,
}

/// An inode to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    pub parent: Ino,
    pub name: FileName,
    pub kind: NewKind,
    /// 12 bits.
    pub mode: u16,
    /// Bits that it does not get, unless its directory has a default ACL.
    pub umask: u16,
    pub uid: u32,
    pub gid: u32,
}

/// Sets what is `Some`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrChanges {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// Clear suid, and sgid of a group-executable file.
    pub kill_privileges: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteFlags {
    /// `O_SYNC`, `O_DSYNC` or `O_DIRECT` of this write: acknowledge only when it is safe.
    pub sync: bool,
    /// Write at the end of the file, wherever it is.
    pub append: bool,
    pub kill_privileges: bool,
    /// The bytes come from the page cache (writeback of a mapping): the offset counts even on an
    /// append handle.
    pub from_page_cache: bool,
}

/// What `fallocate(2)` does to a range, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceChange {
    pub kind: SpaceKind,
    pub offset: u64,
    pub len: u64,
    /// The file does not grow (`FALLOC_FL_KEEP_SIZE`).
    pub keep_size: bool,
    pub kill_privileges: bool,
}

/// What `copy_file_range(2)` copies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRange {
    pub source: HandleId,
    pub source_offset: u64,
    pub target: HandleId,
    pub target_offset: u64,
    pub len: u64,
    pub kill_privileges: bool,
}

/// What was not safe when the time of a shutdown was over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} files were not flushed", inodes.len())]
pub struct NotFlushed {
    pub inodes: Vec<Ino>,
}

impl OpenOptions {
    pub(crate) fn access(&self) -> Access {
        Access {
            read: self.read,
            write: self.write || self.append || self.truncate,
        }
    }
}

/// A filesystem; clones are the same one.
///
/// Every operation may be polled on one thread and then on another. Dropping its future ends only
/// the wait: a change that was begun goes on to a definite answer, bytes that were taken are
/// written. Each ends with `DeadlineExceeded` after `ClientConfig::timeout`, if there is one.
#[derive(Clone, Debug)]
pub struct Fs {
    client: Arc<Client>,
    /// Shared by the clones.
    _user: Arc<User>,
}

/// When the last clone is dropped nobody uses the client any more: its session ends as soon as
/// everything is flushed.
#[derive(Debug)]
struct User {
    client: Arc<Client>,
}

impl Drop for User {
    fn drop(&mut self) {
        self.client.abandon();
    }
}

impl Fs {
    /// Opens the session and starts its event loop on the current tokio runtime; waits for the
    /// master.
    pub async fn connect(config: ClientConfig) -> Result<Fs, Status> {
        let client = Client::connect(config).await?;
        let user = User {
            client: client.clone(),
        };
        Ok(Fs {
            client,
            _user: Arc::new(user),
        })
    }

    /// Bytes of a full chunk of this filesystem.
    pub fn chunk_size(&self) -> ChunkSize {
        self.client.chunk_size
    }
}
