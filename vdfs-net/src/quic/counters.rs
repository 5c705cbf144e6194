//! What an endpoint has seen, in numbers that only grow.

use std::sync::atomic::{AtomicU64, Ordering};

use vdfs_proto::NetTotals;

/// Read with [`Counter::get`]; one for each endpoint.
#[derive(Debug, Default)]
pub struct NetCounters {
    /// Connections that were dialled and welcomed.
    pub dials: Counter,
    /// Dials that did not get so far.
    pub dials_failed: Counter,
    /// Connections that were accepted and welcomed.
    pub accepts: Counter,
    /// Peers refused in the TLS handshake, by their hello, or for want of room.
    pub accepts_refused: Counter,
    /// Peers that were asked to prove their address first.
    pub address_proofs: Counter,
    /// Requests handed to the service.
    pub requests: Counter,
    /// Connections closed for a frame that makes no sense.
    pub frames_malformed: Counter,
    /// Connections closed for a frame whose length exceeds its bound.
    pub frames_oversized: Counter,
    /// Connections closed because a frame stayed half sent, or a reply unread.
    pub stalls: Counter,
    /// Packets sent, and those of them lost, over the connections that have ended.
    pub packets_sent: Counter,
    pub packets_lost: Counter,
}

impl NetCounters {
    pub fn totals(&self) -> NetTotals {
        NetTotals {
            accepts: self.accepts.get(),
            accepts_refused: self.accepts_refused.get(),
            address_proofs: self.address_proofs.get(),
            requests: self.requests.get(),
            frames_malformed: self.frames_malformed.get(),
            frames_oversized: self.frames_oversized.get(),
            stalls: self.stalls.get(),
            packets_sent: self.packets_sent.get(),
            packets_lost: self.packets_lost.get(),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
