//! What every suite stands on: real programs, each with its own state directory, ports and
//! mountpoint, and a guard that leaves nothing behind.
//!
//! Tests wait on conditions with deadlines ([`deadline`]), never for a fixed time.

pub mod cgroup;
pub mod deadline;
pub mod fsx2;
pub mod pattern;
pub mod programs;
pub mod second_mount;
pub mod sys;
pub mod torture;
pub mod up;

pub use deadline::{eventually, within};
pub use second_mount::SecondMount;
pub use up::{Up, UpOptions};

/// True if mount tests are skipped on purpose. A run that cannot mount fails otherwise.
pub fn mount_tests_skipped() -> bool {
    let skipped = std::env::var_os("VDFS_SKIP_MOUNT_TESTS").is_some_and(|value| value == "1");
    if skipped {
        eprintln!("skipped: VDFS_SKIP_MOUNT_TESTS=1");
    }
    skipped
}
