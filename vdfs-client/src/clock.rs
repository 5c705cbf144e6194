//! The wall clock, as files show it. Leases run on `vdfs_net::clock`.

use std::time::SystemTime;

use vdfs_proto::Timestamp;

/// What a `write(2)` sets mtime to.
pub(crate) fn wall() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
