//! What a server has seen since its start, in numbers that only grow.

use serde::{Deserialize, Serialize};

/// Of the door that peers come in by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetTotals {
    /// Connections that were welcomed.
    pub accepts: u64,
    /// Peers refused for their certificate, role, purpose or number.
    pub accepts_refused: u64,
    /// Peers that were asked to prove their address first.
    pub address_proofs: u64,
    pub requests: u64,
    /// Connections closed for a frame that makes no sense.
    pub frames_malformed: u64,
    /// Connections closed for a frame whose length exceeds its bound.
    pub frames_oversized: u64,
    /// Connections closed because a frame stayed half sent, or an answer unread.
    pub stalls: u64,
    /// Packets sent, and those of them lost, over the connections that have ended.
    pub packets_sent: u64,
    pub packets_lost: u64,
}

/// Of one operation of the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpTotals {
    pub name: String,
    pub count: u64,
    /// Of these, answered with a status.
    pub errors: u64,
    /// From arrival to answer, added up.
    pub time_us: u64,
}
