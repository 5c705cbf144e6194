//! The clock that leases go by.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine booted, time asleep included (`CLOCK_BOOTTIME`): it never jumps
/// back and a suspended machine finds its leases over.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("time since boot is not negative");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1000 + nanoseconds / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ms_read_twice_does_not_go_back() {
        let first = boot_ms();
        assert!(first > 0);
        assert!(boot_ms() >= first);
    }
}
