//! The end of a session.
//!
//! A session that is silent for its lease, or says nothing of a right that is recalled, or whose mount
//! comes again, ends in steps: *closing* is
//! logged; when that is durable it is fenced at every volume; when each has acknowledged, or has
//! lost its own lease, *closed* is logged; only then are its handles, rights and retry records
//! released. A session that closes itself has nothing in flight and ends at once.

use std::collections::BTreeSet;

use vdfs_proto::limits::SESSION_LEASE_MS;
use vdfs_proto::session::{CloseSession, SessionReply};
use vdfs_proto::volume::{Command, Fence};
use vdfs_proto::{HandleId, Ino, SessionId, Status, VolumeId};

use crate::core::limits::RECALL_SILENT_MS;
use crate::core::live::{AfterDurable, AskedBack, LiveClosing, LiveSession, LiveVolume, Sent};
use crate::core::record::Record;
use crate::core::{Core, CoreReply};

impl Core {
    pub(super) fn close_session(&mut self, close: &CloseSession) -> Result<SessionReply, Status> {
        let session = close.session;
        self.hear(session)?;
        if self.live.log_full.is_some() {
            return Err(Status::Busy);
        }
        self.end_session(session);
        Ok(SessionReply::CloseSession(()))
    }

    pub(crate) fn expire_sessions(&mut self) {
        if self.live.log_full.is_some() {
            return;
        }
        let now_ms = self.live.now.boot_ms;
        let is_over = |live: &LiveSession| live.deaf || live.heard_ms + SESSION_LEASE_MS < now_ms;
        let sessions = self.live.sessions.iter();
        let silent = sessions.filter(|(_, live)| is_over(live));
        let mut over: BTreeSet<SessionId> = silent.map(|(session, _)| *session).collect();
        let is_ignored = |asked: &&AskedBack| asked.heard_ms + RECALL_SILENT_MS < now_ms;
        let ignored = self.live.recalls.values().filter(is_ignored);
        over.extend(ignored.map(|asked| asked.recall.session));
        if self.live.resume_by_ms < now_ms {
            over.extend(&self.live.unresumed);
        }
        for session in over {
            self.begin_closing(session);
        }
    }

    /// The first step of the end; nothing if it has begun.
    pub(crate) fn begin_closing(&mut self, session: SessionId) {
        let stored = self.state.sessions.get(session);
        if stored.is_none_or(|stored| stored.closing.is_some()) {
            return;
        }
        self.log(Record::SessionClosing { session });
        self.live.closings.insert(session, LiveClosing::default());
        self.after_sync(AfterDurable::Fence(session));
        self.refuse_polls(session);
        self.end_lock_waits_of(session);
    }

    fn refuse_polls(&mut self, session: SessionId) {
        let live = self.live.sessions.get_mut(&session);
        if let Some(ticket) = live.and_then(|live| live.outbox.take_parked()) {
            self.live.reply(ticket, Err(Status::SessionExpired));
        }
    }

    /// *Closing* is durable: the fences go out.
    pub(crate) fn send_fences(&mut self, session: SessionId) {
        if self.live.closings.contains_key(&session) {
            self.fence_everywhere(session);
        }
    }

    /// Tells all volumes that may take its writes; the session ends when each has said that it does not.
    pub(crate) fn fence_everywhere(&mut self, session: SessionId) {
        let may_write = |live: &LiveVolume| !live.away;
        let volumes = self.live.volumes.iter();
        let awaiting: BTreeSet<VolumeId> = volumes
            .filter(|(_, live)| may_write(live))
            .map(|(volume, _)| *volume)
            .collect();
        for volume in &awaiting {
            self.send_fence(*volume, session);
        }
        let closing = LiveClosing {
            durable: true,
            awaiting,
        };
        self.live.closings.insert(session, closing);
    }

    pub(crate) fn send_fence(&mut self, volume: VolumeId, session: SessionId) {
        let stored = self.state.sessions.get(session);
        if let Some(closing) = stored.and_then(|stored| stored.closing.as_ref()) {
            let number = closing.fence;
            let command = Command::Fence(Fence { number, session });
            self.live.send(volume, command, Sent::Fence(session));
        }
    }

    /// The volume has registered: its fences are in the reply to that, but changes of their sessions may be
    /// under way there. It says when none is any more.
    pub(crate) fn resend_fences_to(&mut self, volume: VolumeId) {
        let closings = self.live.closings.iter();
        let awaiting = closings.filter(|(_, closing)| closing.awaiting.contains(&volume));
        let awaiting: Vec<SessionId> = awaiting.map(|(session, _)| *session).collect();
        for session in awaiting {
            self.send_fence(volume, session);
        }
    }

    /// The volume takes no more writes of the session.
    pub(crate) fn fenced_at(&mut self, volume: VolumeId, session: SessionId) {
        if let Some(closing) = self.live.closings.get_mut(&session) {
            closing.awaiting.remove(&volume);
        }
    }

    /// The volume serves nobody.
    pub(crate) fn all_fenced_at(&mut self, volume: VolumeId) {
        for closing in self.live.closings.values_mut() {
            closing.awaiting.remove(&volume);
        }
    }

    pub(crate) fn close_fenced_sessions(&mut self) {
        let closings = self.live.closings.iter();
        let fenced: Vec<SessionId> = closings
            .filter(|(_, closing)| closing.durable && closing.awaiting.is_empty())
            .map(|(session, _)| *session)
            .collect();
        for session in fenced {
            self.end_session(session);
        }
    }

    /// The last step: everything of the session is released.
    fn end_session(&mut self, session: SessionId) {
        self.refuse_polls(session);
        self.end_lock_waits_of(session);
        let locked = self.state.locks.inodes_of(session);
        self.log(Record::SessionClosed { session });
        self.after_durable(AfterDurable::Forget(session));
        self.live.closings.remove(&session);
        self.give_up_ops(session);
        self.live
            .recalls
            .retain(|_, asked| asked.recall.session != session);
        self.release_all(session);
        for ino in locked {
            self.serve_locks(ino);
        }
        self.live.closed_writers.retain(|(of, _)| *of != session);
        self.live.sessions.remove(&session);
        if self.live.unresumed.remove(&session) {
            self.session_is_known();
        }
        self.go_on_opening();
    }

    fn give_up_ops(&mut self, session: SessionId) {
        let ops = self
            .live
            .in_progress
            .range((session, 0)..=(session, u16::MAX));
        let keys: Vec<(SessionId, u16)> = ops.map(|(key, _)| *key).collect();
        for key in keys {
            self.give_up(key, Status::SessionExpired);
        }
    }

    fn release_all(&mut self, session: SessionId) {
        let live = self.live.sessions.get(&session);
        let handles: Vec<HandleId> =
            live.map_or(Vec::new(), |live| live.handles.keys().copied().collect());
        for handle in handles {
            self.release_handle(session, handle, false);
        }
        let works: Vec<Ino> = self.live.works.keys().copied().collect();
        for ino in works {
            self.rights_changed(ino);
        }
    }

    fn go_on_opening(&mut self) {
        for opening in std::mem::take(&mut self.live.opening) {
            let predecessor = self.sessions_of(&opening.owner, &opening.open.identity);
            if predecessor.is_empty() {
                let reply = self.begin_session(opening.owner, opening.open);
                self.live
                    .reply(opening.ticket, Ok(CoreReply::Session(reply)));
            } else {
                self.live.opening.push(opening);
            }
        }
    }

    /// *Closed* is durable: volumes drop the session's records.
    pub(crate) fn send_forget(&mut self, session: SessionId) {
        let volumes: Vec<VolumeId> = self.live.volumes.keys().copied().collect();
        for volume in volumes {
            let command = Command::ForgetSession(session);
            self.live.send(volume, command, Sent::News);
        }
    }
}
