//! One inode's record. About 80 bytes; names, link targets and attributes lie elsewhere.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vdfs_proto::attr::{SetTime, without_privileges};
use vdfs_proto::{Attr, DataId, FileKind, Ino, Layout, SymlinkTarget, Timestamp};

use super::directory::Directory;

const SGID: u16 = 0o2000;
/// The bits of `st_mode` that are not its type.
pub(crate) const MODE_BITS: u16 = 0o7777;
/// Beside them in [`Inode::bits`]: it has an access ACL among its extended attributes.
const HAS_ACL: u16 = 0o100_000;
const NANOS_PER_SEC: i64 = 1_000_000_000;

/// Nanoseconds since 1970: years 1678 to 2262; times beyond are cut to that, as the kernel does
/// for a filesystem of narrower times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nanos(pub(crate) i64);

impl From<Timestamp> for Nanos {
    fn from(time: Timestamp) -> Self {
        let secs = time.secs.saturating_mul(NANOS_PER_SEC);
        Nanos(secs.saturating_add(i64::from(time.nanos)))
    }
}

impl From<Nanos> for Timestamp {
    fn from(time: Nanos) -> Self {
        Timestamp {
            secs: time.0.div_euclid(NANOS_PER_SEC),
            nanos: time.0.rem_euclid(NANOS_PER_SEC) as u32,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Inode {
    /// Of the slot's present or last inode.
    pub(crate) generation: u32,
    /// Names of anything but a directory; of a directory 1, and its subdirectories count in
    /// [`Directory`].
    pub(crate) nlink: u16,
    /// The mode, and [`HAS_ACL`].
    bits: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) atime: Nanos,
    pub(crate) mtime: Nanos,
    pub(crate) ctime: Nanos,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    File(FileBody),
    Directory(Arc<Directory>),
    Symlink(Arc<SymlinkTarget>),
    Special {
        kind: FileKind,
        rdev: u32,
    },
    /// The slot waits in the free list.
    Free {
        next: Option<u32>,
    },
    /// All generations of the slot are used up.
    Retired,
}

/// What a regular file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileBody {
    /// The committed size in bytes.
    pub(crate) size: u64,
    pub(crate) data: DataId,
    /// [`Attr::data_version`].
    pub(crate) version: u64,
    /// Of this data id.
    pub(crate) truncations: u32,
    /// No chunk at or above this index has committed bytes.
    pub(crate) chunks: u32,
    pub(crate) seed: u32,
    pub(crate) group: u16,
    pub(crate) holes: bool,
    /// Bytes behind the committed size may lie on the volumes.
    pub(crate) tail_unknown: bool,
}

/// Where a new data id lies: chosen when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewData {
    pub(crate) data: DataId,
    pub(crate) group: u16,
    pub(crate) seed: u32,
}

impl FileBody {
    pub(crate) fn new(place: NewData, version: u64) -> Self {
        FileBody {
            size: 0,
            data: place.data,
            version,
            truncations: 0,
            chunks: 0,
            seed: place.seed,
            group: place.group,
            holes: false,
            tail_unknown: false,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout {
            data: self.data,
            truncations: self.truncations,
            group: self.group,
            seed: self.seed,
            size: self.size,
            holes: self.holes,
        }
    }
}

impl Inode {
    /// One that is made at `at`, with one name.
    pub(crate) fn new((mode, uid, gid): (u16, u32, u32), at: Timestamp, body: Body) -> Self {
        let at = Nanos::from(at);
        Inode {
            generation: 0,
            nlink: 1,
            bits: mode & MODE_BITS,
            uid,
            gid,
            atime: at,
            mtime: at,
            ctime: at,
            body,
        }
    }

    pub(crate) fn free(generation: u32, next: Option<u32>) -> Self {
        Inode::idle(generation, Body::Free { next })
    }

    pub(crate) fn retired(generation: u32) -> Self {
        Inode::idle(generation, Body::Retired)
    }

    fn idle(generation: u32, body: Body) -> Self {
        let never = Nanos(0);
        Inode {
            generation,
            nlink: 0,
            bits: 0,
            uid: 0,
            gid: 0,
            atime: never,
            mtime: never,
            ctime: never,
            body,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.body, Body::Free { .. } | Body::Retired)
    }

    /// Panics for a slot that has no inode.
    pub(crate) fn kind(&self) -> FileKind {
        match &self.body {
            Body::File(_) => FileKind::Regular,
            Body::Directory(_) => FileKind::Directory,
            Body::Symlink(_) => FileKind::Symlink,
            Body::Special { kind, .. } => *kind,
            Body::Free { .. } | Body::Retired => unreachable!("a free slot has no kind"),
        }
    }

    pub(crate) fn file(&self) -> Option<&FileBody> {
        match &self.body {
            Body::File(file) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn file_mut(&mut self) -> Option<&mut FileBody> {
        match &mut self.body {
            Body::File(file) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.body {
            Body::Directory(directory) => Some(Arc::make_mut(directory)),
            _ => None,
        }
    }

    pub(crate) fn attr(&self, ino: Ino) -> Attr {
        let (nlink, size, rdev, data_version) = match &self.body {
            Body::File(file) => (u32::from(self.nlink), file.size, 0, file.version),
            Body::Directory(directory) => {
                (2 + directory.subdirectories, directory.len() as u64, 0, 0)
            }
            Body::Symlink(target) => (u32::from(self.nlink), target.as_bytes().len() as u64, 0, 0),
            Body::Special { rdev, .. } => (u32::from(self.nlink), 0, *rdev, 0),
            Body::Free { .. } | Body::Retired => unreachable!("a free slot has no attributes"),
        };
        Attr {
            ino,
            kind: self.kind(),
            mode: self.mode(),
            nlink,
            uid: self.uid,
            gid: self.gid,
            rdev,
            size,
            atime: self.atime.into(),
            mtime: self.mtime.into(),
            ctime: self.ctime.into(),
            has_acl: self.has_acl(),
            data_version,
            has_holes: self.file().is_some_and(|file| file.holes),
        }
    }

    /// Clears suid, and sgid of a group-executable file (chown(2), write(2)). A directory's bits give
    /// no privilege: they stay.
    pub(crate) fn kill_privileges(&mut self) {
        if self.kind() == FileKind::Directory {
            return;
        }
        self.set_mode(without_privileges(self.mode()));
    }

    pub(crate) fn is_setgid(&self) -> bool {
        self.bits & SGID != 0
    }

    pub(crate) fn mode(&self) -> u16 {
        self.bits & MODE_BITS
    }

    pub(crate) fn set_mode(&mut self, mode: u16) {
        self.bits = self.bits & HAS_ACL | mode & MODE_BITS;
    }

    pub(crate) fn has_acl(&self) -> bool {
        self.bits & HAS_ACL != 0
    }

    pub(crate) fn set_has_acl(&mut self, has_acl: bool) {
        self.bits = self.mode() | if has_acl { HAS_ACL } else { 0 };
    }

    /// The bytes have changed.
    pub(crate) fn modify(&mut self, mtime: Timestamp, at: Timestamp, kill_privileges: bool) {
        self.mtime = mtime.into();
        self.ctime = at.into();
        if kill_privileges {
            self.kill_privileges();
        }
    }
}

/// The mode of a directory made in a setgid directory.
pub(crate) fn inherit_setgid(mode: u16) -> u16 {
    mode | SGID
}

pub(crate) fn without_setgid(mode: u16) -> u16 {
    mode & !SGID
}

/// Resolves `UTIME_NOW`.
pub(crate) fn resolve_time(time: SetTime, at: Timestamp) -> Timestamp {
    match time {
        SetTime::Now => at,
        SetTime::At(time) => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inode_takes_at_most_80_bytes() {
        assert!(size_of::<Inode>() <= 80, "{}", size_of::<Inode>());
    }

    #[test]
    fn nanos_keep_times_before_1970_and_cut_those_out_of_range() {
        let before = Timestamp { secs: -2, nanos: 5 };
        assert_eq!(Timestamp::from(Nanos::from(before)), before);
        let far = Timestamp {
            secs: i64::MAX,
            nanos: 0,
        };
        assert_eq!(
            Timestamp::from(Nanos::from(far)).secs,
            i64::MAX / NANOS_PER_SEC
        );
    }
}
