//! Access control lists, and what else the bytes of extended attributes mean to the filesystem.
//!
//! ACLs are kept among the extended attributes, in their canonical form.
//!
//! Invariant: an inode has [`Inode::has_acl`] exactly if it keeps an access ACL, which then says more
//! than its mode and shows the same nine bits.
//!
//! Left out: whether a caller may do something. That is the kernel's, or the client's without one.
//!
//! [`Inode::has_acl`]: super::inode::Inode::has_acl

use vdfs_proto::meta::SetAcl;
use vdfs_proto::{Acl, AclKind, Attr, FileKind, Ino, Status, Timestamp, XattrName};

use super::inode::without_setgid;
use super::namespace::Facts;
use super::record::Change;
use super::state::State;

/// What lets a program do more than its caller may (capabilities(7)).
const CAPABILITIES: &[u8] = b"security.capability";

impl State {
    pub(crate) fn acl(&self, ino: Ino, kind: AclKind) -> Option<Acl> {
        let bytes = self.xattrs.get(ino)?.get(&kind.name())?;
        let acl = Acl::parse(bytes).expect("kept in its canonical form");
        Some(acl.expect("an empty one is not kept"))
    }

    pub(crate) fn plan_set_acl(&self, set: SetAcl, facts: &Facts<'_>) -> Result<Change, Status> {
        let SetAcl {
            ino,
            kind,
            acl,
            kill_setgid,
        } = set;
        match (self.inode(ino)?.kind(), kind) {
            (FileKind::Symlink, _) => return Err(Status::NotSupported),
            (FileKind::Directory, _) | (_, AclKind::Access) => {}
            (_, AclKind::Default) if acl.is_none() => {}
            (_, AclKind::Default) => return Err(Status::AccessDenied),
        }
        if let Some(acl) = acl.as_ref().filter(|acl| is_kept(kind, acl)) {
            facts.growth?;
            self.check_xattr_room(ino, &kind.name(), &acl.to_bytes())?;
        }
        Ok(Change::SetAcl {
            ino,
            kind,
            acl,
            kill_setgid,
        })
    }

    pub(crate) fn apply_set_acl(&mut self, at: Timestamp, change: &Change) -> Attr {
        let Change::SetAcl {
            ino,
            kind,
            acl,
            kill_setgid,
        } = change
        else {
            unreachable!("asked for an ACL");
        };
        let inode = self.inodes.get_mut(*ino);
        // Of what can have none, nothing is removed.
        if *kind == AclKind::Access || inode.directory().is_some() {
            inode.ctime = at.into();
        }
        if let (AclKind::Access, Some(acl)) = (kind, acl) {
            let mode = inode.mode() & !0o777 | acl.mode_bits();
            inode.set_mode(match kill_setgid {
                true => without_setgid(mode),
                false => mode,
            });
        }
        let kept = acl.as_ref().filter(|acl| is_kept(*kind, acl));
        self.store_acl(*ino, *kind, kept);
        self.attr(*ino).expect("it has an ACL now, or none")
    }

    /// Keeps an ACL in the place of the one before.
    pub(crate) fn store_acl(&mut self, ino: Ino, kind: AclKind, acl: Option<&Acl>) {
        if kind == AclKind::Access {
            self.inodes.get_mut(ino).set_has_acl(acl.is_some());
        }
        match acl {
            Some(acl) => self.store_xattr(ino, &kind.name(), &acl.to_bytes()),
            None => drop(self.take_xattr(ino, &kind.name())),
        }
    }

    /// chmod(2) changes the access ACL with the mode.
    pub(crate) fn follow_mode(&mut self, ino: Ino, mode: u16) {
        if !self.inodes.get_mut(ino).has_acl() {
            return;
        }
        let acl = self.acl(ino, AclKind::Access).expect("the inode has one");
        self.store_acl(ino, AclKind::Access, Some(&acl.with_mode(mode)));
    }

    /// A file whose bytes or owner have changed is not trusted any more.
    pub(crate) fn drop_capabilities(&mut self, ino: Ino) {
        if self.xattrs.contains(ino) {
            let name = XattrName::new(CAPABILITIES).expect("a good name");
            drop(self.take_xattr(ino, &name));
        }
    }
}

/// An access ACL that says no more than the mode is none.
fn is_kept(kind: AclKind, acl: &Acl) -> bool {
    kind == AclKind::Default || !acl.is_minimal()
}

/// `NotSupported` for the names of ACLs: what they hold is checked by [`SetAcl`] alone.
pub(crate) fn check_no_acl(name: &XattrName) -> Result<(), Status> {
    match AclKind::of_name(name.as_bytes()) {
        Some(_) => Err(Status::NotSupported),
        None => Ok(()),
    }
}
