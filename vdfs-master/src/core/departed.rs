//! What inodes were when they ended, for those who still hold one: a directory that is somebody's
//! working directory, a descriptor of it, a `stat(2)` that was overtaken by a rename. They see it
//! as on a local disk, without a name, instead of an error.
//!
//! Not logged: after a restart such an inode is stale. Invariant: an inode in here is never live
//! again, since its generation is not.

use std::collections::{BTreeMap, VecDeque};

use vdfs_proto::{Attr, Ino};

use super::limits::DEPARTED_MAX;

/// The newest [`DEPARTED_MAX`] of them.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    attrs: BTreeMap<Ino, Attr>,
    /// Oldest first.
    order: VecDeque<Ino>,
}

impl Departed {
    pub(crate) fn insert(&mut self, attr: Attr) {
        assert_eq!(attr.nlink, 0, "{} has a name", attr.ino);
        if self.order.len() == DEPARTED_MAX {
            let oldest = self.order.pop_front().expect("not empty");
            self.attrs.remove(&oldest);
        }
        self.order.push_back(attr.ino);
        let before = self.attrs.insert(attr.ino, attr);
        assert!(before.is_none(), "an inode ends once");
    }

    pub(crate) fn attr(&self, ino: Ino) -> Option<Attr> {
        self.attrs.get(&ino).copied()
    }
}
