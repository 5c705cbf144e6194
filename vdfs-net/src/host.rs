//! What tells one host from another.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// The host a process runs on. Two processes are on the same host if boot id **and** network
/// namespace are equal: only then can descriptors pass between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `/proc/sys/kernel/random/boot_id`: changes with every boot.
    pub boot_id: String,
    /// The inode of the process's network namespace.
    pub net_namespace: u64,
    /// The host name, for people.
    pub name: String,
}

impl Host {
    /// Reads what the kernel says; an error means that `/proc` is not there.
    pub fn here() -> io::Result<Host> {
        Ok(Host {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            net_namespace: fs::metadata("/proc/self/ns/net")?.ino(),
            name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        })
    }

    /// Whether a peer that gave `boot_id` and `net_namespace` is on this host.
    pub fn is_same(&self, boot_id: &str, net_namespace: u64) -> bool {
        self.boot_id == boot_id && self.net_namespace == net_namespace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_here_knows_itself_and_no_other() {
        let here = Host::here().expect("/proc is mounted");
        assert_eq!(here.boot_id.len(), 36, "a UUID");
        assert!(here.is_same(&here.boot_id, here.net_namespace));
        assert!(!here.is_same(&here.boot_id, here.net_namespace + 1));
        assert!(!here.is_same("another boot", here.net_namespace));
    }
}
