//! Sessions, and lives of the master.

use std::sync::Arc;

use vdfs_proto::{Ino, SessionId};

use super::{CLIENTS, Model, Session};

impl Model {
    pub(in super::super) fn begin_session(&mut self, by: usize) {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(session, Session::default());
        self.clients[by] = Some(session);
    }

    /// It has flushed everything and says so.
    pub(in super::super) fn close_session(&mut self, by: usize) {
        if let Some(id) = self.clients[by].take() {
            self.sessions.remove(&id);
            self.end_locks(id);
            self.former[by] = Some(id);
        }
        self.collect();
    }

    /// The master ends it: what it was writing may have bytes that no commit speaks of.
    pub(in super::super) fn end_session(&mut self, by: usize) {
        let session = self.clients[by].and_then(|id| self.sessions.get(&id));
        let handles = session.into_iter().flat_map(|s| s.handles.values());
        let written: Vec<Ino> = handles
            .filter(|(_, access)| access.write)
            .map(|(ino, _)| *ino)
            .collect();
        written.into_iter().for_each(|ino| self.mark_tail(ino));
        self.close_session(by);
    }

    /// Another life of the master: it knows neither the departed nor those that lingered.
    pub(in super::super) fn restart(&mut self) {
        self.departed.clear();
        for node in self.nodes.values_mut() {
            node.lingers_until_ms = None;
        }
        self.collect();
    }

    /// The log may have lost its end: all sessions end.
    pub(in super::super) fn reboot(&mut self) {
        self.restart();
        (0..CLIENTS).for_each(|by| self.end_session(by));
    }

    /// Everything so far stays whatever happens.
    pub(in super::super) fn sync(&mut self) {
        self.unsynced.clear();
    }

    /// The end of a transition, which a crash may go back to.
    pub(in super::super) fn remember(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let then = Arc::new(self.clone());
        self.unsynced = unsynced;
        self.unsynced.push(then);
    }

    /// How many transitions a crash takes that would take `lose`.
    pub(in super::super) fn losable(&self, lose: usize) -> usize {
        lose.min(self.unsynced.len().saturating_sub(1))
    }

    /// The state so many transitions ago. What was given out since is not given out again.
    pub(in super::super) fn go_back(&mut self, transitions: usize) {
        let at = self.unsynced.len() - 1 - transitions;
        let before = self.unsynced[at].clone();
        let now = (
            self.now_ms,
            self.next_ino,
            self.next_data,
            self.next_session,
        );
        *self = (*before).clone();
        (
            self.now_ms,
            self.next_ino,
            self.next_data,
            self.next_session,
        ) = now;
    }
}
