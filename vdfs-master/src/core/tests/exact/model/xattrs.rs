//! Extended attributes (xattr(7)); ACLs and numbers of copies are among them.

use vdfs_proto::limits::{XATTR_TOTAL_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use vdfs_proto::meta::{Mutated, RemoveXattr, SetXattr, XattrMode};
use vdfs_proto::{AclKind, Ino, Status, XattrName};

use super::Model;

const COPIES: &[u8] = b"user.vdfs.replicas";

impl Model {
    pub(super) fn set_xattr(&mut self, set: &SetXattr) -> Result<Mutated, Status> {
        let xattrs = &self.node(set.ino)?.xattrs;
        check_no_acl(&set.name)?;
        if set.name.as_bytes() == COPIES {
            let is_directory = self.is_directory(set.ino);
            if !is_directory || !matches!(&set.value[..], b"1" | b"2" | b"3") {
                return Err(Status::Invalid);
            }
        }
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

    /// What a directory asks for.
    pub(super) fn copies_asked(&self, ino: Ino) -> Option<u16> {
        let name = XattrName::new(COPIES).expect("a name");
        let value = self.nodes[&ino].xattrs.get(&name)?;
        Some(u16::from(value[0] - b'0'))
    }

    pub(super) fn inherit_copies(&mut self, parent: Ino, ino: Ino) {
        let name = XattrName::new(COPIES).expect("a name");
        let asked = self.nodes[&parent].xattrs.get(&name).cloned();
        if let Some(value) = asked.filter(|_| self.is_directory(ino)) {
            self.node_mut(ino).xattrs.insert(name, value);
        }
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
