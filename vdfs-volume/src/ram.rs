//! Where chunks lie: a tmpfs, never a disk.
//!
//! As root a tmpfs of its own is mounted at the given directory; it outlives the process, so a
//! killed volume finds its chunks again. Otherwise the path becomes a symbolic link to a directory
//! in `/dev/shm`, whose room others share.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

mod available;
mod private;
mod shared;

pub use available::available_bytes;

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
        "{asked} bytes of RAM are asked for, {available} are available; ask for less or free some"
    )]
    TooLarge { asked: u64, available: u64 },
    #[error(
        "{}: {used} bytes are in use there, more than the {asked} asked for; ask for more or \
         remove files first",
        path.display()
    )]
    TooSmall {
        path: PathBuf,
        asked: u64,
        used: u64,
    },
    #[error("{}: another filesystem is mounted there; choose another directory", path.display())]
    Foreign { path: PathBuf },
    #[error("{}: is not in RAM: statfs says type {found:#x}, not tmpfs", path.display())]
    NotTmpfs { path: PathBuf, found: u64 },
    #[error("{}: exists and is not a link into /dev/shm; remove it", path.display())]
    NotALink { path: PathBuf },
    #[error("{}: belongs to another user", path.display())]
    NotOurs { path: PathBuf },
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
    /// Makes `path` a place in RAM for `size_bytes`, or takes over what an earlier process left
    /// there, with the new size. Within another place of ours it becomes a directory there: whoever
    /// made that one has room for all that lie in it.
    pub fn open(path: &Path, size_bytes: u64) -> Result<Self, RamError> {
        let is_shared = !geteuid().is_root();
        if lies_in_ours(path, is_shared)? {
            make_directory(path)?;
        } else if is_shared {
            shared::open(path, size_bytes)?;
        } else {
            private::open(path, size_bytes)?;
        }
        check_tmpfs(path)?;
        Ok(Ram {
            path: path.to_owned(),
            is_shared,
        })
    }

    /// Frees the RAM at `path`, with all that lies in it; nothing there is fine.
    pub fn destroy(path: &Path) -> Result<(), RamError> {
        if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return shared::destroy(path);
        }
        private::destroy(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Others may take its room.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }
}

fn lies_in_ours(path: &Path, is_shared: bool) -> Result<bool, RamError> {
    match path.parent() {
        None => Ok(false),
        Some(above) if is_shared => Ok(shared::is_link(above)),
        Some(above) => private::is_mounted(above),
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
