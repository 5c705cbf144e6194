//! Where things are kept on this machine: default state directories, and which state directory
//! belongs to which mountpoint.
//!
//! The second is a symbolic link per mountpoint under `/run/vdfs/up` (without root
//! `$XDG_RUNTIME_DIR/vdfs/up`), so that `vdfs down DIR` finds an `up` with any `--state`. A link
//! only says where to look: what is found there is checked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use vdfs_proto::limits::NAME_BYTES_MAX;

use vdfs_program::Failure;

/// The default state directory of `up`.
pub(crate) fn default_state() -> Result<PathBuf, Failure> {
    vdfs_program::places::default_state("up")
}

/// The path made absolute, with symbolic links resolved in all but its last part: that may be a
/// mountpoint that nobody serves any more, which cannot be looked at.
pub(crate) fn absolute_mountpoint(dir: &Path) -> Result<PathBuf, Failure> {
    if let Ok(path) = dir.canonicalize() {
        return Ok(path);
    }
    let absolute = std::path::absolute(dir).map_err(|error| Failure::new(dir.display(), error))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    Ok(parent
        .canonicalize()
        .map_or_else(|_| absolute.clone(), |parent| parent.join(name)))
}

/// Notes that the filesystem mounted at `dir` has its state in `state`, and drops notes that lead
/// nowhere. Without such a note only `--state` finds it.
pub(crate) fn remember(dir: &Path, state: &Path) {
    let Some(notes) = notes_dir() else { return };
    if let Err(error) = write_note(&notes, dir, state) {
        tracing::info!(%error, dir = %dir.display(), "mountpoint not noted");
    }
}

/// The state directory of the filesystem that is or was mounted at `dir`.
pub(crate) fn state_of(dir: &Path) -> Option<PathBuf> {
    let note = notes_dir()?.join(note_name(dir)?);
    std::fs::read_link(note).ok()
}

/// Drops the notes of every mountpoint that lead to `state`.
pub(crate) fn forget(state: &Path) {
    if let Some(notes) = notes_dir() {
        drop_notes(&notes, |target| target == state);
    }
}

fn notes_dir() -> Option<PathBuf> {
    if vdfs_program::places::is_root() {
        return Some(PathBuf::from("/run/vdfs/up"));
    }
    let base = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    base.is_absolute().then(|| base.join("vdfs/up"))
}

fn write_note(notes: &Path, dir: &Path, state: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(notes)?;
    drop_notes(notes, |target| target == state || !target.exists());
    let Some(name) = note_name(dir) else {
        return Err(std::io::Error::other("the path is too long"));
    };
    let note = notes.join(name);
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => symlink(state, note),
    }
}

fn drop_notes(notes: &Path, unwanted: impl Fn(&Path) -> bool) {
    let Ok(entries) = std::fs::read_dir(notes) else {
        return;
    };
    for note in entries.flatten() {
        if std::fs::read_link(note.path()).is_ok_and(|target| unwanted(&target)) {
            drop(std::fs::remove_file(note.path()));
        }
    }
}

/// The path as one name: `/` and `%` as `%2F` and `%25`. `None` if it is too long for a name.
fn note_name(dir: &Path) -> Option<OsString> {
    let mut name = Vec::new();
    for &byte in OsStr::as_bytes(dir.as_os_str()) {
        match byte {
            b'/' => name.extend(b"%2F"),
            b'%' => name.extend(b"%25"),
            other => name.push(other),
        }
    }
    (name.len() <= NAME_BYTES_MAX).then(|| OsString::from_vec(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_name_tells_all_paths_apart() {
        let names: Vec<_> = ["/a/b", "/a%2Fb", "/a-b"]
            .map(|path| note_name(Path::new(path)))
            .into();
        assert_eq!(names[0].as_deref(), Some(OsStr::new("%2Fa%2Fb")));
        assert!(names[0] != names[1] && names[1] != names[2]);
    }

    #[test]
    fn write_note_replaces_the_old_note_of_the_same_state() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (notes, state) = (scratch.path().join("notes"), scratch.path().join("state"));
        std::fs::create_dir(&state).expect("a state directory");
        write_note(&notes, Path::new("/old"), &state).expect("writes");
        write_note(&notes, Path::new("/new"), &state).expect("writes");
        let left: Vec<_> = std::fs::read_dir(&notes)
            .expect("lists")
            .flatten()
            .collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "%2Fnew");
    }

    #[test]
    fn absolute_mountpoint_of_a_missing_directory_resolves_its_parent() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let real = scratch.path().canonicalize().expect("is there");
        symlink(&real, real.join("link")).expect("a link");
        let path = absolute_mountpoint(&real.join("link/new")).expect("resolves");
        assert_eq!(path, real.join("new"));
    }
}
