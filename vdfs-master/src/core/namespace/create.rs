//! New inodes.

use std::sync::Arc;

use vdfs_proto::limits;
use vdfs_proto::meta::{Create, Created, Mutated, NewKind};
use vdfs_proto::{AclKind, Copies, FileKind, Ino, Status, Timestamp};

use super::Facts;
use crate::core::directory::Directory;
use crate::core::inode::{Body, FileBody, Inode, MODE_BITS, inherit_setgid};
use crate::core::record::{Change, NewAcls, NewBody};
use crate::core::state::State;

impl State {
    pub(super) fn plan_create(&self, create: Create, facts: &Facts<'_>) -> Result<Change, Status> {
        if let Some(ino) = self.find(create.parent, &create.name)? {
            return self.plan_existing(ino, &create);
        }
        if create.open.is_some() && create.kind != NewKind::Regular {
            return Err(Status::Invalid);
        }
        self.directory(create.parent)?
            .check_room(self.hash(&create.name))?;
        facts.growth?;
        if self.inodes.counters.used >= self.config.files_max {
            return Err(Status::NoSpace);
        }
        let ino = self.inodes.next_ino().ok_or(Status::NoSpace)?;
        let (mode, acls) = self.inherit_acls(&create);
        let (mode, gid) = self.inherit_group(&create, mode)?;
        Ok(Change::Create {
            parent: create.parent,
            name: create.name,
            ino,
            body: self.plan_body(create.parent, create.kind, facts)?,
            mode,
            uid: create.uid,
            gid,
            acls,
        })
    }

    /// Mode and ACLs, as a default ACL of the directory hands them down instead of the umask (acl(5)).
    /// A symlink has neither.
    fn inherit_acls(&self, create: &Create) -> (u16, NewAcls) {
        let mode = create.mode & MODE_BITS;
        if matches!(create.kind, NewKind::Symlink(_)) {
            return (mode, NewAcls::default());
        }
        let Some(default) = self.acl(create.parent, AclKind::Default) else {
            return (mode & !create.umask, NewAcls::default());
        };
        let access = default.for_new(mode);
        let mode = mode & !0o777 | access.mode_bits();
        let is_directory = create.kind == NewKind::Directory;
        let acls = NewAcls {
            access: (!access.is_minimal()).then(|| Box::new(access)),
            default: is_directory.then(|| Box::new(default)),
        };
        (mode, acls)
    }

    fn plan_existing(&self, ino: Ino, create: &Create) -> Result<Change, Status> {
        if create.exclusive || create.kind != NewKind::Regular {
            return Err(Status::Exists);
        }
        match self.inode(ino)?.kind() {
            FileKind::Regular => Ok(Change::Existing { ino }),
            FileKind::Directory => Err(Status::IsDirectory),
            _ => Err(Status::Exists),
        }
    }

    /// Mode and group, as a setgid directory hands them down (inode(7)).
    fn inherit_group(&self, create: &Create, mode: u16) -> Result<(u16, u32), Status> {
        let parent = self.inode(create.parent)?;
        if !parent.is_setgid() {
            return Ok((mode, create.gid));
        }
        match create.kind {
            NewKind::Directory => Ok((inherit_setgid(mode), parent.gid)),
            _ => Ok((mode, parent.gid)),
        }
    }

    fn plan_body(&self, parent: Ino, kind: NewKind, facts: &Facts<'_>) -> Result<NewBody, Status> {
        Ok(match kind {
            NewKind::Regular => {
                let copies = self.copies_asked(parent);
                NewBody::Regular((facts.place)(copies, self.numbers.data)?)
            }
            NewKind::Directory => NewBody::Directory,
            NewKind::Symlink(target) => NewBody::Symlink(target),
            kind => NewBody::Special(kind),
        })
    }

    pub(super) fn apply_create(&mut self, at: Timestamp, change: &Change) -> Mutated {
        let Change::Create {
            parent,
            name,
            ino,
            body,
            mode,
            uid,
            gid,
            acls,
        } = change
        else {
            unreachable!("asked for a create");
        };
        let body = self.make_body(*parent, body);
        if matches!(body, Body::Directory(_)) {
            self.count_subdirectory(*parent, 1);
        }
        let inode = Inode::new((*mode, *uid, *gid), at, body);
        self.occupy(*ino, inode);
        self.store_acl(*ino, AclKind::Access, acls.access.as_deref());
        self.store_acl(*ino, AclKind::Default, acls.default.as_deref());
        self.inherit_copies(*parent, *ino);
        self.add_name(at, *parent, name, *ino);
        self.created(*ino, true)
    }

    /// A directory asks for what the one above it does.
    fn inherit_copies(&mut self, parent: Ino, ino: Ino) {
        if self.directory(ino).is_ok()
            && let Some(copies) = self.copies_asked(parent)
        {
            self.store_xattr(ino, &Copies::name(), &copies.to_bytes());
        }
    }

    fn make_body(&mut self, parent: Ino, body: &NewBody) -> Body {
        match body {
            NewBody::Regular(place) => {
                self.take_data_id(*place);
                Body::File(FileBody::new(*place, 0))
            }
            NewBody::Directory => Body::Directory(Arc::new(Directory::new(parent))),
            NewBody::Symlink(target) => Body::Symlink(Arc::new(target.clone())),
            NewBody::Special(kind) => special_body(kind),
        }
    }

    /// The reply to a create.
    pub(super) fn created(&self, ino: Ino, is_new: bool) -> Mutated {
        let inode = self.inode(ino).expect("created or found just now");
        Mutated::Create(Created {
            attr: inode.attr(ino),
            layout: inode.file().map(FileBody::layout),
            is_new,
            is_shared: false,
        })
    }
}

fn special_body(kind: &NewKind) -> Body {
    let (kind, rdev) = match kind {
        NewKind::Fifo => (FileKind::Fifo, 0),
        NewKind::Socket => (FileKind::Socket, 0),
        NewKind::CharDevice { rdev } => (FileKind::CharDevice, *rdev),
        NewKind::BlockDevice { rdev } => (FileKind::BlockDevice, *rdev),
        NewKind::Regular | NewKind::Directory | NewKind::Symlink(_) => {
            unreachable!("has a body of its own")
        }
    };
    Body::Special { kind, rdev }
}

const _: () = assert!(limits::LINKS_MAX <= u16::MAX as u32, "nlink is 16 bits");
