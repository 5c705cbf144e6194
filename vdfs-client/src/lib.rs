//! The filesystem without FUSE: a session at the master, bytes straight from and to the volumes.
//!
//! [`Fs`] is what a mount or a program without one works with. Rooms of the crate:
//!
//! | module | owns |
//! |---|---|
//! | [`fs`] | one operation a file: the order of POSIX checks, what is asked of whom |
//! | `plan` | pure arithmetic: layout and range to spans, expected lengths, what a commit may say |
//! | `session` | the session's life: lease, events, resume, the end and the next one |
//! | `retry`, `slots` | the one retry loop; op ids, used again only after a definite answer |
//! | `shares` | what one volume may take of buffers and slots |
//! | `master`, `volumes` | the ways to the peers |
//! | `files` | what this client knows of each open inode: layout, dirty bytes, sizes, errors |
//! | `locks` | which locks its programs hold |
//! | `write_behind`, `read_ahead` | bytes on their way |
//! | [`path`], `permission` | walking paths for programs without a mount, and who may |
//! | `acl_memory` | which inodes have no ACL |
//!
//! Invariants: an op is never sent under another session than the one it began in; no two
//! overlapping writes of this client are in flight; a future that is dropped ends only the wait.
//!
//! Left out: errno and everything else about a kernel; caches beyond close-to-open.

mod acl_memory;
mod client;
mod clock;
mod config;
mod deadline;
mod fetch;
mod files;
pub mod fs;
mod kernel_cache;
mod limits;
mod locks;
mod master;
mod parts;
pub mod path;
mod permission;
mod plan;
mod read_ahead;
mod retry;
mod session;
mod shares;
mod slots;
mod volumes;
mod write_behind;

pub use config::ClientConfig;
pub use fs::{
    AttrChanges, Contended, CopyRange, Fs, LockConflict, NewFile, NotFlushed, OpenFile,
    OpenOptions, SpaceChange, WriteFlags,
};
pub use kernel_cache::{KernelCache, NoKernelCache};
pub use permission::Caller;
