//! What an operator sees of the locks of one inode.

use std::collections::BTreeSet;

use vdfs_proto::limits::LOCKS_LISTED_MAX;
use vdfs_proto::meta::{ListedLock, LockAsked, LockReport, LockingSession};
use vdfs_proto::{Ino, SessionId};

use super::Core;

impl Core {
    pub(crate) fn list_locks(&self, ino: Ino) -> LockReport {
        let mut held = self.held_locks(ino);
        let mut waiting: Vec<ListedLock> = self
            .live
            .lock_queues
            .of(ino)
            .map(|wait| ListedLock {
                session: wait.holder.session,
                lock: wait.lock,
            })
            .collect();
        let is_cut = held.len().max(waiting.len()) > LOCKS_LISTED_MAX;
        held.truncate(LOCKS_LISTED_MAX);
        waiting.truncate(LOCKS_LISTED_MAX);
        let sessions = held.iter().chain(&waiting).map(|listed| listed.session);
        LockReport {
            sessions: self.locking_sessions(sessions.collect()),
            held,
            waiting,
            is_cut,
        }
    }

    /// By offset.
    fn held_locks(&self, ino: Ino) -> Vec<ListedLock> {
        let holders = self.state.locks.of(ino);
        let pieces = holders.flat_map(|(holder, held)| {
            held.ranges.iter().map(move |(range, kind)| ListedLock {
                session: holder.session,
                lock: LockAsked {
                    owner: holder.owner,
                    pid: held.pid,
                    kind,
                    range,
                },
            })
        });
        let mut pieces: Vec<ListedLock> = pieces.collect();
        pieces.sort_by_key(|listed| listed.lock.range);
        pieces
    }

    fn locking_sessions(&self, sessions: BTreeSet<SessionId>) -> Vec<LockingSession> {
        let known = sessions.into_iter().filter_map(|id| {
            let stored = self.state.sessions.get(id)?;
            Some(LockingSession {
                id,
                host: stored.host.clone(),
                mount: stored.mount.clone(),
            })
        });
        known.collect()
    }
}
