//! The volume's own lease: the master may give its work to others once it has run out.
//!
//! Counted by CLOCK_BOOTTIME, which goes on while the machine sleeps, from the moment a heartbeat
//! was sent. Client writes need it, so that a fence the master could not deliver holds, and reads of
//! chains of several members, which others may change; reads of a chain of one member do not.

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    until_ms: u64,
}

impl Lease {
    /// A heartbeat sent at `sent_ms` was acknowledged.
    pub(super) fn extend(&mut self, sent_ms: u64, lease_ms: u64) {
        self.until_ms = self.until_ms.max(sent_ms.saturating_add(lease_ms));
    }

    pub(super) fn holds(self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_holds_until_its_end_and_never_shrinks() {
        let mut lease = Lease::default();
        assert!(!lease.holds(0));
        lease.extend(1000, 500);
        lease.extend(900, 500);
        assert!(lease.holds(1499) && !lease.holds(1500));
    }
}
