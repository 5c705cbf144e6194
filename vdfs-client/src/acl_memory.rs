//! Inodes that have no access ACL, as of the attributes that were handed out last.
//!
//! A kernel that enforces ACLs asks for one at each check of a caller who is not the owner, and next
//! to no inode has one. It checks the mode that it was told just before: that there was no ACL
//! beside that mode is known here, and asking the master would say nothing newer.
//!
//! Invariant: replies may overtake each other, so an inode counts as without an ACL only by
//! attributes that no known ones are newer than; in doubt the master is asked.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use vdfs_proto::{Attr, Ino, Timestamp};

use crate::limits::ACL_MEMORY_MAX;

#[derive(Debug)]
pub(crate) struct AclMemory {
    seen: Mutex<LruCache<Ino, Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    has_acl: bool,
    ctime: Timestamp,
}

impl AclMemory {
    pub(crate) fn new() -> Self {
        let room = NonZeroUsize::new(ACL_MEMORY_MAX).expect("not zero");
        AclMemory {
            seen: Mutex::new(LruCache::new(room)),
        }
    }

    /// These attributes are handed out.
    pub(crate) fn note(&self, attr: &Attr) {
        let seen = Seen {
            has_acl: attr.has_acl,
            ctime: attr.ctime,
        };
        let mut memory = self.seen.lock();
        let known = memory.get_or_insert_mut(attr.ino, || seen);
        // A clock that was set back hides no ACL.
        if attr.has_acl || attr.ctime > known.ctime {
            *known = seen;
        }
    }

    /// The inode had no access ACL when its attributes were handed out last.
    pub(crate) fn has_none(&self, ino: Ino) -> bool {
        self.seen.lock().get(&ino).is_some_and(|seen| !seen.has_acl)
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::FileKind;

    use super::*;

    fn attr(ino: u64, secs: i64, has_acl: bool) -> Attr {
        let time = Timestamp { secs, nanos: 0 };
        Attr {
            ino: Ino(ino),
            kind: FileKind::Regular,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: time,
            mtime: time,
            ctime: time,
            has_acl,
            data_version: 0,
            has_holes: false,
        }
    }

    #[test]
    fn memory_takes_an_acl_at_once_and_its_absence_only_from_newer_attributes() {
        let memory = AclMemory::new();
        assert!(!memory.has_none(Ino(7)), "nothing is known");
        memory.note(&attr(7, 10, false));
        assert!(memory.has_none(Ino(7)));
        memory.note(&attr(7, 20, true));
        memory.note(&attr(7, 10, false));
        assert!(!memory.has_none(Ino(7)), "an older reply comes late");
        memory.note(&attr(7, 30, false));
        assert!(memory.has_none(Ino(7)));
        memory.note(&attr(7, 5, true));
        assert!(!memory.has_none(Ino(7)), "the clock was set back");
    }
}
