//! Names and attributes.

use std::collections::BTreeMap;

use vdfs_proto::attr::SetTime;
use vdfs_proto::limits::LINKS_MAX;
use vdfs_proto::meta::{
    Create, Created, Link, Mutated, NewKind, Rename, RenameMode, Rmdir, SetAttr, Unlink,
};
use vdfs_proto::{DataId, FileKind, FileName, Ino, SessionId, Status, Timestamp};

use super::locks::Locks;
use super::{Body, File, LINGER_MS, Model, Node};

pub(super) const SETGID: u16 = 0o2000;

impl Model {
    pub(in super::super) fn entries(&self, ino: Ino) -> Result<&BTreeMap<FileName, Ino>, Status> {
        match self.nodes.get(&ino).map(|node| &node.body) {
            Some(Body::Directory { entries, .. }) => Ok(entries),
            Some(_) => Err(Status::NotDirectory),
            None => Err(Status::NotFound),
        }
    }

    /// What `..` is.
    fn parent(&self, ino: Ino) -> Ino {
        match &self.nodes[&ino].body {
            Body::Directory { parent, .. } => *parent,
            _ => unreachable!("asked of directories"),
        }
    }

    pub(super) fn is_directory(&self, ino: Ino) -> bool {
        self.entries(ino).is_ok()
    }

    pub(super) fn lookup(&self, parent: Ino, name: &FileName) -> Result<Ino, Status> {
        let found = self.entries(parent)?.get(name).copied();
        found.ok_or(Status::NotFound)
    }

    /// The entries of a directory that are about to change.
    fn change(&mut self, ino: Ino) -> &mut BTreeMap<FileName, Ino> {
        let at = self.at();
        let node = self.node_mut(ino);
        (node.mtime, node.ctime) = (at, at);
        match &mut node.body {
            Body::Directory { entries, .. } => entries,
            _ => unreachable!("asked of directories"),
        }
    }

    pub(super) fn create(&mut self, by: SessionId, create: &Create) -> Result<Mutated, Status> {
        let existing = self.entries(create.parent)?.get(&create.name).copied();
        if let Some((handle, _)) = create.open {
            self.check_handle(by, handle, existing)?;
        }
        let is_new = existing.is_none();
        let ino = match existing {
            Some(ino) => self.create_existing(ino, create)?,
            None => self.create_new(create)?,
        };
        if let Some((handle, access)) = create.open {
            self.open_checked(by, ino, handle, access);
        }
        Ok(Mutated::Create(Created {
            attr: self.attr(ino)?,
            layout: self.file(ino).ok().map(File::layout),
            is_new,
            is_shared: false,
        }))
    }

    fn create_existing(&self, ino: Ino, create: &Create) -> Result<Ino, Status> {
        if create.exclusive || create.kind != NewKind::Regular {
            return Err(Status::Exists);
        }
        match self.nodes[&ino].body {
            Body::File(_) => Ok(ino),
            Body::Directory { .. } => Err(Status::IsDirectory),
            Body::Symlink(_) | Body::Special(..) => Err(Status::Exists),
        }
    }

    fn create_new(&mut self, create: &Create) -> Result<Ino, Status> {
        if create.open.is_some() && create.kind != NewKind::Regular {
            return Err(Status::Invalid);
        }
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        let parent = &self.nodes[&create.parent];
        let (mut mode, acls) = self.inherit_acls(create);
        let mut gid = create.gid;
        if parent.mode & SETGID != 0 {
            gid = parent.gid;
            mode |= match create.kind {
                NewKind::Directory => SETGID,
                _ => 0,
            };
        }
        let at = self.at();
        let node = Node {
            body: self.new_body(create),
            mode,
            uid: create.uid,
            gid,
            nlink: 1,
            atime: at,
            mtime: at,
            ctime: at,
            xattrs: BTreeMap::new(),
            locks: Locks::new(),
            lingers_until_ms: None,
        };
        self.nodes.insert(ino, node);
        self.give_acls(ino, &acls);
        self.inherit_copies(create.parent, ino);
        self.change(create.parent).insert(create.name.clone(), ino);
        Ok(ino)
    }

    fn new_body(&mut self, create: &Create) -> Body {
        match &create.kind {
            NewKind::Regular => {
                let copies = self.copies_asked(create.parent).unwrap_or(0);
                self.kinds.insert(copies);
                Body::File(File::new(self.new_data(), 0, copies))
            }
            NewKind::Directory => Body::Directory {
                parent: create.parent,
                entries: BTreeMap::new(),
            },
            NewKind::Symlink(target) => Body::Symlink(target.clone()),
            NewKind::Fifo => Body::Special(FileKind::Fifo, 0),
            NewKind::Socket => Body::Special(FileKind::Socket, 0),
            NewKind::CharDevice { rdev } => Body::Special(FileKind::CharDevice, *rdev),
            NewKind::BlockDevice { rdev } => Body::Special(FileKind::BlockDevice, *rdev),
        }
    }

    pub(super) fn new_data(&mut self) -> DataId {
        self.next_data += 1;
        DataId(self.next_data - 1)
    }

    pub(super) fn link(&mut self, link: &Link) -> Result<Mutated, Status> {
        let nlink = self.node(link.ino)?.nlink;
        if self.entries(link.parent)?.contains_key(&link.name) {
            return Err(Status::Exists);
        }
        if self.is_directory(link.ino) {
            return Err(Status::NotPermitted);
        }
        match nlink {
            0 => return Err(Status::NotFound),
            LINKS_MAX => return Err(Status::TooManyLinks),
            _ => {}
        }
        self.change(link.parent).insert(link.name.clone(), link.ino);
        self.node_mut(link.ino).nlink += 1;
        self.touch(link.ino);
        Ok(Mutated::Link(self.attr(link.ino)?))
    }

    pub(super) fn unlink(&mut self, unlink: &Unlink) -> Result<Mutated, Status> {
        let ino = self.lookup(unlink.parent, &unlink.name)?;
        if self.is_directory(ino) {
            return Err(Status::IsDirectory);
        }
        self.change(unlink.parent).remove(&unlink.name);
        self.lose_name(ino);
        Ok(Mutated::Unlink(()))
    }

    pub(super) fn rmdir(&mut self, rmdir: &Rmdir) -> Result<Mutated, Status> {
        let ino = self.lookup(rmdir.parent, &rmdir.name)?;
        check_found(Some(ino), rmdir.found)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Status::NotEmpty);
        }
        self.change(rmdir.parent).remove(&rmdir.name);
        self.lose_name(ino);
        Ok(Mutated::Rmdir(()))
    }

    /// One name less.
    fn lose_name(&mut self, ino: Ino) {
        self.node_mut(ino).nlink -= 1;
        self.touch(ino);
        self.collect();
    }

    pub(super) fn rename(&mut self, rename: &Rename) -> Result<Mutated, Status> {
        let ino = self.lookup(rename.parent, &rename.name)?;
        let replaced = self.entries(rename.new_parent)?.get(&rename.new_name);
        match (rename.mode, replaced.copied()) {
            (RenameMode::NoReplace, Some(_)) => return Err(Status::Exists),
            (RenameMode::Exchange, None) => return Err(Status::NotFound),
            (RenameMode::Exchange, Some(other)) => self.exchange(rename, ino, other)?,
            (_, replaced) => self.rename_over(rename, ino, replaced)?,
        }
        Ok(Mutated::Rename(()))
    }

    fn rename_over(
        &mut self,
        rename: &Rename,
        ino: Ino,
        replaced: Option<Ino>,
    ) -> Result<(), Status> {
        check_found(replaced, rename.found)?;
        if replaced == Some(ino) {
            // Two names of one inode.
            return Ok(());
        }
        self.check_rename(ino, rename, replaced)?;
        self.change(rename.parent).remove(&rename.name);
        self.put(rename.new_parent, &rename.new_name, ino);
        if let Some(replaced) = replaced {
            self.end_replaced(replaced);
        }
        Ok(())
    }

    /// Of any two kinds. Neither ends up below itself.
    fn exchange(&mut self, rename: &Rename, ino: Ino, other: Ino) -> Result<(), Status> {
        if ino == other {
            return Ok(());
        }
        if self.is_within(rename.new_parent, ino) || self.is_within(rename.parent, other) {
            return Err(Status::Invalid);
        }
        self.put(rename.new_parent, &rename.new_name, ino);
        self.put(rename.parent, &rename.name, other);
        Ok(())
    }

    /// Lets an inode that has a name have this one.
    fn put(&mut self, directory: Ino, name: &FileName, ino: Ino) {
        self.change(directory).insert(name.clone(), ino);
        self.touch(ino);
        if let Body::Directory { parent, .. } = &mut self.node_mut(ino).body {
            *parent = directory;
        }
    }

    fn check_rename(&self, ino: Ino, rename: &Rename, replaced: Option<Ino>) -> Result<(), Status> {
        if self.is_within(rename.new_parent, ino) {
            return Err(Status::Invalid);
        }
        let Some(replaced) = replaced else {
            return Ok(());
        };
        match (self.is_directory(ino), self.entries(replaced)) {
            (true, Err(_)) => Err(Status::NotDirectory),
            (false, Ok(_)) => Err(Status::IsDirectory),
            (true, Ok(entries)) if !entries.is_empty() => Err(Status::NotEmpty),
            _ => Ok(()),
        }
    }

    fn is_within(&self, directory: Ino, ancestor: Ino) -> bool {
        let above = |ino: &Ino| (*ino != Ino::ROOT).then(|| self.parent(*ino));
        std::iter::successors(Some(directory), above).any(|ino| ino == ancestor)
    }

    /// A file may have been looked up just now, to be opened next.
    fn end_replaced(&mut self, ino: Ino) {
        let until_ms = self.now_ms + LINGER_MS;
        let node = self.node_mut(ino);
        if matches!(node.body, Body::File(_)) && node.nlink == 1 {
            node.lingers_until_ms = Some(until_ms);
        }
        self.lose_name(ino);
    }

    pub(super) fn set_attr(&mut self, set: &SetAttr) -> Result<Mutated, Status> {
        self.node(set.ino)?;
        let at = self.at();
        if set.kill_privileges {
            self.kill_privileges(set.ino);
        }
        if set.uid.or(set.gid).is_some() && !self.is_directory(set.ino) {
            self.drop_capabilities(set.ino);
        }
        if let Some(mode) = set.mode {
            self.chmod(set.ino, mode);
        }
        let node = self.node_mut(set.ino);
        node.uid = set.uid.unwrap_or(node.uid);
        node.gid = set.gid.unwrap_or(node.gid);
        node.atime = set.atime.map_or(node.atime, |time| resolve(time, at));
        node.mtime = set.mtime.map_or(node.mtime, |time| resolve(time, at));
        node.ctime = at;
        Ok(Mutated::SetAttr(self.attr(set.ino)?))
    }

    /// chown(2), write(2): suid goes, and sgid where the group may execute.
    pub(super) fn kill_privileges(&mut self, ino: Ino) {
        let is_directory = self.is_directory(ino);
        let mode = &mut self.node_mut(ino).mode;
        let sgid = if *mode & 0o010 != 0 { SETGID } else { 0 };
        if !is_directory {
            *mode &= !(0o4000 | sgid);
        }
    }
}

fn resolve(time: SetTime, now: Timestamp) -> Timestamp {
    match time {
        SetTime::Now => now,
        SetTime::At(time) => cut(time),
    }
}

/// Times are kept in 64 bits of nanoseconds and cut to what fits.
pub(super) fn cut(time: Timestamp) -> Timestamp {
    const SECOND: i128 = 1_000_000_000;
    let nanos = i128::from(time.secs) * SECOND + i128::from(time.nanos);
    let nanos = nanos.clamp(i64::MIN.into(), i64::MAX.into());
    Timestamp {
        secs: nanos.div_euclid(SECOND) as i64,
        nanos: nanos.rem_euclid(SECOND) as u32,
    }
}

/// The caller has looked up a directory there: it means that one.
fn check_found(present: Option<Ino>, found: Option<Ino>) -> Result<(), Status> {
    match found.is_some() && found != present {
        true => Err(Status::StaleInode),
        false => Ok(()),
    }
}
