//! A directory in `/dev/shm`, for who cannot mount.
//!
//! Others share its room, so pages are allocated before a change begins, and a full `/dev/shm` is
//! `NoSpace`. systemd may remove it when its user logs out (`RemoveIPC=`).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use rustix::process::geteuid;

use super::in_use::files_bytes;
use super::{RamError, available};

const SHM: &str = "/dev/shm";

pub(super) fn open(path: &Path, size_bytes: u64) -> Result<(), RamError> {
    let present = existing(path)?;
    let used = match &present {
        Some(directory) if directory.exists() => {
            files_bytes(directory).map_err(|error| RamError::io("measure", directory, error))?
        }
        Some(_) | None => 0,
    };
    available::check(size_bytes, used)?;
    check_shm(size_bytes, used)?;
    let directory = match present {
        Some(directory) => directory,
        None => link_new(path)?,
    };
    make_directory(&directory)
}

/// Refuses `asked` bytes unless `/dev/shm` has them, beside the `used` bytes of the asker.
fn check_shm(asked: u64, used: u64) -> Result<(), RamError> {
    let shm = Path::new(SHM);
    let stat = statvfs(shm).map_err(|error| RamError::io("stat", shm, error))?;
    let available = stat.f_bavail * stat.f_frsize + used;
    if asked > available {
        return Err(RamError::TooLarge { asked, available });
    }
    Ok(())
}

pub(super) fn destroy(path: &Path) -> Result<(), RamError> {
    let Some(directory) = existing(path)? else {
        return Ok(());
    };
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(RamError::io("remove", &directory, error));
        }
        _ => {}
    }
    fs::remove_file(path).map_err(|error| RamError::io("remove", path, error))
}

/// True if `path` is a link of ours to a directory that is there.
pub(super) fn is_link(path: &Path) -> bool {
    matches!(existing(path), Ok(Some(directory)) if directory.is_dir())
}

/// Where an earlier link leads; its end may be gone after a reboot.
fn existing(path: &Path) -> Result<Option<PathBuf>, RamError> {
    match fs::read_link(path) {
        Ok(target) if target.parent() == Some(Path::new(SHM)) => Ok(Some(target)),
        Ok(_) => Err(RamError::NotALink {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) => Err(RamError::NotALink {
            path: path.to_owned(),
        }),
    }
}

fn link_new(path: &Path) -> Result<PathBuf, RamError> {
    let absolute =
        std::path::absolute(path).map_err(|error| RamError::io("resolve", path, error))?;
    if let Some(parent) = absolute.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| RamError::io("make", parent, error))?;
    }
    let mut hasher = DefaultHasher::new();
    absolute.hash(&mut hasher);
    let name = format!("vdfs-{}-{:016x}", geteuid().as_raw(), hasher.finish());
    let directory = Path::new(SHM).join(name);
    symlink(&directory, path).map_err(|error| RamError::io("link", path, error))?;
    Ok(directory)
}

/// `/dev/shm` is open to all: a directory that somebody else has put there is refused.
fn make_directory(directory: &Path) -> Result<(), RamError> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(RamError::io("make", directory, error));
        }
        _ => {}
    }
    let meta =
        fs::symlink_metadata(directory).map_err(|error| RamError::io("stat", directory, error))?;
    let is_private = meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if !is_private {
        return Err(RamError::NotOurs {
            path: directory.to_owned(),
        });
    }
    Ok(())
}
