//! `vdfs put`: local files into the filesystem.
//!
//! Each file and link is made under a temporary name in its directory and renamed when it is
//! whole, so a broken transfer leaves nothing under the name. Directories are merged into what is
//! there; a new one gets its mode and time when its contents are in it.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use vdfs_client::{AttrChanges, NewFile, OpenOptions};
use vdfs_proto::attr::SetTime;
use vdfs_proto::meta::{NewKind, Rename, RenameMode};
use vdfs_proto::{Attr, FileKind, FileName, HandleId, Ino, Status, SymlinkTarget, Timestamp};

use crate::args::PutArgs;
use crate::client::connection::{self, Connection};
use crate::client::destination::Destination;
use crate::client::interrupt::Interrupt;
use crate::client::progress::Progress;
use crate::client::side_by_side::side_by_side;
use crate::client::write_piece::write_piece;
use vdfs_program::{Blame, Failure};

/// One write: as much as a file is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// How long the removal of a half-written file may take.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &PutArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "put", async |connection| {
        let interrupt = Interrupt::watch()?;
        let many = args.sources.len() > 1;
        let destination = Destination::find(connection, &args.target, many).await;
        let destination = destination.blame(format!("put to {}", args.target.display()))?;
        let put = Put {
            connection,
            interrupt,
            progress: Progress::start(),
        };
        for source in &args.sources {
            put.source(source, &destination, args.recursive).await?;
        }
        Ok(())
    })
}

/// One run of the command.
struct Put<'a> {
    connection: &'a Connection,
    interrupt: Interrupt,
    progress: Progress,
}

/// What a local file is besides its bytes.
#[derive(Clone, Copy)]
struct Looks {
    mode: u16,
    mtime: Option<Timestamp>,
}

impl Put<'_> {
    async fn source(
        &self,
        source: &Path,
        destination: &Destination,
        recursive: bool,
    ) -> Result<(), Failure> {
        let what = format!("put {}", source.display());
        if source.as_os_str() == "-" {
            let (parent, name) = destination.of(None).map_err(|_| {
                Failure::new(&what, "standard input has no name").way_out("name the target file")
            })?;
            let stdin = standard_input().blame(&what)?;
            let looks = Looks {
                mode: 0o666 & !umask(),
                mtime: None,
            };
            return self.file(stdin, looks, parent, &name, &what).await;
        }
        let metadata = std::fs::metadata(source).blame(&what)?;
        if metadata.is_dir() {
            if !recursive {
                return Err(Failure::new(what, "is a directory").way_out("copy it with -r"));
            }
            return self.tree(source, &metadata, destination, &what).await;
        }
        let (parent, name) = destination.of(own_name(source)).blame(&what)?;
        self.local_file(source, &metadata, parent, &name).await
    }

    async fn local_file(
        &self,
        source: &Path,
        metadata: &Metadata,
        parent: Ino,
        name: &FileName,
    ) -> Result<(), Failure> {
        let what = format!("put {}", source.display());
        let file = tokio::fs::File::open(source).await.blame(&what)?;
        self.progress
            .expect(&source.to_string_lossy(), metadata.len());
        self.file(file, self.looks(metadata), parent, name, &what)
            .await
    }

    /// Copies a directory with all that is in it.
    async fn tree(
        &self,
        source: &Path,
        metadata: &Metadata,
        destination: &Destination,
        what: &str,
    ) -> Result<(), Failure> {
        let mut new = Vec::new();
        let root = match (destination, own_name(source)) {
            // `.` and `/` have no name of their own: their contents go there.
            (Destination::Inside(directory), None) => *directory,
            (_, own_name) => {
                let (parent, name) = destination.of(own_name).blame(what)?;
                self.directory(metadata, parent, name, &mut new)
                    .await
                    .blame(what)?
            }
        };
        let mut pending = vec![(source.to_path_buf(), root)];
        while let Some((local, directory)) = pending.pop() {
            self.directory_contents(&local, directory, &mut new, &mut pending)
                .await?;
        }
        // The last made first: what is done inside a directory changes its time.
        for (ino, looks) in new.into_iter().rev() {
            self.set_looks(ino, looks).await.blame(what)?;
        }
        Ok(())
    }

    async fn directory_contents(
        &self,
        local: &Path,
        directory: Ino,
        new: &mut Vec<(Ino, Looks)>,
        pending: &mut Vec<(PathBuf, Ino)>,
    ) -> Result<(), Failure> {
        let what = format!("put {}", local.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(local).blame(&what)? {
            let path = entry.blame(&what)?.path();
            let what = format!("put {}", path.display());
            let metadata = std::fs::symlink_metadata(&path).blame(&what)?;
            let name = own_name(&path).ok_or_else(|| Failure::new(&what, Status::Invalid))?;
            let kind = metadata.file_type();
            if kind.is_dir() {
                let ino = self
                    .directory(&metadata, directory, name, new)
                    .await
                    .blame(&what)?;
                pending.push((path, ino));
            } else if kind.is_symlink() {
                self.symlink(&path, directory, &name, &what).await?;
            } else if kind.is_file() {
                files.push((path, metadata, name));
            } else {
                return Err(Failure::new(what, "neither a file, a directory nor a link"));
            }
        }
        side_by_side(files, async |(path, metadata, name)| {
            self.local_file(&path, &metadata, directory, &name).await
        })
        .await
    }

    /// Makes the directory, or takes the one that is there.
    async fn directory(
        &self,
        metadata: &Metadata,
        parent: Ino,
        name: FileName,
        new: &mut Vec<(Ino, Looks)>,
    ) -> Result<Ino, Status> {
        let fs = &self.connection.fs;
        match fs.lookup(parent, &name).await {
            Ok(attr) if attr.kind == FileKind::Directory => return Ok(attr.ino),
            Ok(_) => return Err(Status::NotDirectory),
            Err(Status::NotFound) => {}
            Err(status) => return Err(status),
        }
        self.may_make_names_in(parent).await?;
        let made = fs
            .create(self.new_inode(parent, name, NewKind::Directory, 0o700))
            .await?;
        new.push((made.ino, self.looks(metadata)));
        Ok(made.ino)
    }

    async fn symlink(
        &self,
        source: &Path,
        parent: Ino,
        name: &FileName,
        what: &str,
    ) -> Result<(), Failure> {
        let target = std::fs::read_link(source).blame(what)?;
        let kind = SymlinkTarget::new(target.as_os_str().as_bytes()).map(NewKind::Symlink);
        self.may_make_names_in(parent).await.blame(what)?;
        let temporary = temporary_name();
        let new = self.new_inode(parent, temporary.clone(), kind.blame(what)?, 0o777);
        self.connection.fs.create(new).await.blame(what)?;
        let placed = self.place(parent, &temporary, name).await;
        self.clean_up_unless(placed.is_ok(), parent, temporary)
            .await;
        placed.blame(what)
    }

    async fn file(
        &self,
        reader: impl AsyncRead + Unpin,
        looks: Looks,
        parent: Ino,
        name: &FileName,
        what: &str,
    ) -> Result<(), Failure> {
        self.may_make_names_in(parent).await.blame(what)?;
        let temporary = temporary_name();
        let new = self.new_inode(parent, temporary.clone(), NewKind::Regular, 0o600);
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let (attr, open) = self
            .connection
            .fs
            .create_open(new, options, true)
            .await
            .blame(what)?;
        let whole = tokio::select! {
            copied = self.fill(open.handle, reader, what) => copied,
            () = self.interrupt.wait() => Err(Failure::new(what, "interrupted")),
        };
        let released = self.connection.fs.release(open.handle).await.blame(what);
        let placed = match whole.and(released) {
            Ok(()) => self
                .finish(attr.ino, looks, parent, &temporary, name)
                .await
                .blame(what),
            Err(failure) => Err(failure),
        };
        self.clean_up_unless(placed.is_ok(), parent, temporary)
            .await;
        placed
    }

    async fn fill(
        &self,
        handle: HandleId,
        mut reader: impl AsyncRead + Unpin,
        what: &str,
    ) -> Result<(), Failure> {
        let fs = &self.connection.fs;
        let mut offset = 0;
        loop {
            let piece = read_piece(&mut reader).await.blame(what)?;
            if piece.is_empty() {
                return fs.flush(handle).await.blame(what);
            }
            let written = write_piece(fs, &self.progress, (handle, offset), piece).await;
            offset += written.blame(what)?;
        }
    }

    async fn finish(
        &self,
        ino: Ino,
        looks: Looks,
        parent: Ino,
        temporary: &FileName,
        name: &FileName,
    ) -> Result<(), Status> {
        self.set_looks(ino, looks).await?;
        self.place(parent, temporary, name).await
    }

    /// Renames what is whole to its name, if what has the name now may be replaced.
    async fn place(
        &self,
        parent: Ino,
        temporary: &FileName,
        name: &FileName,
    ) -> Result<(), Status> {
        let (fs, caller) = (&self.connection.fs, &self.connection.caller);
        match fs.lookup(parent, name).await {
            Ok(old) => {
                let directory = fs.getattr(parent).await?;
                caller.check_removal(fs, &directory, &old).await?;
            }
            Err(Status::NotFound) => {}
            Err(status) => return Err(status),
        }
        fs.rename(Rename {
            parent,
            name: temporary.clone(),
            new_parent: parent,
            new_name: name.clone(),
            mode: RenameMode::Replace,
            found: None,
        })
        .await
    }

    async fn clean_up_unless(&self, whole: bool, parent: Ino, temporary: FileName) {
        if whole {
            return;
        }
        let removal = self.connection.fs.unlink(parent, temporary);
        match tokio::time::timeout(CLEAN_UP_WAIT, removal).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => tracing::warn!(%status, "temporary file not removed"),
            Err(_) => tracing::warn!("temporary file not removed in time"),
        }
    }

    async fn set_looks(&self, ino: Ino, looks: Looks) -> Result<Attr, Status> {
        let changes = AttrChanges {
            mode: Some(looks.mode),
            mtime: looks.mtime.map(SetTime::At),
            ..AttrChanges::default()
        };
        self.connection.fs.set_attr(ino, changes).await
    }

    async fn may_make_names_in(&self, parent: Ino) -> Result<(), Status> {
        let Connection { fs, caller } = self.connection;
        let attr = fs.getattr(parent).await?;
        caller.check_new_name(fs, &attr).await
    }

    fn new_inode(&self, parent: Ino, name: FileName, kind: NewKind, mode: u16) -> NewFile {
        let caller = &self.connection.caller;
        NewFile {
            parent,
            name,
            kind,
            mode,
            umask: 0,
            uid: caller.uid,
            gid: caller.gid,
        }
    }

    /// The copy belongs to the caller: suid and sgid of somebody else's file are not for it.
    fn looks(&self, metadata: &Metadata) -> Looks {
        let caller = &self.connection.caller;
        let same_owner = (metadata.uid(), metadata.gid()) == (caller.uid, caller.gid);
        let kept = if same_owner { 0o7777 } else { 0o1777 };
        let mtime = Timestamp {
            secs: metadata.mtime(),
            nanos: metadata.mtime_nsec() as u32,
        };
        Looks {
            mode: (metadata.mode() & kept) as u16,
            mtime: Some(mtime),
        }
    }
}

/// The next bytes, at most [`PIECE_BYTES`] and as many as there are before the end; none at the
/// end.
async fn read_piece(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    while piece.len() < PIECE_BYTES {
        let room = (PIECE_BYTES - piece.len()) as u64;
        if reader.take(room).read_buf(&mut piece).await? == 0 {
            break;
        }
    }
    Ok(piece.freeze())
}

fn standard_input() -> std::io::Result<tokio::fs::File> {
    use std::os::fd::AsFd;
    let own = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(own.into()))
}

fn umask() -> u16 {
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    (mask.as_raw_mode() & 0o777) as u16
}

fn own_name(source: &Path) -> Option<FileName> {
    FileName::new(source.file_name()?.as_bytes()).ok()
}

fn temporary_name() -> FileName {
    let name = format!(".vdfs-put-{:016x}", rand::random::<u64>());
    FileName::new(name.as_bytes()).expect("letters, a dash and digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn read_piece_fills_up_from_short_reads() {
        let source = tokio_test_reader(vec![7; PIECE_BYTES + 10]);
        let mut reader = source;
        assert_eq!(
            read_piece(&mut reader).await.expect("reads").len(),
            PIECE_BYTES
        );
        assert_eq!(read_piece(&mut reader).await.expect("reads").len(), 10);
        assert!(read_piece(&mut reader).await.expect("reads").is_empty());
    }

    /// Gives its bytes through a pipe of 1,000 bytes.
    fn tokio_test_reader(bytes: Vec<u8>) -> impl AsyncRead + Unpin {
        let (mut sender, receiver) = tokio::io::duplex(1000);
        tokio::spawn(async move {
            drop(tokio::io::AsyncWriteExt::write_all(&mut sender, &bytes).await);
        });
        receiver
    }

    #[test]
    fn own_name_of_a_path_without_one_is_none() {
        for path in ["/", ".", "..", "a/.."] {
            assert_eq!(own_name(Path::new(path)), None, "{path}");
        }
        assert_eq!(own_name(Path::new("a/b")), FileName::new(b"b").ok());
    }
}
