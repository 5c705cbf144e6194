//! What a mount can be told only through sysfs, by root.

use std::fs;

use tracing::warn;

use crate::limits::READ_AHEAD_KIB;

/// The kernel starts with 128 KiB of read-ahead, and the handshake can only lower it.
pub(super) fn tune(device: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = fs::write(&path, READ_AHEAD_KIB.to_string()) {
        warn!(path, %error, "read-ahead stays at the kernel's default");
    }
}
