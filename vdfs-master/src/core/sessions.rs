//! Sessions: opening, leases, events, recalls, and the end.
//!
//! A session that is silent for its lease, or whose mount comes again, ends in steps: *closing* is
//! logged; when that is durable it is fenced at every volume; when each has acknowledged, or has
//! lost its own lease, *closed* is logged; only then are its handles, rights and retry records
//! released. A session that closes itself has nothing in flight and ends at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use vdfs_proto::limits::{SESSION_LEASE_MS, SESSIONS_MAX};
use vdfs_proto::session::{
    CloseSession, Event, Events, NextEvents, OpenHandle, OpenSession, RecallOutcome, Recalled,
    ResumeSession, Right, SessionOpened, SessionReply, SessionRequest, SessionResumed,
};
use vdfs_proto::volume::{Command, Fence};
use vdfs_proto::{HandleId, Ino, SessionId, Status, VolumeId};

use super::limits::{BATCH_MAX, LABEL_BYTES_MAX};
use super::live::{AfterDurable, LiveClosing, LiveSession, LiveVolume, Sent};
use super::record::Record;
use super::replies::Slots;
use super::state::{Closing, Session, State};
use super::{Core, CoreReply, Ticket};

impl State {
    pub(crate) fn apply_session_opened(
        &mut self,
        session: SessionId,
        identity: &str,
        host: &str,
        mount: &str,
    ) {
        assert_eq!(session, self.numbers.session, "sessions are numbered in order");
        self.numbers.session.0 += 1;
        let opened = Session {
            identity: identity.to_owned(),
            host: host.to_owned(),
            mount: mount.to_owned(),
            closing: None,
            slots: Arc::new(Slots::default()),
        };
        self.sessions.insert(session, opened);
    }

    pub(crate) fn apply_session_closing(&mut self, session: SessionId, tails: &[Ino]) {
        let fence = self.numbers.fence;
        self.numbers.fence += 1;
        let stored = self.sessions.get_mut(session).expect("a live session closes");
        assert!(stored.closing.is_none(), "{session} closes once");
        stored.closing = Some(Closing {
            fence,
            tails: tails.to_vec(),
        });
    }

    pub(crate) fn apply_session_closed(&mut self, session: SessionId) {
        let stored = self.sessions.remove(session).expect("a session closes once");
        for ino in stored.closing.map(|closing| closing.tails).unwrap_or_default() {
            self.mark_tail_unknown(ino);
        }
    }

    /// Fences in force.
    pub(crate) fn fences(&self) -> Vec<Fence> {
        let closing = self.sessions.iter().filter_map(|(session, stored)| {
            let closing = stored.closing.as_ref()?;
            Some(Fence {
                number: closing.fence,
                session,
            })
        });
        closing.collect()
    }
}

impl Core {
    pub(crate) fn take_session_request(&mut self, ticket: Ticket, request: SessionRequest) {
        let outcome = match request {
            SessionRequest::OpenSession(open) => self.open_session(ticket, open),
            SessionRequest::ResumeSession(resume) => self.resume_session(&resume).map(Some),
            SessionRequest::NextEvents(next) => self.next_events(ticket, &next).map(|()| None),
            SessionRequest::Recalled(recalled) => self.recalled(&recalled).map(Some),
            SessionRequest::CloseSession(close) => self.close_session(&close).map(Some),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(reply)) => self.live.reply(ticket, Ok(CoreReply::Session(reply))),
            Err(status) => self.live.reply(ticket, Err(status)),
        }
    }

    fn open_session(
        &mut self,
        ticket: Ticket,
        open: OpenSession,
    ) -> Result<Option<SessionReply>, Status> {
        let labels = [&open.identity, &open.host, &open.mount];
        if labels.iter().any(|label| label.len() > LABEL_BYTES_MAX) {
            return Err(Status::Invalid);
        }
        if self.live.log_full.is_some() || self.state.sessions.len() >= SESSIONS_MAX {
            return Err(Status::Busy);
        }
        let predecessor = self.sessions_of(&open.identity);
        if predecessor.is_empty() {
            return Ok(Some(self.begin_session(open)));
        }
        self.replace_waiting_open(ticket, open);
        for session in predecessor {
            self.begin_closing(session);
        }
        Ok(None)
    }

    fn sessions_of(&self, identity: &str) -> Vec<SessionId> {
        let sessions = self.state.sessions.iter();
        sessions
            .filter(|(_, stored)| stored.identity == identity)
            .map(|(session, _)| session)
            .collect()
    }

    /// The latest caller of an identity is the one that is alive.
    fn replace_waiting_open(&mut self, ticket: Ticket, open: OpenSession) {
        let opening = &mut self.live.opening;
        let same = opening.iter().position(|(_, other)| other.identity == open.identity);
        let before = same.map(|index| opening.remove(index));
        opening.push((ticket, open));
        if let Some((before, _)) = before {
            self.live.reply(before, Err(Status::Busy));
        }
    }

    fn begin_session(&mut self, open: OpenSession) -> SessionReply {
        let session = self.state.numbers.session;
        self.log(Record::SessionOpened {
            session,
            identity: open.identity,
            host: open.host,
            mount: open.mount,
        });
        let live = LiveSession::new(self.state.numbers.term, self.live.now.boot_ms);
        self.live.sessions.insert(session, live);
        SessionReply::OpenSession(SessionOpened {
            session,
            lease_ms: SESSION_LEASE_MS,
            cluster: self.state.config.cluster,
            chunk_size: self.state.config.chunk_size,
            table: (*self.live.table).clone(),
        })
    }

    fn resume_session(&mut self, resume: &ResumeSession) -> Result<SessionReply, Status> {
        let session = resume.session;
        self.hear(session)?;
        for open in &resume.handles {
            self.resume_handle(session, *open);
        }
        for ino in &resume.append_tokens {
            self.resume_append(session, *ino);
        }
        if resume.complete && self.live.unresumed.remove(&session) {
            self.session_is_known();
        }
        Ok(SessionReply::ResumeSession(SessionResumed {
            lease_ms: SESSION_LEASE_MS,
            table: (*self.live.table).clone(),
        }))
    }

    fn resume_handle(&mut self, session: SessionId, open: OpenHandle) {
        let is_new = self
            .live
            .sessions
            .get(&session)
            .is_some_and(|live| live.handles.get(&open.handle) != Some(&open));
        let fits = self.state.file(open.ino).is_ok()
            && self.live.check_handle(session, open.handle, Some(open.ino)).is_ok();
        // What is known already may have been recalled since: resuming does not give it back.
        if is_new && fits {
            self.live.open(session, open);
        }
    }

    fn resume_append(&mut self, session: SessionId, ino: Ino) {
        let is_free = self.live.opens.appender(ino).is_none();
        let may_hold = self.live.unresumed.contains(&session);
        if is_free && may_hold && self.live.opens.has_handle(ino, session) {
            self.live.opens.grant_append(ino, session);
        }
    }

    /// One session less of which it is unknown what it holds.
    fn session_is_known(&mut self) {
        if !self.live.unresumed.is_empty() {
            return;
        }
        let orphans: Vec<Ino> = self.state.orphans.iter().map(|(ino, ())| ino).collect();
        self.live.maybe_dead.extend(orphans);
        let waiters = std::mem::take(&mut self.live.resume_waiters);
        self.redispatch(waiters);
    }

    fn next_events(&mut self, ticket: Ticket, next: &NextEvents) -> Result<(), Status> {
        self.hear(next.session)?;
        if self.live.unresumed.contains(&next.session) {
            // It has not noticed that this is another life of the master.
            return Err(Status::Disconnected);
        }
        let now_ms = self.live.now.boot_ms;
        let live = self.live.sessions.get_mut(&next.session);
        let outbox = &mut live.expect("heard above").outbox;
        if let Some(before) = outbox.poll(next.seen, ticket, now_ms) {
            self.live.reply(before, Ok(events(Vec::new())));
        }
        Ok(())
    }

    pub(crate) fn answer_session_polls(&mut self) {
        let now_ms = self.live.now.boot_ms;
        let sessions = self.live.sessions.values_mut();
        let batches: Vec<_> = sessions
            .filter_map(|session| session.outbox.take_answer(now_ms))
            .collect();
        for (ticket, batch) in batches {
            self.live.reply(ticket, Ok(events(batch)));
        }
    }

    fn recalled(&mut self, recalled: &Recalled) -> Result<SessionReply, Status> {
        self.hear(recalled.session)?;
        let recall = self.live.recalls.get(&recalled.recall).copied();
        let Some(recall) = recall.filter(|recall| recall.session == recalled.session) else {
            return Ok(SessionReply::Recalled(()));
        };
        match recalled.outcome {
            RecallOutcome::Blocked(_) => return Ok(SessionReply::Recalled(())),
            RecallOutcome::TailUnknown => drop(self.live.tails_to_mark.insert(recall.ino)),
            RecallOutcome::Done => {}
        }
        self.mark_tails();
        self.live.recalls.remove(&recalled.recall);
        match recall.right {
            Right::Layout => self.live.opens.give_up_layout(recall.ino, recall.session),
            Right::Append => self.live.opens.give_up_append(recall.ino, recall.session),
        }
        self.rights_changed(recall.ino);
        Ok(SessionReply::Recalled(()))
    }

    pub(crate) fn mark_tails(&mut self) {
        if self.live.log_full.is_some() {
            return;
        }
        for ino in std::mem::take(&mut self.live.tails_to_mark) {
            if self.state.file(ino).is_ok() {
                self.log(Record::TailUnknown { ino });
            }
        }
    }

    /// Closes a handle.
    pub(crate) fn release_handle(
        &mut self,
        session: SessionId,
        handle: HandleId,
        tail_unknown: bool,
    ) {
        let Some(open) = self.live.release(session, handle) else {
            return;
        };
        if tail_unknown {
            self.live.tails_to_mark.insert(open.ino);
            self.mark_tails();
        }
        if !self.live.opens.has_handle(open.ino, session) {
            let recalls = &mut self.live.recalls;
            recalls.retain(|_, recall| (recall.session, recall.ino) != (session, open.ino));
        }
        self.rights_changed(open.ino);
    }

    fn close_session(&mut self, close: &CloseSession) -> Result<SessionReply, Status> {
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
        let over: Vec<SessionId> = sessions
            .filter(|(_, live)| is_over(live))
            .map(|(session, _)| *session)
            .collect();
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
        let tails = self.files_written_by(session);
        self.log(Record::SessionClosing { session, tails });
        self.live.closings.insert(session, LiveClosing::default());
        self.after_sync(AfterDurable::Fence(session));
        self.refuse_polls(session);
    }

    fn files_written_by(&self, session: SessionId) -> Vec<Ino> {
        let handles = self.live.sessions.get(&session).map(|live| &live.handles);
        let written: BTreeSet<Ino> = handles
            .into_iter()
            .flat_map(|handles| handles.values())
            .filter(|open| open.access.write)
            .map(|open| open.ino)
            .collect();
        written.into_iter().collect()
    }

    fn refuse_polls(&mut self, session: SessionId) {
        let live = self.live.sessions.get_mut(&session);
        if let Some(ticket) = live.and_then(|live| live.outbox.take_parked()) {
            self.live.reply(ticket, Err(Status::SessionExpired));
        }
    }

    /// *Closing* is durable: the fences go out.
    pub(crate) fn send_fences(&mut self, session: SessionId) {
        if !self.live.closings.contains_key(&session) {
            return;
        }
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

    /// The volume takes no more writes of the session.
    pub(crate) fn fenced_at(&mut self, volume: VolumeId, session: SessionId) {
        if let Some(closing) = self.live.closings.get_mut(&session) {
            closing.awaiting.remove(&volume);
        }
    }

    /// The volume knows all fences whose records are durable, or serves nobody.
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
        self.log(Record::SessionClosed { session });
        self.after_durable(AfterDurable::Forget(session));
        self.live.closings.remove(&session);
        self.give_up_ops(session);
        self.live.recalls.retain(|_, recall| recall.session != session);
        self.release_all(session);
        self.live.sessions.remove(&session);
        if self.live.unresumed.remove(&session) {
            self.session_is_known();
        }
        self.go_on_opening();
    }

    fn give_up_ops(&mut self, session: SessionId) {
        let ops = self.live.in_progress.range((session, 0)..=(session, u16::MAX));
        let keys: Vec<(SessionId, u16)> = ops.map(|(key, _)| *key).collect();
        for key in keys {
            self.give_up(key, Status::SessionExpired);
        }
    }

    fn release_all(&mut self, session: SessionId) {
        let live = self.live.sessions.get(&session);
        let handles: Vec<HandleId> = live.map_or(Vec::new(), |live| {
            live.handles.keys().copied().collect()
        });
        for handle in handles {
            self.release_handle(session, handle, false);
        }
        let works: Vec<Ino> = self.live.works.keys().copied().collect();
        for ino in works {
            self.rights_changed(ino);
        }
    }

    fn go_on_opening(&mut self) {
        for (ticket, open) in std::mem::take(&mut self.live.opening) {
            if self.sessions_of(&open.identity).is_empty() {
                let reply = self.begin_session(open);
                self.live.reply(ticket, Ok(CoreReply::Session(reply)));
            } else {
                self.live.opening.push((ticket, open));
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

    /// Ends orphans that nobody has open any more.
    pub(crate) fn drop_dead_orphans(&mut self) {
        if !self.live.unresumed.is_empty() || self.live.maybe_dead.is_empty() {
            return;
        }
        let candidates = std::mem::take(&mut self.live.maybe_dead);
        let dead: Vec<Ino> = candidates
            .into_iter()
            .filter(|ino| self.state.orphans.contains(*ino) && !self.live.is_pinned(*ino))
            .collect();
        for inos in dead.chunks(BATCH_MAX) {
            let inos = inos.to_vec();
            self.log(Record::Dropped { inos });
        }
    }

    /// Tells all sessions that the published table has changed.
    pub(crate) fn announce_table(&mut self) {
        let version = self.live.table.version;
        let sessions: Vec<SessionId> = self.live.sessions.keys().copied().collect();
        for session in sessions {
            self.live.notify(session, Event::TableChanged { version });
        }
    }
}

fn events(events: Vec<(u64, Event)>) -> CoreReply {
    CoreReply::Session(SessionReply::NextEvents(Events { events }))
}
