//! A client's life at the master: opening, events, recalls, the end.
//!
//! A client keeps one [`NextEvents`] parked at the master. It renews the lease (counted from when
//! it was sent), brings recalls, and asks for what follows `seen`; so events survive a lost reply,
//! and the same shape works over every carrier.

use serde::{Deserialize, Serialize};

use crate::attr::Timestamp;
use crate::chunk::ChunkSize;
use crate::ids::{ChainId, ClusterId, HandleId, Ino, SessionId};
use crate::layout::ChainTable;
use crate::meta::Access;
use crate::operation::operations;

operations!(
    /// What a client says of itself.
    SessionRequest,
    /// Replies to [`SessionRequest`]s.
    SessionReply {
        OpenSession -> SessionOpened,
        ResumeSession -> SessionResumed,
        NextEvents -> Events,
        Recalled -> (),
        CloseSession -> (),
    }
);

impl SessionRequest {
    /// The session it speaks for; `None` if it opens one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            SessionRequest::OpenSession(_) => None,
            SessionRequest::ResumeSession(resume) => Some(resume.session),
            SessionRequest::NextEvents(next) => Some(next.session),
            SessionRequest::Recalled(recalled) => Some(recalled.session),
            SessionRequest::CloseSession(close) => Some(close.session),
        }
    }
}

/// Begins a session, which belongs to the certificate it is asked under. A live session of the same
/// `identity` under the same certificate is ended first, at once: a mount that was killed and made
/// again waits for nobody. Two that live must not end one another for ever, so whoever goes on after
/// a session that has ended is refused with `Replaced` if another has begun meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Names this mount for ever: where it is on which machine, or a random word for a one-shot
    /// client.
    pub identity: String,
    /// The last session of this client; `None` if it has just been started.
    pub after: Option<SessionId>,
    pub host: String,
    /// Mountpoint, or what the client is.
    pub mount: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionOpened {
    pub session: SessionId,
    pub lease_ms: u64,
    pub cluster: ClusterId,
    pub chunk_size: ChunkSize,
    pub table: ChainTable,
}

/// After a reconnect: says what the client holds, so that a restarted master knows it again.
/// `SessionExpired` if the session has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResumeSession {
    pub session: SessionId,
    pub handles: Vec<OpenHandle>,
    pub append_tokens: Vec<Ino>,
    /// False if more `ResumeSession`s with further handles follow.
    pub complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenHandle {
    pub handle: HandleId,
    pub ino: Ino,
    pub access: Access,
    /// As the master said when it was opened ([`Opened::is_shared`](crate::meta::Opened)).
    pub is_shared: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionResumed {
    pub lease_ms: u64,
    pub table: ChainTable,
}

/// Waits at most `EVENTS_PARK_MS` for events numbered above `seen`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextEvents {
    pub session: SessionId,
    /// The last event the client has taken; events up to it are dropped.
    pub seen: u64,
    /// The client's clock, so that the master can say whose differs.
    pub wall: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// Ascending by number.
    pub events: Vec<(u64, Event)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Give a right back: flush, commit, stop using it, then answer [`Recalled`].
    Recall { recall: u64, ino: Ino, right: Right },
    /// The chain table has changed: fetch it.
    TableChanged { version: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Right {
    /// The layout of an inode: a truncation waits.
    Layout,
    /// The append token of an inode.
    Append,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recalled {
    pub session: SessionId,
    pub recall: u64,
    pub outcome: RecallOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecallOutcome {
    /// Given back.
    Done,
    /// A flush failed for good: bytes beyond the committed size may lie on the volumes.
    TailUnknown,
    /// Still held: the flush goes on, or waits for a chain in trouble. The client says so again as
    /// long as it is, and answers when it is over.
    Held { waits_for: Option<ChainId> },
}

/// Ends the session at once: everything is flushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloseSession {
    pub session: SessionId,
}
