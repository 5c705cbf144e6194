//! Where chunks lie: a tmpfs, never a disk.
//!
//! Whatever tmpfs is mounted at the given directory is used, whoever has mounted it: so the RAM can
//! be made outside of the service that uses it, and outlives it. Where nothing is mounted, root
//! mounts a tmpfs, and anybody else gets a symbolic link to a directory in `/dev/shm`, whose room
//! others share.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::geteuid;
use vdfs_program::human;

use present::Present;

mod available;
mod in_use;
mod present;
mod private;
mod shared;

pub use in_use::in_use_bytes;

/// `f_type` of a tmpfs (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A directory in RAM.
#[derive(Clone, Debug)]
pub struct Ram {
    path: PathBuf,
    is_shared: bool,
}

/// Why there is no RAM for a volume.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    #[error(
        "{} of RAM are asked for, {} are available; ask for less or free some",
        human(*asked),
        human(*available)
    )]
    TooLarge { asked: u64, available: u64 },
    #[error(
        "{}: {} are in use there, more than the {} asked for; ask for more or remove files first",
        path.display(),
        human(*used),
        human(*asked)
    )]
    TooSmall {
        path: PathBuf,
        asked: u64,
        used: u64,
    },
    #[error(
        "{0}: the tmpfs there has {1}, less than the {2} asked for; ask for less, or enlarge it: \
         mount -o remount,size={3} {0}",
        path.display(),
        human(*size),
        human(*asked),
        asked
    )]
    Smaller {
        path: PathBuf,
        asked: u64,
        size: u64,
    },
    #[error(
        "{0}: no tmpfs can be mounted here without CAP_SYS_ADMIN; have one mounted before: \
         mount -t tmpfs -o size={1},mode=0700 vdfs-ram {0}",
        path.display(),
        asked
    )]
    MayNotMount { path: PathBuf, asked: u64 },
    #[error("{}: another filesystem is mounted there; choose another directory", path.display())]
    Foreign { path: PathBuf },
    #[error("{}: is not in RAM: statfs says type {found:#x}, not tmpfs", path.display())]
    NotTmpfs { path: PathBuf, found: u64 },
    #[error("{}: exists and is not a link into /dev/shm; remove it", path.display())]
    NotALink { path: PathBuf },
    #[error("{}: belongs to another user", path.display())]
    NotOurs { path: PathBuf },
    #[error("{}: a volume that runs has its store there; stop it first", path.display())]
    InUse { path: PathBuf },
    #[error("{}: cannot {what}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl RamError {
    fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        RamError::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

impl Ram {
    /// Makes `path` a place in RAM for `size_bytes`, or takes over what is mounted there: what an
    /// earlier process left, with the new size, or what somebody else has made large enough. Within
    /// another place of ours it becomes a directory there: whoever made that one has room for all
    /// that lie in it.
    pub fn open(path: &Path, size_bytes: u64) -> Result<Self, RamError> {
        let is_shared = open_place(path, size_bytes)?;
        check_tmpfs(path)?;
        Ok(Ram {
            path: path.to_owned(),
            is_shared,
        })
    }

    /// The size of the tmpfs that is mounted at `path` already, in bytes; `None` if there is none.
    pub fn mounted_bytes(path: &Path) -> Result<Option<u64>, RamError> {
        match Present::at(path)? {
            Present::Ours { .. } | Present::ReadyMade => private::size_bytes(path).map(Some),
            Present::Nothing | Present::Foreign => Ok(None),
        }
    }

    /// Frees the RAM at `path`, with all that lies in it; nothing there is fine.
    pub fn destroy(path: &Path) -> Result<(), RamError> {
        if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return shared::destroy(path);
        }
        private::destroy(path)
    }

    /// The same of what nobody uses; a tmpfs that somebody else has mounted stays, empty.
    pub fn wipe(path: &Path) -> Result<(), RamError> {
        if !path.exists() {
            return Self::destroy(path);
        }
        let _lock = lock_unused(path)?;
        match Present::at(path)? {
            Present::ReadyMade => empty(path),
            Present::Ours { .. } | Present::Nothing | Present::Foreign => Self::destroy(path),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Others may take its room.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }
}

/// A volume that runs has its store locked.
fn lock_unused(path: &Path) -> Result<File, RamError> {
    let opened = File::open(path).map_err(|error| RamError::io("open", path, error))?;
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(opened),
        Err(Errno::WOULDBLOCK) => Err(RamError::InUse {
            path: path.to_owned(),
        }),
        Err(error) => Err(RamError::io("lock", path, error)),
    }
}

fn empty(path: &Path) -> Result<(), RamError> {
    let failed = |error| RamError::io("remove what is in", path, error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_directory = entry.file_type().map_err(failed)?.is_dir();
        let removed = match is_directory {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.map_err(failed)?;
    }
    Ok(())
}

/// True if others may take the room of the place.
fn open_place(path: &Path, size_bytes: u64) -> Result<bool, RamError> {
    let is_root = geteuid().is_root();
    match Present::at(path)? {
        Present::Foreign => {
            return Err(RamError::Foreign {
                path: path.to_owned(),
            });
        }
        Present::ReadyMade => private::check_size(path, size_bytes)?,
        Present::Ours { .. } if !is_root => private::check_size(path, size_bytes)?,
        Present::Ours { no_swap } => private::resize(path, size_bytes, no_swap)?,
        Present::Nothing if lies_in_ours(path)? => make_directory(path)?,
        Present::Nothing if is_root => private::mount_new(path, size_bytes)?,
        Present::Nothing => {
            if path.parent().is_some_and(shared::is_link) {
                make_directory(path)?;
            } else {
                shared::open(path, size_bytes)?;
            }
            return Ok(true);
        }
    }
    Ok(false)
}

fn lies_in_ours(path: &Path) -> Result<bool, RamError> {
    match path.parent() {
        None => Ok(false),
        Some(above) => Ok(matches!(Present::at(above)?, Present::Ours { .. })),
    }
}

fn make_directory(path: &Path) -> Result<(), RamError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| RamError::io("make the directory", path, error))
}

fn check_tmpfs(path: &Path) -> Result<(), RamError> {
    let stat = rustix::fs::statfs(path).map_err(|error| RamError::io("stat", path, error))?;
    let found = stat.f_type as u64;
    if found != TMPFS_MAGIC {
        return Err(RamError::NotTmpfs {
            path: path.to_owned(),
            found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wipe_refuses_a_store_that_is_locked_and_frees_one_that_is_not() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let path = scratch.path().join("ram");
        fs::create_dir(&path).expect("a directory");
        let locked = lock_unused(&path).expect("nobody has it");
        assert!(matches!(Ram::wipe(&path), Err(RamError::InUse { .. })));
        drop(locked);
        Ram::wipe(&path).expect("nobody has it now");
        assert!(!path.exists());
        Ram::wipe(&path).expect("nothing is there");
    }
}
