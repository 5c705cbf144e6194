//! Time: leases run on the clock that goes on while a machine sleeps.

use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};
use vdfs_proto::Timestamp;

/// `CLOCK_BOOTTIME` in milliseconds.
pub(crate) fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// What a `write(2)` sets mtime to.
pub(crate) fn wall() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
