//! Who has which inode open, who holds its layout, and who may append to it.
//!
//! Invariants: a session holds a layout or an append token of an inode only while it has a handle
//! of it; an append token has one holder.

use std::collections::BTreeMap;

use vdfs_proto::limits::HANDLES_PER_SESSION_MAX;
use vdfs_proto::session::OpenHandle;
use vdfs_proto::{HandleId, Ino, SessionId, Status};

use super::live::Live;

#[derive(Debug, Default)]
pub(crate) struct Opens {
    openers: BTreeMap<Ino, BTreeMap<SessionId, Opener>>,
    appenders: BTreeMap<Ino, SessionId>,
}

/// One session's handles of one inode.
#[derive(Clone, Copy, Debug, Default)]
struct Opener {
    handles: u32,
    writers: u32,
    holds_layout: bool,
}

impl Opens {
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.openers.contains_key(&ino)
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

    fn add(&mut self, session: SessionId, open: OpenHandle) {
        let openers = self.openers.entry(open.ino).or_default();
        let opener = openers.entry(session).or_default();
        opener.handles += 1;
        opener.writers += u32::from(open.access.write);
        opener.holds_layout = true;
    }

    fn remove(&mut self, session: SessionId, open: OpenHandle) {
        let openers = self
            .openers
            .get_mut(&open.ino)
            .expect("a handle is counted");
        let opener = openers.get_mut(&session).expect("a handle is counted");
        opener.handles -= 1;
        opener.writers -= u32::from(open.access.write);
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
        match handles.insert(open.handle, open) {
            Some(before) if before == open => self.opens.grant_layout(open.ino, session),
            Some(before) => {
                self.opens.remove(session, before);
                self.opens.add(session, open);
            }
            None => self.opens.add(session, open),
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
