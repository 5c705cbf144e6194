//! The end of names, and of inodes.

use vdfs_proto::meta::{Rmdir, Unlink};
use vdfs_proto::{Attr, FileName, Ino, Status, Timestamp};

use super::Facts;
use crate::core::record::Change;
use crate::core::state::{Applied, State};

impl State {
    pub(super) fn plan_unlink(&self, unlink: Unlink, facts: &Facts<'_>) -> Result<Change, Status> {
        let Unlink { parent, name } = unlink;
        let ino = self.lookup(parent, &name)?;
        if self.inode(ino)?.directory().is_some() {
            return Err(Status::IsDirectory);
        }
        let keep = (facts.is_pinned)(ino);
        Ok(Change::Unlink { parent, name, keep })
    }

    pub(super) fn plan_rmdir(&self, rmdir: Rmdir) -> Result<Change, Status> {
        let Rmdir {
            parent,
            name,
            found,
        } = rmdir;
        let ino = self.lookup(parent, &name)?;
        check_found(Some(ino), found)?;
        if !self.directory(ino)?.is_empty() {
            return Err(Status::NotEmpty);
        }
        Ok(Change::Rmdir { parent, name })
    }

    pub(super) fn apply_unlink(
        &mut self,
        at: Timestamp,
        parent: Ino,
        name: &FileName,
        keep: bool,
        applied: &mut Applied,
    ) {
        let ino = self.remove_name(at, parent, name);
        self.drop_link(at, ino, keep, applied);
    }

    pub(super) fn apply_rmdir(
        &mut self,
        at: Timestamp,
        parent: Ino,
        name: &FileName,
        applied: &mut Applied,
    ) {
        let ino = self.remove_name(at, parent, name);
        self.remove_directory(at, parent, ino, applied);
    }

    /// The end of an empty directory whose name is gone.
    pub(super) fn remove_directory(
        &mut self,
        at: Timestamp,
        parent: Ino,
        ino: Ino,
        applied: &mut Applied,
    ) {
        self.count_subdirectory(parent, -1);
        let gone = self.vacate(ino);
        let directory = gone.directory().expect("rmdir is for directories");
        assert!(directory.is_empty(), "{ino} was planned to be empty");
        applied.departed.push(Attr {
            nlink: 0,
            ctime: at,
            ..gone.attr(ino)
        });
    }

    /// One name less; the last one ends the inode, unless it is to be kept.
    pub(super) fn drop_link(&mut self, at: Timestamp, ino: Ino, keep: bool, applied: &mut Applied) {
        let inode = self.inodes.get_mut(ino);
        inode.ctime = at.into();
        inode.nlink = inode.nlink.checked_sub(1).expect("a name is a link");
        if inode.nlink > 0 {
            return;
        }
        match keep {
            true => drop(self.orphans.insert(ino, ())),
            false => self.end_inode(ino, applied),
        }
    }

    pub(crate) fn apply_dropped(&mut self, inos: &[Ino], applied: &mut Applied) {
        for ino in inos {
            let orphan = self.orphans.remove(*ino);
            assert!(orphan.is_some(), "{ino} is an orphan");
            self.end_inode(*ino, applied);
        }
    }

    fn end_inode(&mut self, ino: Ino, applied: &mut Applied) {
        assert!(!self.trims.contains(ino), "{ino} is being trimmed");
        let gone = self.vacate(ino);
        assert_eq!(gone.nlink, 0, "{ino} has names");
        applied.departed.push(gone.attr(ino));
        self.locks.end_inode(ino);
        if let Some(file) = gone.file() {
            self.queue_reap(file.data, applied);
        }
    }
}

/// A kernel takes the directory that it has found for dead when this succeeds, so nothing else may be
/// there: not another directory, not a file, and not nothing either.
pub(super) fn check_found(present: Option<Ino>, found: Option<Ino>) -> Result<(), Status> {
    match found.is_some() && found != present {
        true => Err(Status::StaleInode),
        false => Ok(()),
    }
}
