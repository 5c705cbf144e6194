//! Files to be installed, and how they get to their places.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use vdfs_program::Failure;

/// One file to be installed.
#[derive(Debug)]
pub(super) struct File {
    /// Absolute, as if the root were `/`.
    pub(super) place: PathBuf,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Text(Vec<u8>),
    /// A copy of this file, which everybody may run.
    Program(PathBuf),
    /// A symbolic link to this.
    Link(&'static str),
}

impl File {
    pub(super) fn text(place: PathBuf, text: impl Into<Vec<u8>>) -> Self {
        File {
            place,
            content: Content::Text(text.into()),
        }
    }

    pub(super) fn place_below(&self, root: &Path) -> PathBuf {
        let relative = self.place.strip_prefix("/").expect("places are absolute");
        root.join(relative)
    }
}

/// Writes all files, or none if one of them cannot be written.
pub(super) fn write(root: &Path, files: &[File]) -> Result<(), Failure> {
    let mut staged = Staged::default();
    for file in files {
        let place = file.place_below(root);
        staged
            .add(&place, &file.content)
            .map_err(|error| refused(&place, &error))?;
    }
    staged.put_in_place()
}

fn refused(place: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(place.display(), error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.way_out("run it as root, or install elsewhere with --root DIR")
        }
        _ => failure,
    }
}

/// Files that are written beside their places; those that do not get there are removed.
#[derive(Debug, Default)]
struct Staged(Vec<Beside>);

#[derive(Debug)]
struct Beside {
    path: PathBuf,
    place: PathBuf,
}

impl Staged {
    fn add(&mut self, place: &Path, content: &Content) -> io::Result<()> {
        if place.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let dir = place.parent().expect("a place lies in a directory");
        let name = place.file_name().expect("a place has a name");
        fs::create_dir_all(dir)?;
        let path = dir.join(format!(".{}.new", name.display()));
        remove_if_there(&path)?;
        self.0.push(Beside {
            path: path.clone(),
            place: place.to_owned(),
        });
        match content {
            Content::Text(text) => write_file(&path, text, 0o644),
            Content::Program(source) => write_file(&path, &fs::read(source)?, 0o755),
            Content::Link(target) => symlink(target, &path),
        }
    }

    fn put_in_place(mut self) -> Result<(), Failure> {
        for Beside { path, place } in std::mem::take(&mut self.0) {
            fs::rename(&path, &place).map_err(|error| refused(&place, &error))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for Beside { path, .. } in &self.0 {
            // What cannot be removed now could not be told better than by the error before.
            drop(remove_if_there(path));
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    // Whatever the umask is, others must be able to run and read it.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(place: &str) -> File {
        File::text(place.into(), "new")
    }

    #[test]
    fn write_replaces_files_whole_and_leaves_nothing_beside() {
        let root = tempfile::tempdir().expect("a scratch directory");
        write(root.path(), &[text("/a/b/c"), text("/d")]).expect("written");
        fs::write(root.path().join("d"), "older and longer").expect("written");
        write(root.path(), &[text("/d")]).expect("written again");
        let d = fs::read_to_string(root.path().join("d")).expect("there");
        assert_eq!(d, "new");
        let names = fs::read_dir(root.path()).expect("there").count();
        assert_eq!(names, 2);
    }

    #[test]
    fn write_that_is_refused_for_one_file_changes_none() {
        let root = tempfile::tempdir().expect("a scratch directory");
        fs::write(root.path().join("a"), "old").expect("written");
        fs::create_dir(root.path().join("b")).expect("made");
        let refused = write(root.path(), &[text("/a"), text("/b")]);
        let line = refused.expect_err("b is a directory").to_string();
        assert!(line.contains("/b: "), "{line}");
        let a = fs::read_to_string(root.path().join("a")).expect("there");
        assert_eq!(a, "old");
        assert!(!root.path().join(".a.new").exists());
    }

    #[test]
    fn write_gives_programs_to_everybody() {
        let root = tempfile::tempdir().expect("a scratch directory");
        fs::write(root.path().join("built"), "#!").expect("written");
        let program = File {
            place: "/bin/x".into(),
            content: Content::Program(root.path().join("built")),
        };
        write(root.path(), &[program]).expect("written");
        let mode = fs::metadata(root.path().join("bin/x")).expect("there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o755);
    }
}
