//! What `up` keeps in its state directory beside what [`StateDir`] names, and taking it away.

use std::io;
use std::path::{Path, PathBuf};

use vdfs_net::StateDir;

use vdfs_program::{Blame, Failure};

pub(crate) const PARAMETERS_FILE: &str = "up.toml";
/// Names of logs that `up --fresh` keeps begin so.
const OLD_LOG_PREFIX: &str = "log.old-";

/// The identity of a volume of `up`.
pub(crate) fn volume_identity(state: &StateDir, node: &str) -> PathBuf {
    state.path().join(format!("identity-{node}"))
}

/// Where the next old log goes: `log.old-1` and so on.
pub(crate) fn next_old_log(state: &Path) -> PathBuf {
    let path = |number: u32| state.join(format!("{OLD_LOG_PREFIX}{number}"));
    let number = (1..).find(|number| !path(*number).exists());
    path(number.expect("some number below 2^32 is free"))
}

/// Removes everything that `up` has made in `state`, and the directory itself unless others have
/// put something there. The RAM must have been freed before.
pub(crate) fn remove_all(state: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(state).blame(state.display())? {
        let entry = entry.blame(state.display())?;
        if is_ours(&entry.file_name().to_string_lossy()) {
            remove(&entry.path()).blame(entry.path().display())?;
        }
    }
    match std::fs::remove_dir(state) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
            Err(Failure::new(state.display(), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_ours(name: &str) -> bool {
    let exact = [
        "lock",
        "addr",
        "ca",
        "identity",
        "log",
        "ram",
        PARAMETERS_FILE,
    ];
    exact.contains(&name) || name.starts_with("identity-") || name.starts_with(OLD_LOG_PREFIX)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remove_all_leaves_what_is_not_ours() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state = scratch.path().join("state");
        for dir in ["ca", "identity-admin", "log", "log.old-1"] {
            std::fs::create_dir_all(state.join(dir)).expect("a directory");
        }
        for file in ["lock", "addr", "up.toml", "log/wal-1", "precious"] {
            std::fs::write(state.join(file), "").expect("writes");
        }
        remove_all(&state).expect("removes");
        let left: Vec<_> = std::fs::read_dir(&state)
            .expect("lists")
            .flatten()
            .collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "precious");
    }

    #[test]
    fn next_old_log_is_the_first_free_number() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        std::fs::create_dir(scratch.path().join("log.old-1")).expect("a directory");
        assert_eq!(
            next_old_log(scratch.path()),
            scratch.path().join("log.old-2")
        );
    }
}
