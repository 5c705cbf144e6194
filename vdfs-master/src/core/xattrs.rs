//! Extended attributes: bytes under names. What the names mean is the kernel's matter, but for those
//! in `acls`, and the number of copies that a directory asks for (`groups`).

use vdfs_proto::limits::{XATTR_TOTAL_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use vdfs_proto::meta::{RemoveXattr, SetXattr, XattrMode};
use vdfs_proto::{Copies, FileKind, Ino, Status, Timestamp, XattrName};

use super::acls::check_no_acl;
use super::namespace::Facts;
use super::record::Change;
use super::state::{State, Xattrs};

impl State {
    pub(crate) fn xattrs_of(&self, ino: Ino) -> Result<Option<&Xattrs>, Status> {
        self.inode(ino)?;
        Ok(self.xattrs.get(ino).map(|xattrs| &**xattrs))
    }

    pub(crate) fn plan_set_xattr(
        &self,
        request: SetXattr,
        facts: &Facts<'_>,
    ) -> Result<Change, Status> {
        let SetXattr {
            ino,
            name,
            value,
            mode,
        } = request;
        let xattrs = self.xattrs_of(ino)?;
        check_no_acl(&name)?;
        if Copies::is_named(&name) {
            self.check_copies(ino, &value)?;
        }
        let present = xattrs.and_then(|xattrs| xattrs.get(&name));
        match (mode, present) {
            (XattrMode::Create, Some(_)) => return Err(Status::Exists),
            (XattrMode::Replace, None) => return Err(Status::NoData),
            _ => {}
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Status::TooBig);
        }
        if present.is_none_or(|present| present.len() < value.len()) {
            facts.growth?;
        }
        self.check_xattr_room(ino, &name, &value)?;
        Ok(Change::SetXattr { ino, name, value })
    }

    /// `Invalid` unless it is a number of copies for what is made in a directory.
    fn check_copies(&self, ino: Ino, value: &[u8]) -> Result<(), Status> {
        Copies::parse(value)?;
        match self.inode(ino)?.kind() {
            FileKind::Directory => Ok(()),
            _ => Err(Status::Invalid),
        }
    }

    /// `NoSpace` if the inode's attributes would be too large together.
    pub(crate) fn check_xattr_room(
        &self,
        ino: Ino,
        name: &XattrName,
        value: &[u8],
    ) -> Result<(), Status> {
        let others: usize = self.xattrs_of(ino)?.map_or(0, |xattrs| {
            let all = xattrs.iter().filter(|(other, _)| *other != name);
            all.map(|(name, value)| bytes_of(name, value)).sum()
        });
        match others + bytes_of(name, value) <= XATTR_TOTAL_BYTES_MAX {
            true => Ok(()),
            false => Err(Status::NoSpace),
        }
    }

    pub(crate) fn plan_remove_xattr(&self, request: RemoveXattr) -> Result<Change, Status> {
        let RemoveXattr { ino, name } = request;
        let xattrs = self.xattrs_of(ino)?;
        check_no_acl(&name)?;
        let xattrs = xattrs.ok_or(Status::NoData)?;
        if !xattrs.contains_key(&name) {
            return Err(Status::NoData);
        }
        Ok(Change::RemoveXattr { ino, name })
    }

    pub(crate) fn apply_set_xattr(
        &mut self,
        at: Timestamp,
        ino: Ino,
        name: &XattrName,
        value: &[u8],
    ) {
        self.inodes.get_mut(ino).ctime = at.into();
        self.store_xattr(ino, name, value);
    }

    pub(crate) fn apply_remove_xattr(&mut self, at: Timestamp, ino: Ino, name: &XattrName) {
        self.inodes.get_mut(ino).ctime = at.into();
        let removed = self.take_xattr(ino, name);
        assert!(removed.is_some(), "planned");
    }

    pub(crate) fn store_xattr(&mut self, ino: Ino, name: &XattrName, value: &[u8]) {
        self.change_xattrs(ino, |xattrs| xattrs.insert(name.clone(), value.to_vec()));
    }

    /// Gives what was there.
    pub(crate) fn take_xattr(&mut self, ino: Ino, name: &XattrName) -> Option<Vec<u8>> {
        if !self.xattrs.get(ino)?.contains_key(name) {
            return None;
        }
        self.change_xattrs(ino, |xattrs| xattrs.remove(name))
    }
}

fn bytes_of(name: &XattrName, value: &[u8]) -> usize {
    name.as_bytes().len() + value.len()
}
