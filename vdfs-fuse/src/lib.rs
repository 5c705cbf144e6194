//! The kernel door: VDFS as a directory, through fuser.
//!
//! The door translates and decides nothing: a request is decoded, given to [`vdfs_client::Fs`], and
//! its result encoded. Rooms of the crate:
//!
//! | module | owns |
//! |---|---|
//! | `door` | what is negotiated with the kernel; which operation a request is |
//! | `ops` | one operation a file: decode, call, answer |
//! | `dispatch` | polled once in place, else parked; a panic is `EIO` |
//! | `watch` | a parked request whose caller is being killed ends |
//! | `reply`, `stat`, `errno`, `handle` | values of the filesystem as the kernel wants them |
//! | `kernel_notifier` | what the kernel must drop from its caches |
//! | `mount` | making, tuning and ending the mount itself |
//! | [`program`] | `mount.vdfs` |
//!
//! What the kernel may cache: pages between an open and a close, dropped at an open unless the file
//! is unchanged, at a change of size, and when the client says so; symlink targets, which never
//! change; names and attributes not at all (TTL 0).

mod dispatch;
mod door;
mod errno;
mod found_directories;
mod handle;
mod kernel_notifier;
mod limits;
mod mount;
mod ops;
pub mod program;
mod refills;
mod reply;
mod stat;
mod watch;

pub use kernel_notifier::KernelNotifier;
pub use mount::{
    Detacher, Holder, Mount, MountEntry, MountError, MountOptions, Unmounted, become_io_flusher,
    detach_dead_mounts, mount_of,
};
