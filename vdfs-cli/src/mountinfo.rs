//! What is mounted where, from `/proc/self/mountinfo` (proc(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    pub(crate) mountpoint: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) source: String,
}

/// The mount that `path` (absolute, links resolved) lies on.
pub(crate) fn mount_of(path: &Path) -> std::io::Result<Option<MountEntry>> {
    let mountinfo = std::fs::read("/proc/self/mountinfo")?;
    Ok(deepest(&mountinfo, path))
}

fn deepest(mountinfo: &[u8], path: &Path) -> Option<MountEntry> {
    let mut found: Option<MountEntry> = None;
    for entry in mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
    {
        let depth = |entry: &MountEntry| entry.mountpoint.components().count();
        // Of several mounts at one place the last one is on top.
        let deeper = found
            .as_ref()
            .is_none_or(|found| depth(&entry) >= depth(found));
        if path.starts_with(&entry.mountpoint) && deeper {
            found = Some(entry);
        }
    }
    found
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mountpoint = unescape(fields.nth(4)?);
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(MountEntry {
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        fs_type: text(behind.next()?),
        source: text(&unescape(behind.next()?)),
    })
}

/// Space, tab, newline and backslash stand as `\040` and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        let (value, taken) = octal(rest).map_or((*byte, 1), |value| (value, 4));
        plain.push(value);
        rest = if taken == 4 { &rest[4..] } else { tail };
    }
    plain
}

fn octal(text: &[u8]) -> Option<u8> {
    let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] = text else {
        return None;
    };
    Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
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
    fn deepest_mount_above_the_path_is_its_mount() {
        let entry = deepest(MOUNTINFO, Path::new("/mnt/a b/c")).expect("mounted");
        assert_eq!(entry.mountpoint, Path::new("/mnt/a b"));
        assert_eq!(
            (&*entry.fs_type, &*entry.source),
            ("fuse.vdfs", "127.0.0.1:7400")
        );
        let root = deepest(MOUNTINFO, Path::new("/mntx")).expect("mounted");
        assert_eq!(root.fs_type, "ext4");
    }

    #[test]
    fn last_of_several_mounts_at_one_place_counts() {
        let entry = deepest(MOUNTINFO, Path::new("/mnt/x")).expect("mounted");
        assert_eq!(entry.source, "over");
    }
}
