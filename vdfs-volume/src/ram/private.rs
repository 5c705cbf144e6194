//! A tmpfs of its own, mounted by root.
//!
//! `huge=never`: with larger pages a few sparse writes would take megabytes, and the budget would
//! be wrong. `noswap` where the kernel knows it (Linux 6.4): what is promised as RAM stays RAM.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{StatVfs, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::{RamError, available, make_directory};

/// What /proc/mounts shows; how a tmpfs of ours is known.
const SOURCE: &str = "vdfs-ram";
/// Inodes of the directories and tables, with room to spare.
const INODES_MIN: u64 = 1024;
/// Memory of the smallest chunk: more files than this allows do not fit the budget.
const CHUNK_BYTES_MIN: u64 = 1024;
const PAGE_BYTES: u64 = 4096;

pub(super) fn open(path: &Path, size_bytes: u64) -> Result<(), RamError> {
    match Present::at(path)? {
        Present::Nothing => {
            available::check(size_bytes, 0)?;
            make_directory(path)?;
            mount_new(path, size_bytes)
        }
        Present::Ours { no_swap } => remount(path, size_bytes, no_swap),
        Present::Foreign => Err(RamError::Foreign {
            path: path.to_owned(),
        }),
    }
}

pub(super) fn destroy(path: &Path) -> Result<(), RamError> {
    match Present::at(path)? {
        Present::Nothing => {}
        Present::Ours { .. } => {
            unmount(path, UnmountFlags::DETACH)
                .map_err(|error| RamError::io("unmount", path, error))?;
        }
        Present::Foreign => {
            return Err(RamError::Foreign {
                path: path.to_owned(),
            });
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RamError::io("remove the directory", path, error))
        }
        _ => Ok(()),
    }
}

/// True if a tmpfs of ours is mounted at `path`.
pub(super) fn is_mounted(path: &Path) -> Result<bool, RamError> {
    Ok(matches!(Present::at(path)?, Present::Ours { .. }))
}

fn options(size_bytes: u64, no_swap: bool) -> CString {
    let size = size_bytes.next_multiple_of(PAGE_BYTES);
    let inodes = size_bytes / CHUNK_BYTES_MIN + INODES_MIN;
    let swap = if no_swap { ",noswap" } else { "" };
    let text = format!("size={size},nr_inodes={inodes},huge=never,mode=0700{swap}");
    CString::new(text).expect("no NUL in it")
}

fn mount_new(path: &Path, size_bytes: u64) -> Result<(), RamError> {
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let try_mount = |no_swap| {
        let options = options(size_bytes, no_swap);
        mount(SOURCE, path, "tmpfs", flags, options.as_c_str())
    };
    let mounted = match try_mount(true) {
        Err(Errno::INVAL) => try_mount(false),
        other => other,
    };
    mounted.map_err(|error| RamError::io("mount a tmpfs", path, error))
}

/// Gives a tmpfs of an earlier process the new size.
fn remount(path: &Path, size_bytes: u64, no_swap: bool) -> Result<(), RamError> {
    let used = used_bytes(path)?;
    available::check(size_bytes, used)?;
    if used > size_bytes {
        return Err(RamError::TooSmall {
            path: path.to_owned(),
            asked: size_bytes,
            used,
        });
    }
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = options(size_bytes, no_swap);
    mount_remount(path, flags, options.as_c_str())
        .map_err(|error| RamError::io("resize the tmpfs", path, error))
}

fn used_bytes(path: &Path) -> Result<u64, RamError> {
    let stat: StatVfs = statvfs(path).map_err(|error| RamError::io("stat", path, error))?;
    Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
}

/// What is mounted at a path.
#[derive(Debug, PartialEq, Eq)]
enum Present {
    Nothing,
    Ours { no_swap: bool },
    Foreign,
}

impl Present {
    fn at(path: &Path) -> Result<Self, RamError> {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Nothing),
            Err(error) => return Err(RamError::io("resolve", path, error)),
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| RamError::io("read the mounts for", path, error))?;
        Ok(Present::parse(&mounts, &real))
    }

    /// Reads mountinfo (proc(5)); the last mount at a path is the one on top.
    fn parse(mounts: &str, path: &Path) -> Self {
        let at_path = |line: &&str| {
            let point = line.split(' ').nth(4);
            point.is_some_and(|point| unescape(point) == path.as_os_str().as_encoded_bytes())
        };
        match mounts.lines().rfind(at_path) {
            None => Present::Nothing,
            Some(line) => Present::of_line(line),
        }
    }

    fn of_line(line: &str) -> Self {
        let details = line.split_once(" - ").map_or("", |(_, details)| details);
        let mut fields = details.split(' ');
        let is_ours = fields.next() == Some("tmpfs") && fields.next() == Some(SOURCE);
        if !is_ours {
            return Present::Foreign;
        }
        let no_swap = fields.next().is_some_and(|options| {
            let mut options = options.split(',');
            options.any(|option| option == "noswap")
        });
        Present::Ours { no_swap }
    }
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:20 / / rw - ext4 /dev/vda rw
30 22 0:31 / /a rw,nosuid - tmpfs vdfs-ram rw,size=4096k,noswap
31 22 0:32 / /b rw shared:1 - tmpfs vdfs-ram rw,size=4096k
32 22 0:33 / /c\\040d rw - tmpfs tmpfs rw
33 30 0:34 / /b rw - ext4 /dev/vdb rw
";

    #[test]
    fn private_present_is_read_from_the_topmost_mount() {
        let cases = [
            ("/a", Present::Ours { no_swap: true }),
            ("/b", Present::Foreign),
            ("/c d", Present::Foreign),
            ("/c", Present::Nothing),
        ];
        for (path, present) in cases {
            assert_eq!(Present::parse(MOUNTS, Path::new(path)), present, "{path}");
        }
        let without_last = MOUNTS.rsplit_once("33 ").expect("it is there").0;
        let ours = Present::Ours { no_swap: false };
        assert_eq!(Present::parse(without_last, Path::new("/b")), ours);
    }
}
