//! Access times: who has read what, and when.
//!
//! Reads do not pass here, so an access time moves with what comes anyway: a listing marks its
//! directory, and whoever closes a file says when it was read, if that was the first time since a
//! change or for a day (`relatime`, mount(8)). Access times never go back but by `utimensat(2)`.

use vdfs_proto::meta::{ReadDir, Release};
use vdfs_proto::{Ino, SessionId, Timestamp};

use super::Core;
use super::record::Record;
use super::state::State;

impl Core {
    /// A listing begins.
    pub(crate) fn note_listing(&mut self, read: &ReadDir) {
        let now = self.live.now.wall;
        let Ok(attr) = self.state.attr(read.ino) else {
            return;
        };
        if read.marks_access && read.cookie == 0 && attr.is_access_due(now) {
            self.note_access(read.ino, now);
        }
    }

    /// A handle is closed.
    pub(crate) fn note_read(&mut self, session: SessionId, release: &Release) {
        let live = self.live.sessions.get(&session);
        let open = live.and_then(|live| live.handles.get(&release.handle));
        if let (Some(open), Some(at)) = (open, release.read_at) {
            self.note_access(open.ino, at);
        }
    }

    /// An inode was read at `at`; nothing if that is known, or if the log has no room.
    fn note_access(&mut self, ino: Ino, at: Timestamp) {
        let is_news = self.state.attr(ino).is_ok_and(|attr| attr.atime < at);
        if is_news && self.live.log_full.is_none() {
            self.log(Record::Accessed { ino, at });
        }
    }
}

impl State {
    pub(crate) fn apply_accessed(&mut self, ino: Ino, at: Timestamp) {
        self.inodes.get_mut(ino).atime = at.into();
    }
}
