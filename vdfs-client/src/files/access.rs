//! When a file was read here, for its access time (`relatime`, mount(8)).
//!
//! It is told to the master with the close of a handle, at no cost of its own; until then it is shown
//! to whoever asks here.

use vdfs_proto::{Attr, Timestamp};

#[derive(Debug, Default)]
pub(super) struct Access {
    /// The next read moves the access time.
    is_due: bool,
    read_at: Option<Timestamp>,
}

impl Access {
    /// These attributes were seen.
    pub(super) fn see(&mut self, attr: &Attr, now: Timestamp) {
        self.is_due = self.shown(*attr).is_access_due(now);
    }

    /// The inode has changed.
    pub(super) fn change(&mut self) {
        self.is_due = true;
    }

    pub(super) fn read(&mut self, now: impl FnOnce() -> Timestamp) {
        if std::mem::take(&mut self.is_due) {
            self.read_at = Some(now());
        }
    }

    pub(super) fn read_at(&self) -> Option<Timestamp> {
        self.read_at
    }

    /// The access time was set to something else: earlier reads do not show.
    pub(super) fn set(&mut self) {
        self.read_at = None;
        self.is_due = true;
    }

    pub(super) fn shown(&self, attr: Attr) -> Attr {
        Attr {
            atime: attr.atime.max(self.read_at.unwrap_or(attr.atime)),
            ..attr
        }
    }
}
