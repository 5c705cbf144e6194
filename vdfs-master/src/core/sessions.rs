//! Sessions: opening, resuming, events, recalls; how they end is in [`ending`].

mod ending;

use std::sync::Arc;

use vdfs_proto::limits::{SESSION_LEASE_MS, SESSIONS_MAX};
use vdfs_proto::session::{
    Event, Events, NextEvents, OpenHandle, OpenSession, RecallOutcome, Recalled, ResumeSession,
    Right, SessionOpened, SessionReply, SessionRequest, SessionResumed,
};
use vdfs_proto::volume::Fence;
use vdfs_proto::{HandleId, Ino, SessionId, Status};

use super::limits::LABEL_BYTES_MAX;
use super::live::{LiveSession, Opening, Seat};
use super::record::Record;
use super::replies::Slots;
use super::state::{Closing, Session, State};
use super::{Core, CoreReply, Peer, Ticket};

impl State {
    pub(crate) fn apply_session_opened(
        &mut self,
        session: SessionId,
        owner: &Peer,
        open: &OpenSession,
    ) {
        assert_eq!(
            session, self.numbers.session,
            "sessions are numbered in order"
        );
        self.numbers.session.0 += 1;
        let opened = Session {
            owner: owner.clone(),
            identity: open.identity.clone(),
            host: open.host.clone(),
            mount: open.mount.clone(),
            closing: None,
            slots: Arc::new(Slots::default()),
        };
        self.sessions.insert(session, opened);
    }

    pub(crate) fn apply_session_closing(&mut self, session: SessionId) {
        let fence = self.numbers.fence;
        self.numbers.fence += 1;
        let stored = self
            .sessions
            .get_mut(session)
            .expect("a live session closes");
        assert!(stored.closing.is_none(), "{session} closes once");
        stored.closing = Some(Closing { fence });
    }

    pub(crate) fn apply_session_closed(&mut self, session: SessionId) {
        let stored = self
            .sessions
            .remove(session)
            .expect("a session closes once");
        self.forget_replies(session, stored.slots.len());
        let writers = self.take_writers(session);
        self.locks.end_session(session);
        // One that closes itself has flushed everything.
        if stored.closing.is_some() {
            for ino in writers {
                self.mark_tail_unknown(ino);
            }
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
    pub(crate) fn take_session_request(
        &mut self,
        ticket: Ticket,
        peer: Peer,
        request: SessionRequest,
    ) {
        let outcome = match request {
            SessionRequest::OpenSession(open) => self.open_session(ticket, peer, open),
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
        owner: Peer,
        open: OpenSession,
    ) -> Result<Option<SessionReply>, Status> {
        let labels = [&open.identity, &open.host, &open.mount];
        if labels.iter().any(|label| label.len() > LABEL_BYTES_MAX) {
            return Err(Status::Invalid);
        }
        if self.live.log_full.is_some() || self.state.sessions.len() >= SESSIONS_MAX {
            return Err(Status::Busy);
        }
        self.check_hold().map_err(|_| Status::Busy)?;
        // It would begin with chains whose members are about to be others.
        if self.live.table.version < self.state.table.version {
            return Err(Status::Busy);
        }
        let predecessor = self.sessions_of(&owner, &open.identity);
        if predecessor.is_empty() {
            return Ok(Some(self.begin_session(owner, open)));
        }
        if open
            .after
            .is_some_and(|own| self.has_successor(own, &predecessor))
        {
            return Err(Status::Replaced);
        }
        self.replace_waiting_open(Opening {
            ticket,
            owner,
            open,
        });
        for session in predecessor {
            self.begin_closing(session);
        }
        Ok(None)
    }

    fn sessions_of(&self, owner: &Peer, identity: &str) -> Vec<SessionId> {
        let sessions = self.state.sessions.iter();
        sessions
            .filter(|(_, stored)| stored.identity == identity && stored.owner == *owner)
            .map(|(session, _)| session)
            .collect()
    }

    /// One of the sessions began after `own`, and lives.
    fn has_successor(&self, own: SessionId, sessions: &[SessionId]) -> bool {
        let lives = |session: SessionId| {
            let stored = self.state.sessions.get(session);
            stored.is_some_and(|stored| stored.closing.is_none())
        };
        let mut later = sessions.iter().filter(|session| **session > own);
        later.any(|session| lives(*session))
    }

    /// The latest caller of an identity is the one that is alive.
    fn replace_waiting_open(&mut self, new: Opening) {
        let opening = &mut self.live.opening;
        let same = opening
            .iter()
            .position(|other| other.open.identity == new.open.identity && other.owner == new.owner);
        let before = same.map(|index| opening.remove(index));
        self.live.seats.insert(new.ticket, Seat::Opening);
        opening.push(new);
        if let Some(before) = before {
            self.live.reply(before.ticket, Err(Status::Busy));
        }
    }

    fn begin_session(&mut self, owner: Peer, open: OpenSession) -> SessionReply {
        let session = self.state.numbers.session;
        self.log(Record::SessionOpened {
            session,
            owner,
            open,
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
            self.note_told_writers(session);
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
            && self
                .live
                .check_handle(session, open.handle, Some(open.ino))
                .is_ok();
        // What is known already may have been recalled since: resuming does not give it back.
        let may_hold = self.live.unresumed.contains(&session);
        if is_new && fits && may_hold {
            self.open_handle(session, open);
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
    pub(super) fn session_is_known(&mut self) {
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
        let clock_ahead_ms = self.clock_ahead_ms(next.wall);
        let now_ms = self.live.now.boot_ms;
        self.live.woken.insert(next.session);
        let live = self.live.sessions.get_mut(&next.session);
        let live = live.expect("heard above");
        live.clock_ahead_ms = Some(clock_ahead_ms);
        let before = live.outbox.poll(next.seen, ticket, now_ms);
        self.live.seats.insert(ticket, Seat::Events(next.session));
        if let Some(before) = before {
            self.live.reply(before, Ok(events(Vec::new())));
        }
        Ok(())
    }

    pub(crate) fn answer_session_polls(&mut self) {
        let now_ms = self.live.now.boot_ms;
        for session in std::mem::take(&mut self.live.woken) {
            let live = self.live.sessions.get_mut(&session);
            if let Some((ticket, batch)) = live.and_then(|l| l.outbox.take_answer(now_ms)) {
                self.live.reply(ticket, Ok(events(batch)));
            }
        }
    }

    fn recalled(&mut self, recalled: &Recalled) -> Result<SessionReply, Status> {
        self.hear(recalled.session)?;
        let now_ms = self.live.now.boot_ms;
        let asked = self.live.recalls.get_mut(&recalled.recall);
        let Some(asked) = asked.filter(|asked| asked.recall.session == recalled.session) else {
            return Ok(SessionReply::Recalled(()));
        };
        let recall = asked.recall;
        match recalled.outcome {
            RecallOutcome::Held { .. } => {
                asked.heard_ms = now_ms;
                return Ok(SessionReply::Recalled(()));
            }
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
        self.note_no_writer(session, open.ino);
        if !self.live.opens.has_handle(open.ino, session) {
            let recalls = &mut self.live.recalls;
            recalls
                .retain(|_, asked| (asked.recall.session, asked.recall.ino) != (session, open.ino));
        }
        self.rights_changed(open.ino);
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
