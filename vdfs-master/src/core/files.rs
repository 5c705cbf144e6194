//! Bytes of regular files, as the namespace knows them: data ids, sizes, commits, truncations.
//!
//! Invariants: a size grows only by a commit that names the present data id and truncation count,
//! or by a truncation; bytes move to another data id only as a whole, when nobody else holds the layout,
//! and only if nothing was committed since they were copied; a truncation to nothing gives a new data
//! id, and so does the first open of an empty file after the loss of a store; no chunk at or above
//! `FileBody::chunks` has committed bytes.

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::meta::{Commit, Committed, Mutated, TakeOver, Truncate, Truncated};
use vdfs_proto::{ChunkSize, Ino, OpId, Status, Timestamp};

use super::Core;
use super::inode::{FileBody, Inode, NewData};
use super::namespace::Facts;
use super::record::{Change, Record};
use super::state::{Applied, PendingTrim, State};

impl State {
    pub(crate) fn file(&self, ino: Ino) -> Result<&FileBody, Status> {
        let inode = self.inode(ino)?;
        match inode.directory() {
            Some(_) => Err(Status::IsDirectory),
            None => inode.file().ok_or(Status::Invalid),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> &mut FileBody {
        let inode = self.inodes.get_mut(ino);
        inode.file_mut().expect("planned for a regular file")
    }

    pub(crate) fn check_truncate(&self, truncate: &Truncate) -> Result<(), Status> {
        self.file(truncate.ino)?;
        match truncate.size <= self.config.chunk_size.file_bytes_max() {
            true => Ok(()),
            false => Err(Status::FileTooLarge),
        }
    }

    /// Decides a truncation when nobody else holds the layout.
    pub(crate) fn plan_truncate(
        &self,
        truncate: &Truncate,
        facts: &Facts<'_>,
    ) -> Result<Change, Status> {
        self.check_truncate(truncate)?;
        let Truncate {
            ino,
            size,
            kill_privileges,
        } = *truncate;
        if size == 0 {
            let copies = self.copies_of(self.file(ino)?.group);
            return Ok(Change::Renew {
                ino,
                place: (facts.place)(copies, self.numbers.data)?,
                kill_privileges,
            });
        }
        Ok(Change::Resize {
            ino,
            size,
            kill_privileges,
            trims: self.has_bytes_past(self.file(ino)?, size),
        })
    }

    /// Bytes may lie on the volumes that a file of `size` bytes must not show, now or later.
    fn has_bytes_past(&self, file: &FileBody, size: u64) -> bool {
        let committed = u64::from(file.chunks) * u64::from(self.config.chunk_size.bytes());
        file.tail_unknown || (size < file.size && size < committed)
    }

    pub(crate) fn plan_commit(&self, commit: Commit) -> Result<Change, Status> {
        self.check_commit(&commit)?;
        Ok(Change::Commit(commit))
    }

    fn check_commit(&self, commit: &Commit) -> Result<(), Status> {
        let file = self.file(commit.ino)?;
        if commit.end > self.config.chunk_size.file_bytes_max() {
            return Err(Status::FileTooLarge);
        }
        if (commit.data, commit.truncations) != (file.data, file.truncations) {
            return Err(Status::StaleLayout);
        }
        Ok(())
    }

    /// An end that the file has reached already makes no gap.
    pub(crate) fn plan_extend(&self, commit: Commit) -> Result<Change, Status> {
        let holes = commit.end > self.file(commit.ino)?.size;
        let commit = Commit { holes, ..commit };
        self.check_commit(&commit)?;
        Ok(Change::Extend(commit))
    }

    pub(crate) fn take_data_id(&mut self, place: NewData) {
        assert_eq!(place.data, self.numbers.data, "data ids are taken in order");
        self.numbers.data.0 += 1;
        self.use_group(place.group);
    }

    /// An empty file has lost nothing with its chains, but under its data id a new chunk would be
    /// taken for a lost one.
    fn is_on_lost_chains(&self, file: &FileBody) -> bool {
        let chains = (0..CHAINS_PER_GROUP).map(|index| file.layout().chain(index));
        chains
            .filter_map(|chain| self.table.chain(chain))
            .any(|chain| file.data < chain.lost_below)
    }

    pub(crate) fn apply_renewed(&mut self, ino: Ino, place: NewData, applied: &mut Applied) {
        self.take_data_id(place);
        let old = *self.file_mut(ino);
        assert_eq!((old.size, old.chunks), (0, 0), "{ino} is empty");
        *self.file_mut(ino) = FileBody::new(place, old.version + 1);
        self.queue_reap(old.data, applied);
    }

    pub(crate) fn apply_renew(
        &mut self,
        at: Timestamp,
        change: &Change,
        applied: &mut Applied,
    ) -> Mutated {
        let Change::Renew {
            ino,
            place,
            kill_privileges,
        } = change
        else {
            unreachable!("asked for a truncation to nothing");
        };
        self.take_data_id(*place);
        let old = *self.file_mut(*ino);
        *self.file_mut(*ino) = FileBody::new(*place, old.version + 1);
        self.drop_capabilities(*ino);
        self.inodes.get_mut(*ino).modify(at, at, *kill_privileges);
        self.queue_reap(old.data, applied);
        self.truncated(*ino)
    }

    /// `None` if chunks are to be cut before the reply.
    pub(crate) fn apply_resize(
        &mut self,
        op: OpId,
        at: Timestamp,
        change: &Change,
    ) -> Option<Mutated> {
        let Change::Resize {
            ino,
            size,
            kill_privileges,
            trims,
        } = change
        else {
            unreachable!("asked for a truncation");
        };
        let kept = self.set_size(*ino, *size);
        self.drop_capabilities(*ino);
        let inode = self.inodes.get_mut(*ino);
        inode.modify(at, at, *kill_privileges);
        if !trims {
            return Some(self.truncated(*ino));
        }
        let trim = PendingTrim {
            op: Some(op),
            size: kept,
        };
        self.begin_trim(*ino, trim);
        None
    }

    /// Gives the number of bytes that stay.
    fn set_size(&mut self, ino: Ino, size: u64) -> u64 {
        let file = self.file_mut(ino);
        let before = std::mem::replace(&mut file.size, size);
        file.version += 1;
        if size > before {
            file.holes = true;
        }
        if size < before {
            file.truncations += 1;
        }
        before.min(size)
    }

    fn begin_trim(&mut self, ino: Ino, trim: PendingTrim) {
        let before = self.trims.insert(ino, trim);
        assert!(before.is_none(), "{ino} is being trimmed already");
    }

    pub(crate) fn apply_tail_trim(&mut self, ino: Ino) {
        let size = self.file_mut(ino).size;
        self.begin_trim(ino, PendingTrim { op: None, size });
    }

    pub(crate) fn apply_trimmed(&mut self, ino: Ino, applied: &mut Applied) {
        let trim = self.trims.remove(ino).expect("a trim was pending");
        let chunks = chunks_of(self.config.chunk_size, trim.size);
        let file = self.file_mut(ino);
        file.chunks = file.chunks.min(chunks);
        file.tail_unknown = false;
        if let Some(op) = trim.op {
            let truncated = self.truncated(ino);
            self.answer(op, Ok(truncated), applied);
        }
    }

    pub(crate) fn mark_tail_unknown(&mut self, ino: Ino) {
        let Ok(inode) = self.inode(ino) else {
            return;
        };
        if inode.file().is_some() {
            self.file_mut(ino).tail_unknown = true;
        }
    }

    pub(crate) fn apply_commit(&mut self, at: Timestamp, commit: &Commit) -> Committed {
        let chunks = chunks_of(self.config.chunk_size, commit.end);
        let file = self.file_mut(commit.ino);
        let data_version_before = file.version;
        file.size = file.size.max(commit.end);
        file.chunks = file.chunks.max(chunks);
        file.holes |= commit.holes;
        file.version += 1;
        self.drop_capabilities(commit.ino);
        let inode = self.inodes.get_mut(commit.ino);
        inode.modify(commit.mtime, at, commit.kill_privileges);
        Committed {
            attr: inode.attr(commit.ino),
            data_version_before,
        }
    }

    /// Decides it when nobody else holds the layout of the file: all that was written is committed.
    /// What a session that has ended may have written without that leaves the tail unknown.
    pub(crate) fn plan_take_over(&self, take: &TakeOver) -> Result<Change, Status> {
        let TakeOver { ino, from, .. } = *take;
        let (file, copy) = (self.file(ino)?, self.file(from)?);
        let then = (take.data, take.truncations, take.version);
        if then != (file.data, file.truncations, file.version) || file.tail_unknown {
            return Err(Status::StaleLayout);
        }
        let is_whole = copy.size == file.size && !copy.tail_unknown && !self.trims.contains(from);
        let is_as_sure = file.holes || !copy.holes;
        let is_unnamed = self.inode(from)?.nlink == 0 && ino != from;
        // Clients take a layout with a smaller data id for an older one.
        let is_newer = copy.data > file.data;
        match is_whole && is_as_sure && is_unnamed && is_newer {
            true => Ok(Change::TakeOver { ino, from }),
            false => Err(Status::Invalid),
        }
    }

    pub(crate) fn apply_take_over(&mut self, ino: Ino, from: Ino) {
        let (file, copy) = (*self.file_mut(ino), *self.file_mut(from));
        assert_eq!(file.size, copy.size, "{from} is a copy of {ino}");
        *self.file_mut(ino) = FileBody {
            version: file.version,
            ..copy
        };
        *self.file_mut(from) = FileBody {
            version: copy.version,
            ..file
        };
    }

    fn truncated(&self, ino: Ino) -> Mutated {
        let inode: &Inode = self.inode(ino).expect("truncated just now");
        let file = inode.file().expect("only files are truncated");
        Mutated::Truncate(Truncated {
            attr: inode.attr(ino),
            layout: file.layout(),
        })
    }
}

impl Core {
    /// The file needs another data id before anything is written to it, and nobody who is known to
    /// have it open would miss that.
    pub(crate) fn is_empty_on_lost_chains(&self, ino: Ino) -> bool {
        let Ok(file) = self.state.file(ino) else {
            return false;
        };
        let is_empty = file.size == 0 && file.chunks == 0;
        is_empty && !self.live.opens.is_open(ino) && self.state.is_on_lost_chains(file)
    }

    /// Gives an empty file another data id, unless the log has no room.
    pub(crate) fn renew_empty(&mut self, ino: Ino) {
        let group = self.state.file(ino).map(|file| file.group);
        let copies = group.ok().and_then(|group| self.state.copies_of(group));
        if self.live.log_full.is_none()
            && let Ok(place) = self.place(copies, self.state.numbers.data)
        {
            self.log(Record::Renewed { ino, place });
        }
    }
}

/// Chunks that `size` bytes fill.
pub(crate) fn chunks_of(chunk_size: ChunkSize, size: u64) -> u32 {
    let chunks = size.div_ceil(u64::from(chunk_size.bytes()));
    u32::try_from(chunks).unwrap_or(u32::MAX)
}
