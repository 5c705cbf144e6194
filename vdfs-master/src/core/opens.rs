//! Who has which inode open, who holds its layout, and who may append to it.
//!
//! Invariants: a session holds a layout or an append token of an inode only while it has a handle
//! of it; an append token has one holder.
//!
//! Page caches of two mounts cannot be one, so a mount bypasses its own for a file that another one
//! writes ([`Core::is_shared`]). Whoever came first keeps its cache: a newcomer cannot take the
//! mappings away that a database's next process needs. A reader keeps it as long as the other one may
//! be about to close: a close is known here some milliseconds after it, and a file that was written
//! a moment ago must be as good for mapping as any.

use std::collections::BTreeMap;

use vdfs_proto::limits::HANDLES_PER_SESSION_MAX;
use vdfs_proto::meta::Access;
use vdfs_proto::session::OpenHandle;
use vdfs_proto::{HandleId, Ino, SessionId, Status};

use super::Core;
use super::limits::SETTLED_WRITER_MS;
use super::live::Live;

#[derive(Debug, Default)]
pub(crate) struct Opens {
    openers: BTreeMap<Ino, BTreeMap<SessionId, Opener>>,
    appenders: BTreeMap<Ino, SessionId>,
    /// Of all sessions.
    handles: u64,
}

/// One session's handles of one inode.
#[derive(Clone, Copy, Debug, Default)]
struct Opener {
    handles: u32,
    writers: u32,
    /// Writers that may keep pages.
    cached_writers: u32,
    /// When the first of the writers opened it.
    writing_since_ms: u64,
    holds_layout: bool,
}

impl Opens {
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.openers.contains_key(&ino)
    }

    /// How many there are, of all sessions.
    pub(crate) fn handles(&self) -> u64 {
        self.handles
    }

    pub(crate) fn has_writer(&self, ino: Ino) -> bool {
        self.openers
            .get(&ino)
            .is_some_and(|openers| openers.values().any(|opener| opener.writers > 0))
    }

    pub(crate) fn holds_layout(&self, ino: Ino, session: SessionId) -> bool {
        let opener = self
            .openers
            .get(&ino)
            .and_then(|openers| openers.get(&session));
        opener.is_some_and(|opener| opener.holds_layout)
    }

    /// Sessions but `except` that hold the layout.
    pub(crate) fn layout_holders(&self, ino: Ino, except: SessionId) -> Vec<SessionId> {
        let openers = self.openers.get(&ino).into_iter().flatten();
        openers
            .filter(|(session, opener)| opener.holds_layout && **session != except)
            .map(|(session, _)| *session)
            .collect()
    }

    pub(crate) fn grant_layout(&mut self, ino: Ino, session: SessionId) {
        if let Some(opener) = self.opener_mut(ino, session) {
            opener.holds_layout = true;
        }
    }

    /// An append token lives under a layout, so it goes with it.
    pub(crate) fn give_up_layout(&mut self, ino: Ino, session: SessionId) {
        if let Some(opener) = self.opener_mut(ino, session) {
            opener.holds_layout = false;
        }
        self.give_up_append(ino, session);
    }

    pub(crate) fn appender(&self, ino: Ino) -> Option<SessionId> {
        self.appenders.get(&ino).copied()
    }

    /// Panics if another session holds it.
    pub(crate) fn grant_append(&mut self, ino: Ino, session: SessionId) {
        let before = self.appenders.insert(ino, session);
        assert!(
            before.is_none_or(|holder| holder == session),
            "the append token of {ino} has one holder"
        );
        self.grant_layout(ino, session);
    }

    pub(crate) fn give_up_append(&mut self, ino: Ino, session: SessionId) {
        if self.appender(ino) == Some(session) {
            self.appenders.remove(&ino);
        }
    }

    pub(crate) fn has_handle(&self, ino: Ino, session: SessionId) -> bool {
        self.openers
            .get(&ino)
            .is_some_and(|openers| openers.contains_key(&session))
    }

    pub(crate) fn is_writer(&self, ino: Ino, session: SessionId) -> bool {
        let openers = self.openers.get(&ino);
        let opener = openers.and_then(|openers| openers.get(&session));
        opener.is_some_and(|opener| opener.writers > 0)
    }

    fn caches_writes(&self, ino: Ino, session: SessionId) -> bool {
        let openers = self.openers.get(&ino);
        let opener = openers.and_then(|openers| openers.get(&session));
        opener.is_some_and(|opener| opener.cached_writers > 0)
    }

    /// Another session has it open for writing, and has had so since `since_ms`.
    fn has_other_writer(&self, ino: Ino, session: SessionId, since_ms: u64) -> bool {
        let mut openers = self.openers.get(&ino).into_iter().flatten();
        openers.any(|(other, opener)| {
            *other != session && opener.writers > 0 && opener.writing_since_ms <= since_ms
        })
    }

    pub(crate) fn openers(&self) -> impl Iterator<Item = (Ino, SessionId, u32)> {
        self.openers.iter().flat_map(|(ino, openers)| {
            openers
                .iter()
                .map(|(session, opener)| (*ino, *session, opener.handles))
        })
    }

    pub(crate) fn appenders(&self) -> impl Iterator<Item = (Ino, SessionId)> {
        self.appenders.iter().map(|(ino, session)| (*ino, *session))
    }

    fn opener_mut(&mut self, ino: Ino, session: SessionId) -> Option<&mut Opener> {
        self.openers.get_mut(&ino)?.get_mut(&session)
    }

    fn add(&mut self, session: SessionId, open: OpenHandle, now_ms: u64) {
        let openers = self.openers.entry(open.ino).or_default();
        let opener = openers.entry(session).or_default();
        if open.access.write && opener.writers == 0 {
            opener.writing_since_ms = now_ms;
        }
        opener.handles += 1;
        self.handles += 1;
        opener.writers += u32::from(open.access.write);
        opener.cached_writers += u32::from(open.access.write && !open.is_shared);
        opener.holds_layout = true;
    }

    fn remove(&mut self, session: SessionId, open: OpenHandle) {
        let openers = self
            .openers
            .get_mut(&open.ino)
            .expect("a handle is counted");
        let opener = openers.get_mut(&session).expect("a handle is counted");
        opener.handles -= 1;
        self.handles -= 1;
        opener.writers -= u32::from(open.access.write);
        opener.cached_writers -= u32::from(open.access.write && !open.is_shared);
        if opener.handles > 0 {
            return;
        }
        openers.remove(&session);
        if openers.is_empty() {
            self.openers.remove(&open.ino);
        }
        self.give_up_append(open.ino, session);
    }
}

impl Core {
    /// What a handle that is being opened is told ([`vdfs_proto::meta::Opened::is_shared`]); one
    /// that is open already is told the same again.
    pub(crate) fn is_shared(
        &self,
        session: SessionId,
        (handle, access): (HandleId, Access),
        ino: Ino,
    ) -> bool {
        let live = self.live.sessions.get(&session);
        let open = live.and_then(|live| live.handles.get(&handle));
        if let Some(open) = open {
            return open.is_shared;
        }
        let opens = &self.live.opens;
        let now_ms = self.live.now.boot_ms;
        let since_ms = match access.write {
            true => now_ms,
            false => now_ms.saturating_sub(SETTLED_WRITER_MS),
        };
        // One that has not resumed says later what it has open; the log knows whether it may write.
        let mut unresumed = self.live.unresumed.iter();
        let may_write =
            |other: &SessionId| *other != session && self.state.writers.contains((*other, ino));
        let is_written = opens.has_other_writer(ino, session, since_ms) || unresumed.any(may_write);
        is_written && !opens.caches_writes(ino, session)
    }
}

impl Live {
    /// `BadHandle` if the handle is open on another inode, `NoSpace` if the session has too many.
    pub(crate) fn check_handle(
        &self,
        session: SessionId,
        handle: HandleId,
        ino: Option<Ino>,
    ) -> Result<(), Status> {
        let live = self.sessions.get(&session).ok_or(Status::SessionExpired)?;
        match live.handles.get(&handle) {
            Some(open) if Some(open.ino) == ino => Ok(()),
            Some(_) => Err(Status::BadHandle),
            None if live.handles.len() >= HANDLES_PER_SESSION_MAX => Err(Status::NoSpace),
            None => Ok(()),
        }
    }

    /// Repeating it is harmless.
    pub(crate) fn open(&mut self, session: SessionId, open: OpenHandle) {
        let live = self.sessions.get_mut(&session);
        let handles = &mut live.expect("asked by a live session").handles;
        let now_ms = self.now.boot_ms;
        match handles.insert(open.handle, open) {
            Some(before) if before == open => self.opens.grant_layout(open.ino, session),
            Some(before) => {
                self.opens.remove(session, before);
                self.opens.add(session, open, now_ms);
            }
            None => self.opens.add(session, open, now_ms),
        }
    }

    /// Gives what the handle was; `None` if it was not open.
    pub(crate) fn release(&mut self, session: SessionId, handle: HandleId) -> Option<OpenHandle> {
        let open = self.sessions.get_mut(&session)?.handles.remove(&handle)?;
        self.opens.remove(session, open);
        self.maybe_dead.insert(open.ino);
        Some(open)
    }
}
