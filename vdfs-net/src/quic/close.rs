//! Why a connection is closed, as the peer is told.

use quinn::{Connection, VarInt};
use vdfs_proto::Status;

use super::counters::NetCounters;
use crate::address;

/// The application error code of a close, and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CloseReason {
    /// Nobody needs it any more, or it is broken already.
    Done = 0,
    ShuttingDown = 1,
    /// The peer sent what makes no sense.
    Malformed = 2,
    /// The peer sent a length beyond its bound.
    Oversized = 3,
    /// The hello was refused; the status went before.
    Refused = 4,
    /// The peer left a frame half sent or a reply unread.
    Stalled = 5,
    /// A handler panicked.
    Internal = 6,
}

impl CloseReason {
    /// What a peer did that made its bytes unreadable.
    pub(super) fn of_violation(status: Status) -> CloseReason {
        match status {
            Status::TooLarge => CloseReason::Oversized,
            _ => CloseReason::Malformed,
        }
    }

    fn text(self) -> &'static str {
        match self {
            CloseReason::Done => "done",
            CloseReason::ShuttingDown => "shutting down",
            CloseReason::Malformed => "malformed frame",
            CloseReason::Oversized => "oversized frame",
            CloseReason::Refused => "refused",
            CloseReason::Stalled => "stalled",
            CloseReason::Internal => "internal error",
        }
    }

    /// Closes, counts, and says once what was wrong with the peer.
    pub(super) fn close(self, connection: &Connection, counters: &NetCounters) {
        let peer = address::plain(connection.remote_address());
        match self {
            CloseReason::Done | CloseReason::ShuttingDown => {}
            CloseReason::Malformed => counters.frames_malformed.add(1),
            CloseReason::Oversized => counters.frames_oversized.add(1),
            CloseReason::Refused => counters.accepts_refused.add(1),
            CloseReason::Stalled => counters.stalls.add(1),
            CloseReason::Internal => tracing::error!(%peer, "a handler panicked"),
        }
        match self {
            CloseReason::Done | CloseReason::ShuttingDown => {}
            _ => tracing::warn!(%peer, reason = self.text(), "connection closed"),
        }
        connection.close(
            VarInt::from_u32(u32::from(self as u8)),
            self.text().as_bytes(),
        );
    }
}

/// Closes a connection for [`CloseReason::Done`] when dropped, and counts its packets: at whichever
/// await its owner is ended.
#[derive(Debug)]
pub(super) struct Closing<'a> {
    pub(super) connection: &'a Connection,
    pub(super) counters: &'a NetCounters,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let path = self.connection.stats().path;
        self.counters.packets_sent.add(path.sent_packets);
        self.counters.packets_lost.add(path.lost_packets);
        CloseReason::Done.close(self.connection, self.counters);
    }
}
