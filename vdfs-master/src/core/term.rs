//! The begin of a life of the master: what the log says was under way goes on.

use std::collections::BTreeSet;

use vdfs_proto::{DataId, SessionId};

use super::Core;
use super::limits::{RESUME_WITHIN_MS, TICK_MS};
use super::live::{AfterDurable, LiveSession, LiveVolume};
use super::lock_queues::LockQueues;
use super::record::Record;

impl Core {
    /// After replay: a new term, fresh leases, and what was under way goes on.
    pub(crate) fn start_term(&mut self, same_boot: bool) {
        let skip_ids = !same_boot;
        self.log(Record::Term { skip_ids });
        let (term, now_ms) = (self.state.numbers.term, self.live.now.boot_ms);
        self.live.started_ms = now_ms;
        self.live.lost_member_ms = now_ms;
        self.live.resume_by_ms = now_ms + RESUME_WITHIN_MS;
        self.live.next_tick_ms = now_ms + TICK_MS;
        self.live.next_recall = (term << 32) + 1;
        self.live.lock_queues = LockQueues::new(term);
        self.live.table = self.state.table.clone();
        for volume in self.state.volumes.keys() {
            let live = LiveVolume::new(term, now_ms);
            self.live.volumes.insert(*volume, live);
        }
        let closing = self.greet_sessions();
        self.resume_trims();
        self.resume_reaps();
        // Before any volume registers: each is given the fences before its first lease.
        for session in closing {
            self.fence_everywhere(session);
        }
        if !same_boot {
            self.end_all_sessions();
        }
    }

    /// Gives all sessions a fresh lease. Gives those that were closing.
    fn greet_sessions(&mut self) -> Vec<SessionId> {
        let (term, now_ms) = (self.state.numbers.term, self.live.now.boot_ms);
        let mut closing = Vec::new();
        for (session, stored) in self.state.sessions.iter() {
            let live = LiveSession::new(term, now_ms);
            self.live.sessions.insert(session, live);
            self.live.unresumed.insert(session);
            if stored.closing.is_some() {
                closing.push(session);
            }
        }
        if self.live.unresumed.is_empty() {
            let orphans = self.state.orphans.iter().map(|(ino, ())| ino);
            self.live.maybe_dead.extend(orphans);
        }
        closing
    }

    fn resume_reaps(&mut self) {
        let ids: BTreeSet<DataId> = self.state.reaps.iter().map(|((_, id), ())| id).collect();
        if !ids.is_empty() {
            let ids = ids.into_iter().collect();
            self.after_durable(AfterDurable::Reap(ids));
        }
    }

    fn end_all_sessions(&mut self) {
        let sessions: Vec<SessionId> = self.live.sessions.keys().copied().collect();
        for session in sessions {
            self.begin_closing(session);
        }
    }
}
