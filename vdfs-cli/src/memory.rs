//! How much memory this process may use: the machine's, or less under a memory cgroup.

use std::path::{Path, PathBuf};

use crate::failure::{Blame, Failure};

/// Bytes that can be taken without swapping, as the kernel estimates it (`MemAvailable`, proc(5)),
/// or what the tightest cgroup above this process leaves, whichever is less.
pub(crate) fn available_bytes() -> Result<u64, Failure> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").blame("/proc/meminfo")?;
    let machine = meminfo_bytes(&meminfo, "MemAvailable:")
        .ok_or_else(|| Failure::new("/proc/meminfo", "has no MemAvailable"))?;
    Ok(machine.min(cgroup_room_bytes().unwrap_or(u64::MAX)))
}

fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The least room under a `memory.max` between this process and the root; `None` if there is no
/// limit.
fn cgroup_room_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    let above = own.ancestors().take_while(|group| group.starts_with(root));
    above.filter_map(|group| room_in(group.to_path_buf())).min()
}

fn room_in(group: PathBuf) -> Option<u64> {
    let read = |name| {
        std::fs::read_to_string(group.join(name))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    Some(read("memory.max")?.saturating_sub(read("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kibibytes() {
        let meminfo = "MemTotal:       24683520 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable:"), Some(1 << 20));
        assert_eq!(meminfo_bytes(meminfo, "MemFree:"), None);
    }
}
