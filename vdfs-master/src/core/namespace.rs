//! Names: create, link, unlink, rmdir, rename, and attributes.
//!
//! Each operation is a `plan_`, which checks a request against the state and decides, and its part
//! of `apply_to_names`, which cannot fail. Permissions and sticky bits are the kernel's.

mod attributes;
mod create;
mod remove;
mod rename;

use vdfs_proto::limits::LINKS_MAX;
use vdfs_proto::meta::{Link, Mutated, Mutation};
use vdfs_proto::{Attr, Copies, DataId, FileName, Ino, SessionId, Status, Timestamp};

use super::inode::NewData;
use super::record::Change;
use super::state::{Applied, State};

/// What planning needs of what is not logged.
pub(crate) struct Facts<'a> {
    /// Whose mutation it is.
    pub(crate) session: SessionId,
    /// Somebody has the inode open, or may have, or works on it.
    pub(crate) is_pinned: &'a dyn Fn(Ino) -> bool,
    /// A replaced file may stay for a moment.
    pub(crate) may_linger: &'a dyn Fn(Ino) -> bool,
    /// Where the next data id should lie, of which there shall be so many copies.
    pub(crate) place: &'a dyn Fn(Option<Copies>, DataId) -> Result<NewData, Status>,
    pub(crate) at: Timestamp,
    /// `NoSpace` if there is no RAM for anything new.
    pub(crate) growth: Result<(), Status>,
}

impl State {
    /// Decides a mutation that needs nobody else's consent; truncations do.
    pub(crate) fn plan(&self, mutation: Mutation, facts: &Facts<'_>) -> Result<Change, Status> {
        match mutation {
            Mutation::Create(create) => self.plan_create(create, facts),
            Mutation::Link(link) => self.plan_link(link, facts),
            Mutation::Unlink(unlink) => self.plan_unlink(unlink, facts),
            Mutation::Rmdir(rmdir) => self.plan_rmdir(rmdir),
            Mutation::Rename(rename) => self.plan_rename(rename, facts),
            Mutation::SetAttr(set) => self.plan_set_attr(&set, facts.at),
            Mutation::Truncate(truncate) => self.plan_truncate(&truncate, facts),
            Mutation::Commit(commit) => self.plan_commit(commit),
            Mutation::Extend(extend) => self.plan_extend(extend.commit),
            Mutation::SetXattr(set) => self.plan_set_xattr(set, facts),
            Mutation::RemoveXattr(remove) => self.plan_remove_xattr(remove),
            Mutation::Lock(lock) => self.plan_lock(facts.session, &lock),
            Mutation::Unlock(unlock) => self.plan_unlock(facts.session, &unlock),
            Mutation::SetAcl(set) => self.plan_set_acl(set, facts),
            Mutation::TakeOver(take) => self.plan_take_over(&take),
        }
    }

    pub(crate) fn apply_to_names(
        &mut self,
        at: Timestamp,
        change: &Change,
        applied: &mut Applied,
    ) -> Mutated {
        match change {
            Change::Create { .. } => self.apply_create(at, change),
            Change::Existing { ino } => self.created(*ino, false),
            Change::Link { ino, parent, name } => {
                Mutated::Link(self.apply_link(at, *ino, *parent, name))
            }
            Change::Unlink { parent, name, keep } => {
                self.apply_unlink(at, *parent, name, *keep, applied);
                Mutated::Unlink(())
            }
            Change::Rmdir { parent, name } => {
                self.apply_rmdir(at, *parent, name, applied);
                Mutated::Rmdir(())
            }
            Change::Rename { .. } => {
                self.apply_rename(at, change, applied);
                Mutated::Rename(())
            }
            Change::Exchange { .. } => {
                self.apply_exchange(at, change);
                Mutated::Rename(())
            }
            Change::Nothing => Mutated::Rename(()),
            Change::SetAttr { .. } => Mutated::SetAttr(self.apply_set_attr(at, change)),
            Change::Renew { .. }
            | Change::Resize { .. }
            | Change::Commit(_)
            | Change::Extend(_)
            | Change::SetXattr { .. }
            | Change::RemoveXattr { .. }
            | Change::Lock { .. }
            | Change::Unlock { .. }
            | Change::SetAcl { .. }
            | Change::TakeOver { .. } => unreachable!("not a change of names"),
        }
    }

    pub(crate) fn find(&self, parent: Ino, name: &FileName) -> Result<Option<Ino>, Status> {
        Ok(self.directory(parent)?.get(self.hash(name), name))
    }

    pub(crate) fn lookup(&self, parent: Ino, name: &FileName) -> Result<Ino, Status> {
        self.find(parent, name)?.ok_or(Status::NotFound)
    }

    pub(crate) fn attr(&self, ino: Ino) -> Result<Attr, Status> {
        Ok(self.inode(ino)?.attr(ino))
    }

    fn plan_link(&self, link: Link, facts: &Facts<'_>) -> Result<Change, Status> {
        let Link { ino, parent, name } = link;
        let inode = self.inode(ino)?;
        if self.find(parent, &name)?.is_some() {
            return Err(Status::Exists);
        }
        if inode.directory().is_some() {
            return Err(Status::NotPermitted);
        }
        if inode.nlink == 0 {
            return Err(Status::NotFound);
        }
        if u32::from(inode.nlink) >= LINKS_MAX {
            return Err(Status::TooManyLinks);
        }
        facts.growth?;
        self.directory(parent)?.check_room(self.hash(&name))?;
        Ok(Change::Link { ino, parent, name })
    }

    fn apply_link(&mut self, at: Timestamp, ino: Ino, parent: Ino, name: &FileName) -> Attr {
        self.add_name(at, parent, name, ino);
        let inode = self.inodes.get_mut(ino);
        inode.nlink += 1;
        inode.ctime = at.into();
        inode.attr(ino)
    }

    fn add_name(&mut self, at: Timestamp, parent: Ino, name: &FileName, ino: Ino) {
        let hash = self.hash(name);
        let inode = self.inodes.get_mut(parent);
        inode.mtime = at.into();
        inode.ctime = at.into();
        self.change_names(parent, |names| names.insert(hash, name.clone(), ino));
    }

    fn remove_name(&mut self, at: Timestamp, parent: Ino, name: &FileName) -> Ino {
        let hash = self.hash(name);
        let inode = self.inodes.get_mut(parent);
        inode.mtime = at.into();
        inode.ctime = at.into();
        self.change_names(parent, |names| names.remove(hash, name))
    }

    fn count_subdirectory(&mut self, parent: Ino, by: i32) {
        let directory = self.inodes.get_mut(parent).directory_mut();
        let count = &mut directory.expect("a parent is a directory").subdirectories;
        *count = count
            .checked_add_signed(by)
            .expect("subdirectories are counted");
    }
}
