//! rename(2).

use vdfs_proto::meta::{Rename, RenameMode};
use vdfs_proto::{FileName, Ino, Status, Timestamp};

use super::Facts;
use super::remove::check_found;
use crate::core::record::Change;
use crate::core::state::{Applied, State};

impl State {
    pub(super) fn plan_rename(&self, rename: Rename, facts: &Facts<'_>) -> Result<Change, Status> {
        let ino = self.lookup(rename.parent, &rename.name)?;
        let replaced = self.find(rename.new_parent, &rename.new_name)?;
        match (rename.mode, replaced) {
            (RenameMode::NoReplace, Some(_)) => return Err(Status::Exists),
            (RenameMode::Exchange, _) => {
                let other = replaced.ok_or(Status::NotFound)?;
                return self.plan_exchange(rename, ino, other);
            }
            (RenameMode::Replace | RenameMode::NoReplace, _) => {
                check_found(replaced, rename.found)?;
            }
        }
        if replaced == Some(ino) {
            return Ok(Change::Nothing);
        }
        if self.directory(ino).is_ok() && self.is_within(rename.new_parent, ino) {
            return Err(Status::Invalid);
        }
        match replaced {
            Some(replaced) => self.check_replace(ino, replaced)?,
            None => self
                .directory(rename.new_parent)?
                .check_room(self.hash(&rename.new_name))?,
        }
        if rename.new_name.as_bytes().len() > rename.name.as_bytes().len() {
            facts.growth?;
        }
        let keeps = |ino| (facts.is_pinned)(ino) || (facts.may_linger)(ino);
        Ok(Change::Rename {
            parent: rename.parent,
            name: rename.name,
            new_parent: rename.new_parent,
            new_name: rename.new_name,
            keep: replaced.is_some_and(keeps),
        })
    }

    fn plan_exchange(&self, rename: Rename, ino: Ino, other: Ino) -> Result<Change, Status> {
        let Rename {
            parent,
            name,
            new_parent,
            new_name,
            mode: _,
            // Nothing is removed.
            found: _,
        } = rename;
        if ino == other {
            return Ok(Change::Nothing);
        }
        if self.is_within(new_parent, ino) || self.is_within(parent, other) {
            return Err(Status::Invalid);
        }
        Ok(Change::Exchange {
            parent,
            name,
            new_parent,
            new_name,
        })
    }

    fn check_replace(&self, ino: Ino, replaced: Ino) -> Result<(), Status> {
        let is_directory = self.inode(ino)?.directory().is_some();
        match (is_directory, self.inode(replaced)?.directory()) {
            (true, None) => Err(Status::NotDirectory),
            (false, Some(_)) => Err(Status::IsDirectory),
            (true, Some(target)) if !target.is_empty() => Err(Status::NotEmpty),
            _ => Ok(()),
        }
    }

    /// `directory` is `ancestor` or lies below it.
    fn is_within(&self, directory: Ino, ancestor: Ino) -> bool {
        let mut at = directory;
        while at != ancestor {
            let parent = self.directory(at).expect("parents are directories").parent;
            if parent == at {
                return false;
            }
            at = parent;
        }
        true
    }

    pub(super) fn apply_rename(&mut self, at: Timestamp, change: &Change, applied: &mut Applied) {
        let Change::Rename {
            parent,
            name,
            new_parent,
            new_name,
            keep,
        } = change
        else {
            unreachable!("asked for a rename");
        };
        let replaced = self
            .find(*new_parent, new_name)
            .expect("planned for a directory");
        let ino = self.remove_name(at, *parent, name);
        match replaced {
            Some(replaced) => {
                self.replace_name(at, *new_parent, new_name, ino);
                self.end_replaced(at, *new_parent, replaced, *keep, applied);
            }
            None => self.add_name(at, *new_parent, new_name, ino),
        }
        self.move_inode(at, ino, *parent, *new_parent);
    }

    pub(super) fn apply_exchange(&mut self, at: Timestamp, change: &Change) {
        let Change::Exchange {
            parent,
            name,
            new_parent,
            new_name,
        } = change
        else {
            unreachable!("asked for an exchange");
        };
        let ino = self.lookup(*parent, name).expect("planned for a name");
        let other = self.replace_name(at, *new_parent, new_name, ino);
        self.replace_name(at, *parent, name, other);
        self.move_inode(at, ino, *parent, *new_parent);
        self.move_inode(at, other, *new_parent, *parent);
    }

    /// Gives what the name stood for.
    fn replace_name(&mut self, at: Timestamp, parent: Ino, name: &FileName, ino: Ino) -> Ino {
        let hash = self.hash(name);
        let inode = self.inodes.get_mut(parent);
        inode.mtime = at.into();
        inode.ctime = at.into();
        let directory = inode.directory_mut().expect("a parent is a directory");
        directory.replace(hash, name, ino)
    }

    fn end_replaced(
        &mut self,
        at: Timestamp,
        parent: Ino,
        replaced: Ino,
        keep: bool,
        applied: &mut Applied,
    ) {
        let inode = self.inode(replaced).expect("a name has an inode");
        match inode.directory() {
            Some(_) => self.remove_directory(at, parent, replaced, applied),
            None => {
                self.drop_link(at, replaced, keep, applied);
                applied.replaced = self.orphans.contains(replaced).then_some(replaced);
            }
        }
    }

    fn move_inode(&mut self, at: Timestamp, ino: Ino, parent: Ino, new_parent: Ino) {
        let inode = self.inodes.get_mut(ino);
        inode.ctime = at.into();
        if parent == new_parent {
            return;
        }
        let Some(directory) = inode.directory_mut() else {
            return;
        };
        directory.parent = new_parent;
        self.count_subdirectory(parent, -1);
        self.count_subdirectory(new_parent, 1);
    }
}
