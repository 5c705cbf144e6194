//! What the peers of one socket may send before it is read.
//!
//! The kernel drops what does not fit the socket's buffer, and what waits in connections is memory of
//! this process. So all connections of a socket share one budget, a part of the buffer that the kernel
//! really gave: alone a connection has as much as its purpose can use, among many each has its share.
//!
//! Transfers of one connection must not starve each other either: one that waits for its turn holds what
//! has come of it. So there are only as many at once as have room beside each other in the share.
//!
//! Left out: taking back credit that a peer has already. A share that shrinks is in force when what was
//! granted before has been sent.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;
use quinn::Connection;
use vdfs_proto::handshake::Purpose;

use crate::limits::{
    BULK_STREAM_WINDOW_BYTES, BULK_STREAMS_MAX, BULK_WINDOW_BYTES, CONTROL_WINDOW_BYTES,
    HEARTBEAT_WINDOW_BYTES, WINDOW_BYTES_MIN,
};

/// The kernel counts what a packet takes, which is up to twice what it brings, and a reader may be
/// late: a third of the buffer is filled without loss.
const BUFFER_PART: usize = 3;

#[derive(Debug)]
pub(super) struct Windows {
    bulk: Group,
    /// Control and heartbeats: they seldom fill theirs, and shall not take from bulk.
    others: Group,
}

/// Connections that share.
struct Group {
    /// Of all together.
    bytes: usize,
    connections: Mutex<HashMap<usize, Member>>,
}

struct Member {
    connection: Connection,
    max: u32,
    takes_transfers: bool,
}

/// A connection has its share while this lives.
#[derive(Debug)]
pub(super) struct Share<'a> {
    group: &'a Group,
    id: usize,
}

impl Windows {
    /// For a socket whose receive buffer has `buffer_bytes`.
    pub(super) fn of_buffer(buffer_bytes: usize) -> Windows {
        let group = || Group::new(buffer_bytes / BUFFER_PART);
        Windows {
            bulk: group(),
            others: group(),
        }
    }

    /// The connection was welcomed: its peer may send.
    pub(super) fn join(&self, connection: &Connection, purpose: Purpose) -> Share<'_> {
        let (group, max) = match purpose {
            Purpose::Bulk => (&self.bulk, BULK_WINDOW_BYTES),
            Purpose::Control => (&self.others, CONTROL_WINDOW_BYTES),
            Purpose::Heartbeat => (&self.others, HEARTBEAT_WINDOW_BYTES),
        };
        let is_bulk = purpose == Purpose::Bulk;
        if !is_bulk {
            // Answers that are not read are memory here.
            connection.set_send_window(2 * u64::from(max));
        }
        group.join(Member {
            connection: connection.clone(),
            max,
            takes_transfers: is_bulk && connection.side().is_server(),
        })
    }
}

impl Group {
    fn new(bytes: usize) -> Group {
        Group {
            bytes,
            connections: Mutex::default(),
        }
    }

    fn join(&self, member: Member) -> Share<'_> {
        let id = member.connection.stable_id();
        let mut connections = self.connections.lock();
        let before = self.share(connections.len());
        member.set(self.share(connections.len() + 1));
        connections.insert(id, member);
        self.adapt(&connections, before);
        Share { group: self, id }
    }

    /// A power of two, so that it seldom changes.
    fn share(&self, connections: usize) -> u32 {
        let share = self.bytes / connections.max(1);
        let share = share.max(WINDOW_BYTES_MIN as usize);
        1 << share.ilog2().min(u32::BITS - 2)
    }

    fn adapt(&self, connections: &HashMap<usize, Member>, before: u32) {
        let share = self.share(connections.len());
        if share != before {
            connections.values().for_each(|member| member.set(share));
        }
    }
}

impl Member {
    fn set(&self, share: u32) {
        let window = share.min(self.max);
        self.connection.set_receive_window(window.into());
        if self.takes_transfers {
            let transfers = transfers_beside_each_other(window);
            self.connection
                .set_max_concurrent_bi_streams(transfers.into());
        }
    }
}

fn transfers_beside_each_other(window: u32) -> u32 {
    (window / BULK_STREAM_WINDOW_BYTES).clamp(1, BULK_STREAMS_MAX)
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut connections = self.group.connections.lock();
        let before = self.group.share(connections.len());
        connections.remove(&self.id);
        self.group.adapt(&connections, before);
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_until_they_are_the_smallest() {
        for bytes in [100_000, 425_984, 8 << 20] {
            let group = Group::new(bytes);
            for connections in 1..1000 {
                let share = group.share(connections);
                let fits = share as usize * connections <= bytes;
                assert!(fits || share == WINDOW_BYTES_MIN, "{connections}: {share}");
            }
        }
        assert_eq!(
            transfers_beside_each_other(BULK_WINDOW_BYTES),
            BULK_STREAMS_MAX
        );
        assert_eq!(transfers_beside_each_other(WINDOW_BYTES_MIN), 1);
        let alone = |buffer_bytes| Windows::of_buffer(buffer_bytes).bulk.share(1);
        assert_eq!(alone(32 << 20), 8 << 20);
        assert_eq!(alone(425_984), 128 << 10);
    }
}
