//! `vdfs replicas --apply`: files that exist get the number of copies that their directories ask for.
//!
//! A file is copied to another one, which has no name any more and lies in the right chains, and then
//! takes that one's bytes over (`vdfs_proto::meta::TakeOver`): only if nobody has changed it meanwhile,
//! else it is copied again. What is broken off leaves the file as it was, and the copy ends with the
//! session. The copies are made in a directory of the command's own, so that no other one is touched.
//!
//! A file of several names gets what the directory of the name asks for that is found last.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use vdfs_client::{AttrChanges, Fs, NewFile, OpenFile, OpenOptions};
use vdfs_program::{Blame, Failure, human};
use vdfs_proto::acl::Perms;
use vdfs_proto::data::SeekTarget;
use vdfs_proto::meta::{GroupStatus, NewKind, TakeOver, XattrMode};
use vdfs_proto::{Attr, Copies, FileKind, FileName, HandleId, Ino, Status};

use super::below::asked_by;
use crate::args::ReplicasArgs;
use crate::client::connection::Connection;
use crate::client::every_file::{Named, look_at_every_file};
use crate::client::interrupt::Interrupt;
use crate::client::on_inode::run_on_inode;
use crate::client::progress::Progress;
use crate::client::write_piece::write_piece;
use crate::output::Output;

/// Bytes of one read, which goes to the volumes.
const PIECE_BYTES: u64 = 4 << 20;
/// How often a file is copied that others write meanwhile.
const ATTEMPTS: u32 = 6;
/// Before a file is copied again; longer each time.
const PAUSE: Duration = Duration::from_millis(500);
/// Failures that are told one by one.
const FAILURES_TOLD: usize = 5;

/// What `vdfs replicas --apply PATH --json` prints.
#[derive(Debug, Default, Serialize)]
struct Applied {
    /// Copied to where they have as many copies as they shall.
    files: u64,
    size_bytes: u64,
    /// Were there already.
    unchanged: u64,
    failed: Vec<NotApplied>,
}

#[derive(Debug, Serialize)]
struct NotApplied {
    path: PathBuf,
    why: String,
}

struct Found {
    path: PathBuf,
    attr: Attr,
    copies: Option<Copies>,
}

pub(super) fn run(args: &ReplicasArgs, path: &Path) -> Result<(), Failure> {
    run_on_inode(path, &args.cluster, "replicas", async |connection, ino| {
        let interrupt = Interrupt::watch()?;
        let found = find(&connection.fs, ino, path)
            .await
            .blame(path.display())?;
        let mut mover = Mover {
            connection,
            progress: Progress::start(),
            places: BTreeMap::new(),
            groups: Vec::new(),
            applied: Applied::default(),
        };
        let outcome = tokio::select! {
            outcome = mover.move_all(found) => outcome.blame("replicas"),
            () = interrupt.wait() => Err(Failure::new(path.display(), "interrupted")),
        };
        let removed = mover.remove_places().await.blame("replicas");
        outcome.and(removed)?;
        tell(args, &mover.applied)
    })
}

fn tell(args: &ReplicasArgs, applied: &Applied) -> Result<(), Failure> {
    let mut output = Output::open();
    if args.json {
        output.json(applied)?;
    } else {
        output.line(format!(
            "{} files ({}) copied, {} were as they shall be",
            applied.files,
            human(applied.size_bytes),
            applied.unchanged
        ))?;
    }
    output.finish()?;
    let failed = &applied.failed;
    if failed.is_empty() {
        return Ok(());
    }
    let told = failed.iter().take(FAILURES_TOLD);
    let told: Vec<String> = told
        .map(|not| format!("{} ({})", not.path.display(), not.why))
        .collect();
    let what = format!("{} files stay as they were", failed.len());
    Err(Failure::new(what, told.join(", ")).way_out("try again when nobody writes to them"))
}

/// All regular files below, with what their directories ask for.
async fn find(fs: &Fs, ino: Ino, path: &Path) -> Result<Vec<Found>, Status> {
    if fs.getattr(ino).await?.kind != FileKind::Directory {
        return Err(Status::NotDirectory);
    }
    let found = std::cell::RefCell::new(Vec::new());
    let asked: std::cell::RefCell<BTreeMap<Ino, Option<Copies>>> = Default::default();
    let look = async |named: Named<'_>| {
        let parent = named.parent.ino;
        let known = asked.borrow().get(&parent).copied();
        let copies = match known {
            Some(copies) => copies,
            None => asked_by(fs, parent).await?,
        };
        asked.borrow_mut().insert(parent, copies);
        let path = named.path();
        let regular = named
            .entry
            .attr
            .filter(|attr| attr.kind == FileKind::Regular);
        found
            .borrow_mut()
            .extend(regular.map(|attr| Found { path, attr, copies }));
        Ok(())
    };
    look_at_every_file(fs, (ino, path), look).await?;
    Ok(found.into_inner())
}

struct Mover<'a> {
    connection: &'a Connection,
    progress: Progress,
    /// Directories in which copies are made, by what they ask for.
    places: BTreeMap<Option<Copies>, (Ino, FileName)>,
    /// As the master told them last.
    groups: Vec<GroupStatus>,
    applied: Applied,
}

/// An open file that is being copied, and the copy.
struct Pair {
    source: OpenFile,
    copy: OpenFile,
}

impl Mover<'_> {
    async fn move_all(&mut self, found: Vec<Found>) -> Result<(), Status> {
        for file in found {
            let name = file.path.display().to_string();
            self.progress.expect(&name, file.attr.size);
            match self.move_one(&file).await {
                Ok(true) => {
                    self.applied.files += 1;
                    self.applied.size_bytes += file.attr.size;
                }
                Ok(false) => {
                    self.progress.advance(file.attr.size);
                    self.applied.unchanged += 1;
                }
                // Somebody has removed it.
                Err(Status::NotFound | Status::StaleInode) => {}
                Err(status @ (Status::Disconnected | Status::SessionExpired)) => {
                    return Err(status);
                }
                Err(status) => self.applied.failed.push(NotApplied {
                    path: file.path,
                    why: status.to_string(),
                }),
            }
        }
        Ok(())
    }

    /// False if it lies where it shall.
    async fn move_one(&mut self, file: &Found) -> Result<bool, Status> {
        let group = self.connection.fs.layout(file.attr.ino).await?.group;
        if self.copies_of(group).await? == file.copies {
            return Ok(false);
        }
        let Connection { fs, caller } = self.connection;
        let wanted = Perms::READ.and(Perms::WRITE);
        caller.check(fs, &file.attr, wanted).await?;
        let place = self.place(file.copies).await?;
        let mut outcome = Err(Status::StaleLayout);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * attempt).await;
                self.cut_tail(file.attr.ino).await?;
            }
            outcome = self.try_to_move(file.attr.ino, place).await;
            if !matches!(outcome, Err(Status::StaleLayout | Status::Gone)) {
                break;
            }
        }
        outcome.map(|()| true)
    }

    /// What the files of a group shall have. A group that is not known is new.
    async fn copies_of(&mut self, group: u16) -> Result<Option<Copies>, Status> {
        let index = usize::from(group);
        if index >= self.groups.len() {
            self.groups = self.connection.fs.status().await?.groups;
        }
        Ok(self.groups.get(index).and_then(|group| group.copies))
    }

    /// What a mount that died has left behind the end is cut when somebody opens the file for writing.
    async fn cut_tail(&self, ino: Ino) -> Result<(), Status> {
        let fs = &self.connection.fs;
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let open = fs.open(ino, options).await?;
        fs.release(open.handle).await
    }

    async fn try_to_move(&self, ino: Ino, place: Ino) -> Result<(), Status> {
        let fs = &self.connection.fs;
        let options = OpenOptions {
            read: true,
            no_atime: true,
            ..OpenOptions::default()
        };
        let source = fs.open(ino, options).await?;
        let moved = match self.open_copy(place).await {
            Ok(copy) => {
                let pair = Pair { source, copy };
                let moved = self.copy_and_take_over(&pair).await;
                fs.release(copy.handle).await.and(moved)
            }
            Err(status) => Err(status),
        };
        fs.release(source.handle).await.and(moved)
    }

    /// A file that has lost its name.
    async fn open_copy(&self, place: Ino) -> Result<OpenFile, Status> {
        let Connection { fs, caller } = self.connection;
        let name = FileName::new(b"copy")?;
        let new = NewFile {
            parent: place,
            name: name.clone(),
            kind: NewKind::Regular,
            mode: 0o600,
            umask: 0,
            uid: caller.uid,
            gid: caller.gid,
        };
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let (_, copy) = fs.create_open(new, options, true).await?;
        match fs.unlink(place, name).await {
            Ok(()) => Ok(copy),
            Err(status) => fs.release(copy.handle).await.and(Err(status)),
        }
    }

    async fn copy_and_take_over(&self, pair: &Pair) -> Result<(), Status> {
        let fs = &self.connection.fs;
        let Pair { source, copy } = pair;
        let layout = fs.layout(source.attr.ino).await?;
        self.copy(pair).await?;
        fs.fsync(copy.handle).await?;
        fs.take_over(TakeOver {
            ino: source.attr.ino,
            data: layout.data,
            truncations: layout.truncations,
            version: source.attr.data_version,
            from: copy.attr.ino,
        })
        .await
    }

    /// Holes stay holes, and nothing else becomes one.
    async fn copy(&self, pair: &Pair) -> Result<(), Status> {
        let size = pair.source.attr.size;
        if !pair.source.attr.has_holes {
            return self.copy_range(pair, 0..size).await;
        }
        let changes = AttrChanges {
            size: Some(size),
            ..AttrChanges::default()
        };
        let fs = &self.connection.fs;
        fs.set_attr(pair.copy.attr.ino, changes).await?;
        let mut offset = 0;
        while let Some(data) = next_data(fs, pair.source.handle, offset..size).await? {
            offset = data.end;
            self.copy_range(pair, data).await?;
        }
        Ok(())
    }

    async fn copy_range(&self, pair: &Pair, range: Range<u64>) -> Result<(), Status> {
        let fs = &self.connection.fs;
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(PIECE_BYTES) as u32;
            let piece = fs.read_direct(pair.source.handle, offset, len).await?;
            if piece.is_empty() {
                return Err(Status::StaleLayout);
            }
            let place = (pair.copy.handle, offset);
            offset += write_piece(fs, &self.progress, place, piece).await?;
        }
        Ok(())
    }

    /// The directory for copies of a kind; made when the first is.
    async fn place(&mut self, copies: Option<Copies>) -> Result<Ino, Status> {
        if let Some((place, _)) = self.places.get(&copies) {
            return Ok(*place);
        }
        let Connection { fs, caller } = self.connection;
        let root = fs.getattr(Ino::ROOT).await?;
        caller.check_new_name(fs, &root).await?;
        let name = format!(".vdfs-replicas-{:016x}", rand::random::<u64>());
        let name = FileName::new(name.as_bytes())?;
        let new = NewFile {
            parent: Ino::ROOT,
            name: name.clone(),
            kind: NewKind::Directory,
            mode: 0o700,
            umask: 0,
            uid: caller.uid,
            gid: caller.gid,
        };
        let place = fs.create(new).await?.ino;
        self.places.insert(copies, (place, name));
        match copies {
            Some(copies) => {
                let value = copies.to_bytes();
                fs.set_xattr(place, Copies::name(), value, XattrMode::Set)
                    .await?;
            }
            None if asked_by(fs, place).await?.is_some() => {
                fs.remove_xattr(place, Copies::name()).await?;
            }
            None => {}
        }
        Ok(place)
    }

    async fn remove_places(&self) -> Result<(), Status> {
        let fs = &self.connection.fs;
        for (place, name) in self.places.values() {
            // One that was broken off between making a copy and taking its name.
            match fs.unlink(*place, FileName::new(b"copy")?).await {
                Ok(()) | Err(Status::NotFound) => {}
                Err(status) => return Err(status),
            }
            fs.rmdir(Ino::ROOT, name.clone(), None).await?;
        }
        Ok(())
    }
}

async fn next_data(
    fs: &Fs,
    handle: HandleId,
    range: Range<u64>,
) -> Result<Option<Range<u64>>, Status> {
    if range.is_empty() {
        return Ok(None);
    }
    let start = match fs.seek(handle, range.start, SeekTarget::Data).await {
        Err(Status::NoSuchOffset) => return Ok(None),
        start => start?,
    };
    let end = fs.seek(handle, start, SeekTarget::Hole).await?;
    Ok(Some(start..end.min(range.end)))
}
