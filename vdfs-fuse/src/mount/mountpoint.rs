//! The directory to mount on: empty, and nothing mounted there but perhaps a dead VDFS mount.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use tracing::info;

use crate::limits::PROBE_MAX;
use crate::mount::detach::Detacher;
use crate::mount::mountinfo::{self, MountEntry};
use crate::mount::{FS_TYPE, MountError, stat_within};

/// Dead mounts that may lie on top of one another.
const DEAD_MOUNTS_MAX: usize = 64;

/// Takes dead VDFS mounts away and checks the rest; gives the place with links resolved.
pub(crate) fn prepare(dir: &Path) -> Result<PathBuf, MountError> {
    let place = detach_dead_mounts(dir)?;
    check_empty(&place)?;
    Ok(place)
}

/// Takes dead VDFS mounts at `dir` away; gives the place with links resolved. Anything else that is
/// mounted there stays and is an error.
pub fn detach_dead_mounts(dir: &Path) -> Result<PathBuf, MountError> {
    let place = resolve(dir)?;
    for _ in 0..DEAD_MOUNTS_MAX {
        let Some(entry) = mountinfo::entry_at(&place) else {
            break;
        };
        take_over(&place, entry)?;
    }
    Ok(place)
}

/// Resolves links in all but the last part, at which a dead mount refuses every question.
fn resolve(dir: &Path) -> Result<PathBuf, MountError> {
    let failed = |error: io::Error| failure(dir, error);
    let Some(Component::Normal(name)) = dir.components().next_back() else {
        return dir.canonicalize().map_err(failed);
    };
    if dir.is_symlink() {
        return dir.canonicalize().map_err(failed);
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent
        .unwrap_or(Path::new("."))
        .canonicalize()
        .map_err(failed)?;
    Ok(parent.join(name))
}

/// Detaches a dead VDFS mount; anything else stays and is an error.
fn take_over(place: &Path, entry: MountEntry) -> Result<(), MountError> {
    if entry.fs_type != FS_TYPE || !is_dead(place) {
        let MountEntry {
            source, fs_type, ..
        } = entry;
        let dir = place.to_owned();
        return Err(MountError::AlreadyMounted {
            dir,
            source_name: source,
            fs_type,
        });
    }
    info!(dir = %place.display(), source = entry.source, "a dead VDFS mount is replaced");
    Detacher::new(place.to_owned(), entry.device).detach();
    Ok(())
}

/// A mount whose daemon is gone answers at once, and only with these.
fn is_dead(place: &Path) -> bool {
    let error = stat_within(place, PROBE_MAX)
        .err()
        .and_then(|error| error.raw_os_error());
    matches!(error, Some(libc::ENOTCONN | libc::ECONNABORTED))
}

fn check_empty(place: &Path) -> Result<(), MountError> {
    let metadata = fs::metadata(place).map_err(|error| failure(place, error))?;
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory {
            dir: place.to_owned(),
        });
    }
    let mut entries = fs::read_dir(place).map_err(|error| failure(place, error))?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty {
            dir: place.to_owned(),
        });
    }
    Ok(())
}

fn failure(dir: &Path, why: io::Error) -> MountError {
    let dir = dir.to_owned();
    match why.kind() {
        io::ErrorKind::NotFound => MountError::Missing { dir },
        io::ErrorKind::NotADirectory => MountError::NotDirectory { dir },
        _ => MountError::Unusable { dir, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_takes_an_empty_directory_through_links() {
        let scratch = tempfile::tempdir().expect("a directory");
        let real = scratch.path().canonicalize().expect("exists").join("real");
        fs::create_dir(&real).expect("made");
        std::os::unix::fs::symlink(&real, scratch.path().join("link")).expect("linked");
        assert_eq!(prepare(&scratch.path().join("link")).expect("empty"), real);
        assert_eq!(prepare(&real.join(".")).expect("empty"), real);
        assert_eq!(prepare(&real.join("../real")).expect("empty"), real);
    }

    #[test]
    fn prepare_refuses_what_cannot_be_mounted_on() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("file");
        fs::write(&file, b"x").expect("written");
        assert!(matches!(
            prepare(&file),
            Err(MountError::NotDirectory { .. })
        ));
        assert!(matches!(
            prepare(scratch.path()),
            Err(MountError::NotEmpty { .. })
        ));
        let missing = prepare(&scratch.path().join("missing"));
        assert!(matches!(missing, Err(MountError::Missing { .. })));
        let proc = prepare(Path::new("/proc"));
        assert!(
            matches!(proc, Err(MountError::AlreadyMounted { fs_type, .. }) if fs_type == "proc")
        );
    }
}
