//! `/proc/self/mountinfo` (proc(5)), which asks no filesystem anything.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    pub mount_id: u64,
    /// `MAJOR:MINOR`, as under `/sys/class/bdi`.
    pub device: String,
    pub mountpoint: PathBuf,
    /// Options of the mount: `rw,nosuid,noatime`.
    pub flags: String,
    pub fs_type: String,
    pub source: String,
}

/// The mount that `path` (absolute, links resolved) lies on. An error means that `/proc` is not
/// there.
pub fn mount_of(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(deepest(&fs::read("/proc/self/mountinfo")?, path))
}

/// The mount whose root is `dir`; the one on top if there are several. `dir` has no links in it.
pub(crate) fn entry_at(dir: &Path) -> Option<MountEntry> {
    topmost(&fs::read("/proc/self/mountinfo").ok()?, dir)
}

/// A device number as [`MountEntry::device`] gives it.
pub(crate) fn device_name(device: u64) -> String {
    format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    )
}

fn topmost(mountinfo: &[u8], dir: &Path) -> Option<MountEntry> {
    entries(mountinfo)
        .rev()
        .find(|entry| entry.mountpoint == dir)
}

/// Of several mounts at one place the last one is on top.
fn deepest(mountinfo: &[u8], path: &Path) -> Option<MountEntry> {
    entries(mountinfo)
        .filter(|entry| path.starts_with(&entry.mountpoint))
        .max_by_key(|entry| entry.mountpoint.components().count())
}

fn entries(mountinfo: &[u8]) -> impl DoubleEndedIterator<Item = MountEntry> {
    let lines = mountinfo.split(|&byte| byte == b'\n');
    lines.filter_map(parse_line)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|&byte| byte == b' ');
    let mount_id = text(fields.next()?).parse().ok()?;
    let device = text(fields.nth(1)?);
    let mountpoint = unescape(fields.nth(1)?);
    let flags = text(fields.next()?);
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    Some(MountEntry {
        mount_id,
        device,
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        flags,
        fs_type: text(behind.next()?),
        source: text(&unescape(behind.next()?)),
    })
}

/// Space, tab, newline and backslash stand as `\040` and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match octal(rest) {
            Some(byte) => {
                plain.push(byte);
                rest = &rest[4..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

fn octal(text: &[u8]) -> Option<u8> {
    match text {
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:50 / /mnt/a\\040b rw,noatime shared:2 master:3 - fuse.vdfs 127.0.0.1:7400 rw
91 22 0:51 / /mnt rw - tmpfs none rw
92 22 0:52 / /mnt rw - fuse over rw
";

    #[test]
    fn topmost_takes_the_last_mount_at_the_very_place() {
        let entry = topmost(MOUNTINFO, Path::new("/mnt")).expect("mounted");
        assert_eq!((entry.mount_id, &*entry.source), (92, "over"));
        assert!(topmost(MOUNTINFO, Path::new("/mnt/a")).is_none());
    }

    #[test]
    fn deepest_takes_the_mount_on_top_above_the_path() {
        let entry = deepest(MOUNTINFO, Path::new("/mnt/a b/c")).expect("mounted");
        assert_eq!(entry.mountpoint, Path::new("/mnt/a b"));
        let beside = deepest(MOUNTINFO, Path::new("/mntx")).expect("mounted");
        assert_eq!(beside.fs_type, "ext4");
        let below = deepest(MOUNTINFO, Path::new("/mnt/x")).expect("mounted");
        assert_eq!(below.source, "over");
    }

    #[test]
    fn parse_line_reads_escapes_and_optional_fields() {
        let entry = topmost(MOUNTINFO, Path::new("/mnt/a b")).expect("mounted");
        assert_eq!((&*entry.device, &*entry.flags), ("0:50", "rw,noatime"));
        assert_eq!(
            (&*entry.fs_type, &*entry.source),
            ("fuse.vdfs", "127.0.0.1:7400")
        );
        assert!(parse_line(b"").is_none());
    }

    #[test]
    fn device_name_is_as_mountinfo_has_it() {
        assert_eq!(device_name(rustix::fs::makedev(0, 50)), "0:50");
    }
}
