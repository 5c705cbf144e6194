//! The directory that is mounted over.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::places;
use vdfs_program::{Blame, Failure};

/// Makes the directory if it is missing, and refuses what can be no mountpoint before anything
/// else is touched; gives its path with links resolved. A mountpoint that nobody serves any more is
/// left to the mount itself.
pub(super) fn prepare(dir: &Path) -> Result<PathBuf, Failure> {
    check_or_make(dir)?;
    places::absolute_mountpoint(dir)
}

fn check_or_make(dir: &Path) -> Result<(), Failure> {
    match std::fs::symlink_metadata(dir) {
        Ok(metadata) if metadata.is_dir() => check_empty(dir, &metadata),
        Ok(_) => Err(Failure::new(dir.display(), "not a directory")
            .way_out("name a directory that is empty or not there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir).blame(dir.display())
        }
        Err(error) if is_of_dead_mount(&error) => Ok(()),
        Err(error) => Err(Failure::new(dir.display(), error)),
    }
}

/// What is mounted already is judged by the mount.
fn check_empty(dir: &Path, metadata: &Metadata) -> Result<(), Failure> {
    let above = dir.parent().and_then(|above| above.metadata().ok());
    if above.is_none_or(|above| above.dev() != metadata.dev()) {
        return Ok(());
    }
    match std::fs::read_dir(dir).blame(dir.display())?.next() {
        None => Ok(()),
        Some(_) => Err(Failure::new(dir.display(), "the directory is not empty")
            .way_out("name one that is empty or not there")),
    }
}

/// True if the process that served the mount at `dir` is gone.
pub(crate) fn is_dead_mount(dir: &Path) -> bool {
    std::fs::metadata(dir).is_err_and(|error| is_of_dead_mount(&error))
}

fn is_of_dead_mount(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_makes_what_is_missing_and_refuses_what_is_in_use() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        prepare(&scratch.path().join("a/b")).expect("made");
        assert!(scratch.path().join("a/b").is_dir());
        std::fs::write(scratch.path().join("file"), "").expect("writes");
        let line = prepare(&scratch.path().join("file"))
            .expect_err("refused")
            .to_string();
        assert!(line.contains("not a directory"), "{line}");
        let line = prepare(scratch.path()).expect_err("refused").to_string();
        assert!(line.contains("not empty"), "{line}");
    }
}
