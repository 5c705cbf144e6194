//! Extended attributes (xattr(7)); ACLs are among them.

use vdfs_proto::limits::{XATTR_TOTAL_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use vdfs_proto::meta::{Mutated, RemoveXattr, SetXattr, XattrMode};
use vdfs_proto::{AclKind, Ino, Status, XattrName};

use super::Model;

impl Model {
    pub(super) fn set_xattr(&mut self, set: &SetXattr) -> Result<Mutated, Status> {
        let xattrs = &self.node(set.ino)?.xattrs;
        check_no_acl(&set.name)?;
        match (set.mode, xattrs.contains_key(&set.name)) {
            (XattrMode::Create, true) => return Err(Status::Exists),
            (XattrMode::Replace, false) => return Err(Status::NoData),
            _ => {}
        }
        if set.value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Status::TooBig);
        }
        self.put_xattr(set.ino, set.name.clone(), set.value.clone())?;
        self.touch(set.ino);
        Ok(Mutated::SetXattr(()))
    }

    pub(super) fn remove_xattr(&mut self, remove: &RemoveXattr) -> Result<Mutated, Status> {
        self.node(remove.ino)?;
        check_no_acl(&remove.name)?;
        let xattrs = &mut self.node_mut(remove.ino).xattrs;
        xattrs.remove(&remove.name).ok_or(Status::NoData)?;
        self.touch(remove.ino);
        Ok(Mutated::RemoveXattr(()))
    }

    /// `NoSpace` if they would be too large together.
    pub(super) fn put_xattr(
        &mut self,
        ino: Ino,
        name: XattrName,
        value: Vec<u8>,
    ) -> Result<(), Status> {
        let mut after = self.node(ino)?.xattrs.clone();
        after.insert(name, value);
        let bytes = after.iter().map(|(k, v)| k.as_bytes().len() + v.len());
        if bytes.sum::<usize>() > XATTR_TOTAL_BYTES_MAX {
            return Err(Status::NoSpace);
        }
        self.node_mut(ino).xattrs = after;
        Ok(())
    }

    /// capabilities(7): they end with a change of the bytes, or of the owner.
    pub(super) fn drop_capabilities(&mut self, ino: Ino) {
        let xattrs = &mut self.node_mut(ino).xattrs;
        xattrs.retain(|name, _| name.as_bytes() != b"security.capability");
    }
}

/// ACLs have an operation of their own.
fn check_no_acl(name: &XattrName) -> Result<(), Status> {
    match AclKind::of_name(name.as_bytes()) {
        Some(_) => Err(Status::NotSupported),
        None => Ok(()),
    }
}
