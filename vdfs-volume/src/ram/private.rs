//! A tmpfs of its own, mounted by root.
//!
//! `huge=never`: with larger pages a few sparse writes would take megabytes, and the budget would
//! be wrong. `noswap` where the kernel knows it (Linux 6.4): what is promised as RAM stays RAM.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{StatVfs, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::present::{Present, SOURCE};
use super::{RamError, available, make_directory};

/// Inodes of the directories and tables, with room to spare.
const INODES_MIN: u64 = 1024;
/// Memory of the smallest chunk: more files than this allows do not fit the budget.
const CHUNK_BYTES_MIN: u64 = 1024;
const PAGE_BYTES: u64 = 4096;

pub(super) fn destroy(path: &Path) -> Result<(), RamError> {
    match Present::at(path)? {
        Present::Nothing => {}
        Present::Ours { .. } => {
            unmount(path, UnmountFlags::DETACH)
                .map_err(|error| RamError::io("unmount", path, error))?;
        }
        Present::ReadyMade | Present::Foreign => {
            return Err(RamError::Foreign {
                path: path.to_owned(),
            });
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RamError::io("remove the directory", path, error))
        }
        _ => Ok(()),
    }
}

fn options(size_bytes: u64, no_swap: bool) -> CString {
    let size = size_bytes.next_multiple_of(PAGE_BYTES);
    let inodes = size_bytes / CHUNK_BYTES_MIN + INODES_MIN;
    let swap = if no_swap { ",noswap" } else { "" };
    let text = format!("size={size},nr_inodes={inodes},huge=never,mode=0700{swap}");
    CString::new(text).expect("no NUL in it")
}

/// Mounts a tmpfs where nothing is mounted.
pub(super) fn mount_new(path: &Path, size_bytes: u64) -> Result<(), RamError> {
    available::check(size_bytes, 0)?;
    make_directory(path)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let try_mount = |no_swap| {
        let options = options(size_bytes, no_swap);
        mount(SOURCE, path, "tmpfs", flags, options.as_c_str())
    };
    let mounted = match try_mount(true) {
        Err(Errno::INVAL) => try_mount(false),
        other => other,
    };
    mounted.map_err(|error| match error {
        Errno::PERM | Errno::ACCESS => RamError::MayNotMount {
            path: path.to_owned(),
            asked: size_bytes,
        },
        other => RamError::io("mount a tmpfs", path, other),
    })
}

/// Gives a tmpfs of an earlier process the new size. Without the right to do so, a tmpfs that is
/// large enough stays as it is.
pub(super) fn resize(path: &Path, size_bytes: u64, no_swap: bool) -> Result<(), RamError> {
    let used = used_bytes(path)?;
    available::check(size_bytes, used)?;
    if used > size_bytes {
        return Err(RamError::TooSmall {
            path: path.to_owned(),
            asked: size_bytes,
            used,
        });
    }
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = options(size_bytes, no_swap);
    match mount_remount(path, flags, options.as_c_str()) {
        Err(Errno::PERM | Errno::ACCESS) => check_size(path, size_bytes),
        outcome => outcome.map_err(|error| RamError::io("resize the tmpfs", path, error)),
    }
}

/// Refuses a tmpfs that has less than `size_bytes`.
pub(super) fn check_size(path: &Path, size_bytes: u64) -> Result<(), RamError> {
    let size = self::size_bytes(path)?;
    if size < size_bytes {
        return Err(RamError::Smaller {
            path: path.to_owned(),
            asked: size_bytes,
            size,
        });
    }
    Ok(())
}

pub(super) fn size_bytes(path: &Path) -> Result<u64, RamError> {
    let stat = stat(path)?;
    Ok(stat.f_blocks * stat.f_frsize)
}

fn used_bytes(path: &Path) -> Result<u64, RamError> {
    let stat = stat(path)?;
    Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
}

fn stat(path: &Path) -> Result<StatVfs, RamError> {
    statvfs(path).map_err(|error| RamError::io("stat", path, error))
}
