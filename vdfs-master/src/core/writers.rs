//! Which session may have bytes of which file on the volumes that no commit speaks of yet.
//!
//! Unlike other opens, those for writing are logged: when a session ends without having closed
//! such a file, perhaps under a master that has been restarted since and was never told of its
//! handles, what lies behind the file's committed size is unknown and must be cut before a gap can
//! show it.
//!
//! Invariant: whoever may write is in [`State::writers`] before it knows that it may. An entry may
//! outlive the writing by a tick: it costs a needless trim at worst.

use vdfs_proto::session::OpenHandle;
use vdfs_proto::{Ino, SessionId};

use super::Core;
use super::limits::BATCH_MAX;
use super::record::Record;
use super::state::State;

impl State {
    pub(crate) fn apply_writer_opened(&mut self, session: SessionId, ino: Ino) {
        self.writers.insert((session, ino), ());
    }

    pub(crate) fn apply_writers_closed(&mut self, writers: &[(SessionId, Ino)]) {
        for writer in writers {
            self.writers.remove(*writer);
        }
    }

    fn written_by(&self, session: SessionId) -> impl Iterator<Item = Ino> {
        let writers = self.writers.iter_from((session, Ino(0)));
        writers
            .take_while(move |((of, _), ())| *of == session)
            .map(|((_, ino), ())| ino)
    }

    /// Takes out what the session may have been writing.
    pub(crate) fn take_writers(&mut self, session: SessionId) -> Vec<Ino> {
        let inos: Vec<Ino> = self.written_by(session).collect();
        for ino in &inos {
            self.writers.remove((session, *ino));
        }
        inos
    }
}

impl Core {
    /// Opens a handle; one for writing is logged, and not opened if the log has no room for that.
    /// Repeating it is harmless.
    pub(crate) fn open_handle(&mut self, session: SessionId, open: OpenHandle) {
        let writer = (session, open.ino);
        if open.access.write {
            self.live.closed_writers.remove(&writer);
            if !self.state.writers.contains(writer) {
                if self.live.log_full.is_some() {
                    return;
                }
                let ino = open.ino;
                self.log(Record::WriterOpened { session, ino });
            }
        }
        self.live.open(session, open);
        self.recall_from_late(session, open.ino);
        self.note_no_writer(session, open.ino);
    }

    /// The session has told of all its handles: what it does not name it has closed, under an
    /// earlier life of the master.
    pub(crate) fn note_told_writers(&mut self, session: SessionId) {
        let written: Vec<Ino> = self.state.written_by(session).collect();
        for ino in written {
            self.note_no_writer(session, ino);
        }
    }

    /// Takes note, for the next tick, if the session has no handle for writing any more.
    pub(crate) fn note_no_writer(&mut self, session: SessionId, ino: Ino) {
        let writer = (session, ino);
        if self.state.writers.contains(writer) && !self.live.opens.is_writer(ino, session) {
            self.live.closed_writers.insert(writer);
        }
    }

    /// Logs, all at once, who has stopped writing.
    pub(crate) fn log_closed_writers(&mut self) {
        if self.live.log_full.is_some() {
            return;
        }
        let closed = std::mem::take(&mut self.live.closed_writers);
        let closed: Vec<(SessionId, Ino)> = closed.into_iter().collect();
        for writers in closed.chunks(BATCH_MAX) {
            let writers = writers.to_vec();
            self.log(Record::WritersClosed { writers });
        }
    }
}
