//! How much RAM this process may take: the machine's, or less under a memory cgroup.

use std::io;
use std::path::{Path, PathBuf};

/// Bytes that can be taken without swapping, as the kernel estimates it (`MemAvailable`, proc(5)),
/// or what the tightest cgroup above this process leaves, whichever is less.
pub fn available_bytes() -> io::Result<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let machine = meminfo_bytes(&meminfo, "MemAvailable:")
        .ok_or_else(|| io::Error::other("it has no MemAvailable"))?;
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

/// What may still be charged to the group, page cache that can be dropped included.
fn room_in(group: PathBuf) -> Option<u64> {
    let read = |name| std::fs::read_to_string(group.join(name)).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    let droppable = droppable_bytes(&read("memory.stat")?);
    Some(max.saturating_sub(current.saturating_sub(droppable)))
}

/// Pages of files on disks, from `memory.stat` (cgroup v2); those of a tmpfs are not among them.
fn droppable_bytes(stat: &str) -> u64 {
    let value = |key: &str| -> Option<u64> {
        let line = stat.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse().ok()
    };
    value("active_file ").unwrap_or(0) + value("inactive_file ").unwrap_or(0)
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

    #[test]
    fn droppable_bytes_are_pages_of_files_only() {
        let stat = "anon 5\nfile 100\nshmem 60\ninactive_file 30\nactive_file 10\n";
        assert_eq!(droppable_bytes(stat), 40);
    }
}
