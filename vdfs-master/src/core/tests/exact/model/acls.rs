//! Access control lists, as maps (acl(5)).

use std::collections::BTreeMap;

use vdfs_proto::meta::{Create, Mutated, NewKind, SetAcl};
use vdfs_proto::{AclKind, Ino, Status};

use super::names::SETGID;
use super::{Body, Model};

/// What an entry is about, and whom it names: as its tag and its id are written in the attribute.
pub(in super::super) type Entry = (u16, u32);
/// What each of them may. The order is that of the attribute.
pub(in super::super) type Acl = BTreeMap<Entry, u16>;

const NOBODY: u32 = u32::MAX;
pub(in super::super) const OWNER: Entry = (0x01, NOBODY);
pub(in super::super) const USER_TAG: u16 = 0x02;
pub(in super::super) const GROUP: Entry = (0x04, NOBODY);
pub(in super::super) const GROUP_TAG: u16 = 0x08;
pub(in super::super) const MASK: Entry = (0x10, NOBODY);
pub(in super::super) const OTHERS: Entry = (0x20, NOBODY);

const VERSION: [u8; 4] = [2, 0, 0, 0];

pub(in super::super) fn to_bytes(acl: &Acl) -> Vec<u8> {
    let mut bytes = VERSION.to_vec();
    for ((tag, id), perms) in acl {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perms.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8]) -> Acl {
    let (entries, _) = bytes[VERSION.len()..].as_chunks();
    let entry = |[t0, t1, p0, p1, id @ ..]: &[u8; 8]| {
        let tag = u16::from_le_bytes([*t0, *t1]);
        let perms = u16::from_le_bytes([*p0, *p1]);
        ((tag, u32::from_le_bytes(*id)), perms)
    };
    entries.iter().map(entry).collect()
}

/// The entries that the triples of a mode show, each with its place there. The group's triple is
/// the mask's, if there is one.
fn shown(acl: &Acl) -> [(Entry, u32); 3] {
    let group = if acl.contains_key(&MASK) { MASK } else { GROUP };
    [(OWNER, 6), (group, 3), (OTHERS, 0)]
}

fn with_triples_of(mode: u16, acl: &Acl) -> u16 {
    let triples = shown(acl).map(|(entry, place)| acl[&entry] << place);
    mode & !0o777 | triples.into_iter().sum::<u16>()
}

/// It says more than a mode can.
fn is_extended(acl: &Acl) -> bool {
    acl.len() > 3
}

impl Model {
    fn acl(&self, ino: Ino, kind: AclKind) -> Option<Acl> {
        let bytes = self.nodes[&ino].xattrs.get(&kind.name());
        bytes.map(|bytes| from_bytes(bytes))
    }

    fn put_acl(&mut self, ino: Ino, kind: AclKind, acl: Option<&Acl>) -> Result<(), Status> {
        match acl {
            Some(acl) => self.put_xattr(ino, kind.name(), to_bytes(acl)),
            None => {
                self.node_mut(ino).xattrs.remove(&kind.name());
                Ok(())
            }
        }
    }

    pub(super) fn set_acl(&mut self, set: &SetAcl) -> Result<Mutated, Status> {
        let acl = set.acl.as_ref().map(|acl| from_bytes(&acl.to_bytes()));
        match (&self.node(set.ino)?.body, set.kind) {
            (Body::Symlink(_), _) => return Err(Status::NotSupported),
            (Body::Directory { .. }, _) | (_, AclKind::Access) => {}
            (_, AclKind::Default) => {
                // There is none to be removed.
                let attr = self.attr(set.ino)?;
                return acl.map_or(Ok(Mutated::SetAcl(attr)), |_| Err(Status::AccessDenied));
            }
        }
        let is_kept = |acl: &&Acl| set.kind == AclKind::Default || is_extended(acl);
        self.put_acl(set.ino, set.kind, acl.as_ref().filter(is_kept))?;
        if let (AclKind::Access, Some(acl)) = (set.kind, &acl) {
            let mode = &mut self.node_mut(set.ino).mode;
            let fallen = if set.kill_setgid { SETGID } else { 0 };
            *mode = with_triples_of(*mode, acl) & !fallen;
        }
        self.touch(set.ino);
        Ok(Mutated::SetAcl(self.attr(set.ino)?))
    }

    pub(super) fn has_acl(&self, ino: Ino) -> bool {
        self.acl(ino, AclKind::Access).is_some()
    }

    pub(super) fn chmod(&mut self, ino: Ino, mode: u16) {
        self.node_mut(ino).mode = mode & 0o7777;
        if let Some(mut acl) = self.acl(ino, AclKind::Access) {
            for (entry, place) in shown(&acl) {
                acl.insert(entry, mode >> place & 7);
            }
            let put = self.put_acl(ino, AclKind::Access, Some(&acl));
            put.expect("as large as before");
        }
    }

    /// The mode of what is made, and the ACLs that it inherits: "object creation and default ACLs"
    /// in acl(5).
    pub(super) fn inherit_acls(&self, create: &Create) -> (u16, Vec<(AclKind, Acl)>) {
        let mode = create.mode & 0o7777;
        if matches!(create.kind, NewKind::Symlink(_)) {
            return (mode, Vec::new());
        }
        let Some(default) = self.acl(create.parent, AclKind::Default) else {
            return (mode & !create.umask, Vec::new());
        };
        let mut access = default.clone();
        for (entry, place) in shown(&default) {
            access.insert(entry, default[&entry] & mode >> place);
        }
        let mode = with_triples_of(mode, &access);
        let mut inherited = Vec::new();
        if is_extended(&access) {
            inherited.push((AclKind::Access, access));
        }
        if create.kind == NewKind::Directory {
            inherited.push((AclKind::Default, default));
        }
        (mode, inherited)
    }

    pub(super) fn give_acls(&mut self, ino: Ino, acls: &[(AclKind, Acl)]) {
        for (kind, acl) in acls {
            let put = self.put_acl(ino, *kind, Some(acl));
            put.expect("it has nothing else");
        }
    }
}
