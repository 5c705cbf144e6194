//! The volume's own lease: the master may give its work to others once it has run out.
//!
//! Counted by CLOCK_BOOTTIME, which goes on while the machine sleeps, from the moment a heartbeat
//! was sent. Client writes need it, so that a fence the master could not deliver holds; reads of a
//! chain of one member do not.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Lease {
    until_ms: AtomicU64,
}

impl Lease {
    /// A heartbeat sent at `sent_ms` was acknowledged.
    pub fn extend(&self, sent_ms: u64, lease_ms: u64) {
        self.until_ms
            .fetch_max(sent_ms.saturating_add(lease_ms), Ordering::Relaxed);
    }

    pub fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_holds_until_its_end_and_never_shrinks() {
        let lease = Lease::default();
        assert!(!lease.holds(0));
        lease.extend(1000, 500);
        lease.extend(900, 500);
        assert!(lease.holds(1499) && !lease.holds(1500));
    }
}
