//! What every suite stands on: real programs, each with its own state directory, ports and
//! mountpoint, and guards that leave nothing behind.
//!
//! A suite that holds for every filesystem takes a [`Way`] and runs on each
//! ([`on_up_and_on_a_cluster`]). Tests wait on conditions with deadlines ([`deadline`]), never for a
//! fixed time.

pub mod cgroup;
pub mod chunk_files;
pub mod cluster;
pub mod deadline;
pub mod differential;
pub mod filesystem;
pub mod filling;
pub mod fsx2;
pub mod hosts;
pub mod journal;
pub mod linear;
pub mod load;
pub mod lock_torture;
pub mod locker;
pub mod lone_master;
pub mod mount;
pub mod part;
pub mod pattern;
pub mod programs;
pub mod replicated;
pub mod scratch;
pub mod sys;
pub mod torture;
pub mod under_change;
pub mod up;
pub mod workload;

pub use cluster::{Cluster, Network};
pub use deadline::{eventually, within};
pub use filesystem::{Filesystem, Options, Way};
pub use mount::Mount;
pub use replicated::Replicated;
pub use up::Up;

/// True if mount tests are skipped on purpose. A run that cannot mount fails otherwise.
pub fn mount_tests_skipped() -> bool {
    let skipped = std::env::var_os("VDFS_SKIP_MOUNT_TESTS").is_some_and(|value| value == "1");
    if skipped {
        eprintln!("skipped: VDFS_SKIP_MOUNT_TESTS=1");
    }
    skipped
}
