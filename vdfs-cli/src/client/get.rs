//! `vdfs get`: files of the filesystem onto local disks, or to standard output.
//!
//! As with `put`, a file or link appears under its name only when it is whole.

use std::ffi::OsStr;
use std::fs::{File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use vdfs_client::path::resolve;
use vdfs_proto::acl::Perms;
use vdfs_proto::{Attr, FileKind, Ino, Status};

use crate::args::GetArgs;
use crate::client::cat;
use crate::client::connection::{self, Connection};
use crate::client::interrupt::Interrupt;
use crate::client::listing::list;
use crate::client::progress::Progress;
use crate::client::side_by_side::side_by_side;
use crate::output::Output;
use vdfs_program::{Blame, Failure};

pub(crate) fn run(args: &GetArgs) -> Result<(), Failure> {
    if args.target.as_os_str() == "-" {
        return to_standard_output(args);
    }
    connection::run(&args.cluster, "get", async |connection| {
        let many = args.sources.len() > 1;
        if many && !args.target.is_dir() {
            return Err(Failure::new(args.target.display(), Status::NotDirectory));
        }
        let interrupt = Interrupt::watch()?;
        let get = Get {
            connection,
            progress: Progress::start(),
            recursive: args.recursive,
        };
        tokio::select! {
            outcome = get.sources(&args.sources, &args.target) => outcome,
            () = interrupt.wait() => Err(Failure::new("get", "interrupted")),
        }
    })
}

fn to_standard_output(args: &GetArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "get", async |connection| {
        let mut output = Output::open();
        for source in &args.sources {
            cat::copy(connection, source, &mut output).await?;
        }
        output.finish()
    })
}

/// One run of the command.
struct Get<'a> {
    connection: &'a Connection,
    progress: Progress,
    recursive: bool,
}

impl Get<'_> {
    async fn sources(&self, sources: &[PathBuf], target: &Path) -> Result<(), Failure> {
        for source in sources {
            self.source(source, target).await?;
        }
        Ok(())
    }

    async fn source(&self, source: &Path, target: &Path) -> Result<(), Failure> {
        let what = format!("get {}", source.display());
        let Connection { fs, caller } = self.connection;
        let attr = resolve(fs, caller, source, true).await.blame(&what)?;
        let local = match source.file_name() {
            Some(name) if target.is_dir() => target.join(name),
            Some(_) | None => target.to_path_buf(),
        };
        match attr.kind {
            FileKind::Directory if !self.recursive => {
                Err(Failure::new(what, Status::IsDirectory).way_out("copy it with -r"))
            }
            FileKind::Directory => self.tree(&attr, &local, source).await,
            _ => self.entry(&attr, &local, source).await,
        }
    }

    /// Copies a directory with all that is in it into `local`, which is made unless it is there.
    async fn tree(&self, root: &Attr, local: &Path, source: &Path) -> Result<(), Failure> {
        let mut new = Vec::new();
        let mut pending = vec![(*root, local.to_path_buf(), source.to_path_buf())];
        while let Some((directory, local, source)) = pending.pop() {
            let what = format!("get {}", source.display());
            if make_directory(&local).blame(format!("get to {}", local.display()))? {
                new.push((local.clone(), directory));
            }
            let readable = Perms::READ.and(Perms::EXECUTE);
            self.check(&directory, readable, &what).await?;
            let mut entries = Vec::new();
            for (entry, attr) in list(&self.connection.fs, directory.ino)
                .await
                .blame(&what)?
            {
                let name = entry.name.as_os_str();
                let found = (attr, local.join(name), source.join(name));
                match attr.kind {
                    FileKind::Directory => pending.push(found),
                    _ => entries.push(found),
                }
            }
            side_by_side(entries, async |(attr, local, source)| {
                self.entry(&attr, &local, &source).await
            })
            .await?;
        }
        for (local, attr) in new.into_iter().rev() {
            let directory = File::open(&local).blame(local.display())?;
            set_looks(&directory, &attr).blame(local.display())?;
        }
        Ok(())
    }

    async fn check(&self, attr: &Attr, wanted: Perms, what: &str) -> Result<(), Failure> {
        let Connection { fs, caller } = self.connection;
        caller.check(fs, attr, wanted).await.blame(what)
    }

    /// Copies what is not a directory.
    async fn entry(&self, attr: &Attr, local: &Path, source: &Path) -> Result<(), Failure> {
        let what = format!("get {}", source.display());
        match attr.kind {
            FileKind::Regular => self.file(attr, local, &what, source).await,
            FileKind::Symlink => self.symlink(attr.ino, local, &what).await,
            _ => Err(Failure::new(what, "neither a file, a directory nor a link")),
        }
    }

    async fn file(
        &self,
        attr: &Attr,
        local: &Path,
        what: &str,
        source: &Path,
    ) -> Result<(), Failure> {
        self.check(attr, Perms::READ, what).await?;
        self.progress.expect(&source.to_string_lossy(), attr.size);
        if !is_replaceable(local).blame(what)? {
            let mut into = File::options()
                .write(true)
                .truncate(true)
                .open(local)
                .blame(what)?;
            return self.copy(attr.ino, &mut into, what).await;
        }
        let (mut file, unfinished) = Unfinished::file(local).blame(what)?;
        self.copy(attr.ino, &mut file, what).await?;
        set_looks(&file, attr).blame(what)?;
        unfinished.finish(local).blame(what)
    }

    async fn copy(&self, ino: Ino, file: &mut File, what: &str) -> Result<(), Failure> {
        let mut reader = cat::Reader::open(&self.connection.fs, ino)
            .await
            .blame(what)?;
        let copied = loop {
            match reader.next().await {
                Ok(piece) if piece.is_empty() => break Ok(()),
                Ok(piece) => file.write_all(&piece).blame(what)?,
                Err(status) => break Err(Failure::new(what, status)),
            }
            self.progress.advance(reader.last_bytes());
        };
        reader.close().await.blame(what)?;
        copied
    }

    async fn symlink(&self, ino: Ino, local: &Path, what: &str) -> Result<(), Failure> {
        let target = self.connection.fs.readlink(ino).await.blame(what)?;
        if local
            .symlink_metadata()
            .is_ok_and(|old| !old.is_file() && !old.is_symlink())
        {
            let why = format!("{} is in the way", local.display());
            return Err(Failure::new(what, why));
        }
        let unfinished = Unfinished::symlink(local, target.as_os_str()).blame(what)?;
        unfinished.finish(local).blame(what)
    }
}

/// False for devices, pipes and links (`/dev/stdout`): as with cp(1), what is copied there goes
/// through them.
fn is_replaceable(local: &Path) -> std::io::Result<bool> {
    match local.symlink_metadata() {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// A file or link under a temporary name; removed unless it is finished.
#[derive(Debug)]
struct Unfinished {
    temporary: PathBuf,
    finished: bool,
}

impl Unfinished {
    fn file(local: &Path) -> std::io::Result<(File, Unfinished)> {
        let unfinished = Unfinished::beside(local);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished.temporary)?;
        Ok((file, unfinished))
    }

    fn symlink(local: &Path, target: &OsStr) -> std::io::Result<Unfinished> {
        let unfinished = Unfinished::beside(local);
        symlink(target, &unfinished.temporary)?;
        Ok(unfinished)
    }

    fn beside(local: &Path) -> Unfinished {
        let name = format!(".vdfs-get-{:016x}", rand::random::<u64>());
        Unfinished {
            temporary: local.with_file_name(name),
            finished: false,
        }
    }

    fn finish(mut self, local: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.temporary, local)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // It may not have been made at all.
            drop(std::fs::remove_file(&self.temporary));
        }
    }
}

/// True if the directory is new.
fn make_directory(local: &Path) -> std::io::Result<bool> {
    match std::fs::create_dir(local) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && local.is_dir() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The copy belongs to the caller: suid and sgid of somebody else's file are not for it.
fn set_looks(file: &File, attr: &Attr) -> std::io::Result<()> {
    let same_owner = rustix::process::geteuid().as_raw() == attr.uid
        && rustix::process::getegid().as_raw() == attr.gid;
    let kept = if same_owner { 0o7777 } else { 0o1777 };
    file.set_permissions(Permissions::from_mode(u32::from(attr.mode & kept)))?;
    file.set_times(FileTimes::new().set_modified(attr.mtime.to_system()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn unfinished_file_leaves_nothing_behind() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let local = scratch.path().join("a");
        drop(Unfinished::file(&local).expect("made"));
        assert_eq!(std::fs::read_dir(scratch.path()).expect("lists").count(), 0);
        let (mut file, unfinished) = Unfinished::file(&local).expect("made");
        file.write_all(b"x").expect("writes");
        assert!(!local.exists());
        unfinished.finish(&local).expect("renames");
        assert_eq!(std::fs::read(&local).expect("reads"), b"x");
    }

    #[test]
    fn is_replaceable_spares_devices_and_links() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (file, link) = (scratch.path().join("file"), scratch.path().join("link"));
        assert!(is_replaceable(&file).expect("is not there"));
        std::fs::write(&file, "").expect("writes");
        assert!(is_replaceable(&file).expect("a file"));
        symlink(&file, &link).expect("a link");
        assert!(!is_replaceable(&link).expect("a link"));
        assert!(!is_replaceable(Path::new("/dev/null")).expect("a device"));
    }

    #[test]
    fn unfinished_is_made_beside_a_name_that_is_not_utf8() {
        let local = Path::new("/d").join(OsStr::from_bytes(b"\xff"));
        assert_eq!(
            Unfinished::beside(&local).temporary.parent(),
            Some(Path::new("/d"))
        );
    }
}
