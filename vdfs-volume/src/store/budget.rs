//! The contract of a volume's RAM: what is accounted never exceeds the limit.
//!
//! Accounted are allocated pages, the kernel's and our own memory of each chunk, and all tables. A
//! part is set aside for buffers of requests in flight. Room is reserved before anything is
//! touched, so that a change that has begun never meets a full tmpfs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits;

/// There is no room for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoSpace;

#[derive(Debug)]
pub(super) struct Budget {
    /// What may be accounted, in bytes.
    limit: u64,
    low_below: u64,
    used: AtomicU64,
}

impl Budget {
    /// Of a contract of `bytes`; the part for buffers is taken off here.
    pub(super) fn new(bytes: u64) -> Self {
        let buffers = limits::buffers_bytes(bytes);
        let fraction = bytes / 20;
        let low_below = if bytes < limits::LOW_SPACE_BUDGET_BYTES {
            fraction
        } else {
            fraction.max(limits::LOW_SPACE_BYTES)
        };
        Budget {
            limit: bytes - buffers,
            low_below,
            used: AtomicU64::new(0),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Little room is left: writers should write through.
    pub(super) fn is_low(&self) -> bool {
        self.limit.saturating_sub(self.used()) < self.low_below
    }

    /// Takes `bytes`, to be given back unless the reservation is kept.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>, NoSpace> {
        let take = |used: u64| used.checked_add(bytes).filter(|total| *total <= self.limit);
        match self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(_) => Ok(Reservation {
                budget: self,
                bytes,
            }),
            Err(_) => Err(NoSpace),
        }
    }

    /// Accounts what is already there, whatever the limit.
    pub(super) fn charge(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "released {bytes} of {before} bytes");
    }
}

/// Room that is taken while it lives.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Reservation<'_> {
    /// The room is used now: whoever holds it releases it.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_reserve_stops_at_the_limit_and_drop_gives_back() {
        let budget = Budget::new(64 << 20);
        let all = budget.reserve(budget.limit()).expect("empty");
        assert_eq!(budget.reserve(1).err(), Some(NoSpace));
        drop(all);
        budget.reserve(budget.limit()).expect("given back").keep();
        assert_eq!(budget.used(), budget.limit());
        budget.release(1);
        assert!(budget.reserve(1).is_ok());
        assert!(budget.reserve(u64::MAX).is_err(), "no overflow");
    }

    #[test]
    fn budget_is_low_below_5_percent_when_small_and_256_mib_when_large() {
        for (bytes, low_below) in [(100 << 20, 5 << 20), (2 << 30, 256 << 20)] {
            let budget = Budget::new(bytes);
            budget.charge(budget.limit() - low_below);
            assert!(!budget.is_low(), "{bytes}");
            budget.charge(1);
            assert!(budget.is_low(), "{bytes}");
        }
    }
}
