//! Who uses a mount, from `/proc`, without asking the mount itself anything: it may not answer.
//!
//! A process in execve(2) that closes a file on a mount which does not answer can hold up whoever
//! looks at it. So a thread of its own looks, and is left behind when the time is over.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::HOLDERS_MAX;
use crate::mount::mountinfo::MountEntry;

/// A process that keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// At most [`HOLDERS_MAX`] processes with a directory, an open file or a mapping on the mount: those
/// found within `max`.
pub(super) fn of_mount(entry: &MountEntry, max: Duration) -> Vec<Holder> {
    let (found, holders) = channel();
    let entry = entry.clone();
    let look = move || {
        for holder in all(&entry).take(HOLDERS_MAX) {
            if found.send(holder).is_err() {
                return;
            }
        }
    };
    match thread::Builder::new()
        .name("vdfs-holders".into())
        .spawn(look)
    {
        Ok(_left_behind) => until(Instant::now() + max, &holders),
        Err(_) => Vec::new(),
    }
}

fn until(deadline: Instant, holders: &Receiver<Holder>) -> Vec<Holder> {
    let next = || {
        let left = deadline.saturating_duration_since(Instant::now());
        holders.recv_timeout(left).ok()
    };
    std::iter::from_fn(next).collect()
}

fn all(entry: &MountEntry) -> impl Iterator<Item = Holder> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| holds(pid, entry)).map(holder)
}

fn holder(pid: u32) -> Holder {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Holder {
        pid,
        name: name.trim_end().to_owned(),
    }
}

fn holds(pid: u32, entry: &MountEntry) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    stands_on(&process, &entry.mountpoint)
        || has_open(&process, entry.mount_id)
        || has_mapped(&process, &entry.device)
}

fn stands_on(process: &Path, mountpoint: &Path) -> bool {
    let links = ["cwd", "root", "exe"].into_iter();
    links
        .flat_map(|link| fs::read_link(process.join(link)))
        .any(|to| to.starts_with(mountpoint))
}

fn has_open(process: &Path, mount_id: u64) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fdinfo")) else {
        return false;
    };
    let infos = descriptors
        .flatten()
        .flat_map(|info| fs::read_to_string(info.path()));
    infos
        .into_iter()
        .any(|info| mount_id_of(&info) == Some(mount_id))
}

/// `pos:\t0\nflags:\t02\nmnt_id:\t29\nino:\t1\n`
fn mount_id_of(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

fn has_mapped(process: &Path, device: &str) -> bool {
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    maps.lines()
        .any(|line| mapped_device(line).as_deref() == Some(device))
}

/// `7f5c0000-7f5c1000 r--p 00000000 00:2f 1055 /mnt/f`: device numbers are hexadecimal here.
fn mapped_device(line: &str) -> Option<String> {
    let (major, minor) = line.split_whitespace().nth(3)?.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(format!("{}:{}", number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_gives_what_came_in_time() {
        let (found, holders) = channel();
        let name = "sleep".to_owned();
        let holder = Holder { pid: 1, name };
        found.send(holder.clone()).expect("open");
        let deadline = Instant::now() + Duration::from_millis(10);
        assert_eq!(
            until(deadline, &holders),
            [holder],
            "though the search goes on"
        );
    }

    #[test]
    fn mount_id_of_fdinfo_is_read() {
        assert_eq!(
            mount_id_of("pos:\t0\nflags:\t02\nmnt_id:\t29\nino:\t1\n"),
            Some(29)
        );
        assert_eq!(mount_id_of("pos:\t0\n"), None);
    }

    #[test]
    fn mapped_device_is_hexadecimal() {
        let line = "7f5c0000-7f5c1000 r--p 00000000 00:2f 1055                   /mnt/f";
        assert_eq!(mapped_device(line).as_deref(), Some("0:47"));
        assert_eq!(mapped_device(""), None);
    }
}
