//! Sizes, data ids, handles.

use vdfs_proto::meta::{
    Access, Answer, AppendToken, Commit, Committed, Mutated, Opened, Query, Truncate, Truncated,
};
use vdfs_proto::{DataId, HandleId, Ino, Layout, SessionId, Status};

use super::names::cut;
use super::{Body, File, Model};
use crate::core::tests::world::CHUNK_BYTES;

/// Chunk indexes are 32 bits.
pub(in super::super) const FILE_BYTES_MAX: u64 = CHUNK_BYTES << 32;

impl File {
    pub(super) fn new(data: DataId, version: u64, copies: u16) -> Self {
        File {
            size: 0,
            data,
            truncations: 0,
            version,
            holes: false,
            tail_unknown: false,
            copies,
        }
    }

    /// Where the bytes lie is not the model's matter; its groups are numbers of copies.
    pub(super) fn layout(&self) -> Layout {
        Layout {
            data: self.data,
            truncations: self.truncations,
            group: self.copies,
            seed: 0,
            size: self.size,
            holes: self.holes,
        }
    }
}

impl Model {
    pub(in super::super) fn file(&self, ino: Ino) -> Result<&File, Status> {
        match &self.node(ino)?.body {
            Body::File(file) => Ok(file),
            Body::Directory { .. } => Err(Status::IsDirectory),
            Body::Symlink(_) | Body::Special(..) => Err(Status::Invalid),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> &mut File {
        match &mut self.node_mut(ino).body {
            Body::File(file) => file,
            _ => unreachable!("looked up before"),
        }
    }

    fn modify(&mut self, ino: Ino, kill_privileges: bool) {
        let at = self.at();
        let node = self.node_mut(ino);
        (node.mtime, node.ctime) = (at, at);
        self.drop_capabilities(ino);
        if kill_privileges {
            self.kill_privileges(ino);
        }
    }

    pub(super) fn truncate(&mut self, truncate: &Truncate) -> Result<Mutated, Status> {
        let Truncate {
            ino,
            size,
            kill_privileges,
        } = *truncate;
        self.file(ino)?;
        if size > FILE_BYTES_MAX {
            return Err(Status::FileTooLarge);
        }
        self.renew_lost(ino);
        if size == 0 {
            self.renew(ino);
        } else {
            let file = self.file_mut(ino);
            file.holes |= size > file.size;
            file.truncations += u32::from(size < file.size);
            file.size = size;
            file.version += 1;
            file.tail_unknown = false;
        }
        self.modify(ino, kill_privileges);
        Ok(Mutated::Truncate(Truncated {
            attr: self.attr(ino)?,
            layout: self.file(ino)?.layout(),
        }))
    }

    /// Other bytes, none so far.
    fn renew(&mut self, ino: Ino) {
        let data = self.new_data();
        let file = self.file_mut(ino);
        *file = File::new(data, file.version + 1, file.copies);
    }

    /// An empty file has lost nothing with its store, but it needs another data id.
    fn renew_lost(&mut self, ino: Ino) {
        let file = self.file(ino).expect("looked up before");
        if file.size == 0 && file.data.0 < self.lost_below && !self.is_open(ino) {
            self.renew(ino);
        }
    }

    pub(super) fn commit(&mut self, commit: &Commit) -> Result<Committed, Status> {
        let file = self.file(commit.ino)?;
        if commit.end > FILE_BYTES_MAX {
            return Err(Status::FileTooLarge);
        }
        if (commit.data, commit.truncations) != (file.data, file.truncations) {
            return Err(Status::StaleLayout);
        }
        let file = self.file_mut(commit.ino);
        let data_version_before = file.version;
        file.size = file.size.max(commit.end);
        file.holes |= commit.holes;
        file.version += 1;
        self.modify(commit.ino, commit.kill_privileges);
        self.node_mut(commit.ino).mtime = cut(commit.mtime);
        Ok(Committed {
            attr: self.attr(commit.ino)?,
            data_version_before,
        })
    }

    /// A gap, or room behind the end: what a dead writer may have left there is cut first.
    pub(super) fn extend(&mut self, commit: &Commit) -> Result<Mutated, Status> {
        let file = self.file(commit.ino)?;
        let (grows, reaches) = (commit.end > file.size, commit.end >= file.size);
        let is_stale = (commit.data, commit.truncations) != (file.data, file.truncations);
        if reaches && !is_stale {
            self.file_mut(commit.ino).tail_unknown = false;
        }
        let commit = Commit {
            holes: grows,
            ..commit.clone()
        };
        self.commit(&commit).map(Mutated::Extend)
    }

    pub(in super::super) fn is_open(&self, ino: Ino) -> bool {
        let mut handles = self.sessions.values().flat_map(|s| s.handles.values());
        handles.any(|(open, _)| *open == ino)
    }

    fn has_writer(&self, ino: Ino) -> bool {
        let mut handles = self.sessions.values().flat_map(|s| s.handles.values());
        handles.any(|(open, access)| *open == ino && access.write)
    }

    /// A handle stands for one inode as long as it is open.
    pub(super) fn check_handle(
        &self,
        by: SessionId,
        handle: HandleId,
        ino: Option<Ino>,
    ) -> Result<(), Status> {
        match self.sessions[&by].handles.get(&handle) {
            Some((open, _)) if Some(*open) != ino => Err(Status::BadHandle),
            Some(_) | None => Ok(()),
        }
    }

    /// The first writer has an unknown tail cut.
    pub(super) fn open_checked(
        &mut self,
        by: SessionId,
        ino: Ino,
        handle: HandleId,
        access: Access,
    ) {
        self.renew_lost(ino);
        if access.write && !self.has_writer(ino) {
            self.file_mut(ino).tail_unknown = false;
        }
        let session = self.sessions.get_mut(&by).expect("asked by a live session");
        session.handles.insert(handle, (ino, access));
    }

    pub(super) fn ask_of_files(&mut self, by: SessionId, query: &Query) -> Result<Answer, Status> {
        match query {
            Query::Open(open) => {
                self.file(open.ino)?;
                self.check_handle(by, open.handle, Some(open.ino))?;
                self.open_checked(by, open.ino, open.handle, open.access);
                Ok(Answer::Open(Opened {
                    attr: self.attr(open.ino)?,
                    layout: self.file(open.ino)?.layout(),
                    is_shared: false,
                }))
            }
            Query::Release(release) => {
                self.release(by, release.handle, release.tail_unknown);
                Ok(Answer::Release(()))
            }
            Query::GetLayout(get) => Ok(Answer::GetLayout(self.file(get.ino)?.layout())),
            Query::AcquireAppend(get) => {
                let layout = self.file(get.ino)?.layout();
                self.check_handle(by, get.handle, Some(get.ino))?;
                let mut handles = self.sessions[&by].handles.values();
                match handles.any(|(open, _)| *open == get.ino) {
                    true => Ok(Answer::AcquireAppend(AppendToken { layout })),
                    false => Err(Status::BadHandle),
                }
            }
            Query::ReturnAppend(_) => Ok(Answer::ReturnAppend(())),
            other => unreachable!("{other:?} is not asked"),
        }
    }

    fn release(&mut self, by: SessionId, handle: HandleId, tail_unknown: bool) {
        let session = self.sessions.get_mut(&by).expect("asked by a live session");
        let Some((ino, _)) = session.handles.remove(&handle) else {
            return;
        };
        if tail_unknown {
            self.mark_tail(ino);
        }
        self.collect();
    }

    pub(super) fn mark_tail(&mut self, ino: Ino) {
        self.file_mut(ino).tail_unknown = true;
    }
}
