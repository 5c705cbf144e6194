//! What must agree of an inode.

use std::collections::BTreeMap;

use rustix::fs::{FileType, Stat};

/// Times before this were set on purpose, and agree to the nanosecond.
const SET_BEFORE_SECS: i64 = 1_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// With the type.
    mode: u32,
    nlink: u64,
    owners: (u32, u32),
    rdev: u64,
    /// Of anything but a directory.
    size: Option<i64>,
    mtime: Time,
    ctime: Time,
    /// Of what is no symlink, when it has just been set: reads move it, and opens may.
    pub(super) atime: Option<Moment>,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
    pub(super) target: Option<Vec<u8>>,
}

/// What a time says against the last time that the inode was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Set(i64, i64),
    New,
    Same,
    Later,
    Earlier,
}

/// Seconds and nanoseconds.
pub(super) type Moment = (i64, i64);

/// Times of inodes as they were looked at last: (`mtime`, `ctime`).
#[derive(Debug, Default)]
pub(super) struct Seen {
    times: BTreeMap<u64, (Moment, Moment)>,
}

impl Seen {
    pub(super) fn look(&mut self, stat: &Stat) -> Look {
        let mtime = (stat.st_mtime, stat.st_mtime_nsec as i64);
        let ctime = (stat.st_ctime, stat.st_ctime_nsec as i64);
        let before = self.times.insert(stat.st_ino, (mtime, ctime));
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Look {
            mode: comparable(stat.st_mode),
            nlink: stat.st_nlink,
            owners: (stat.st_uid, stat.st_gid),
            rdev: stat.st_rdev,
            size: (!is_directory).then_some(stat.st_size),
            mtime: compared(before.map(|before| before.0), mtime),
            ctime: compared(before.map(|before| before.1), ctime),
            atime: None,
            xattrs: Vec::new(),
            target: None,
        }
    }
}

fn comparable(mode: u32) -> u32 {
    let is_file = FileType::from_raw_mode(mode) == FileType::RegularFile;
    match is_file && mode & 0o010 == 0 {
        true => mode & !0o2000,
        false => mode,
    }
}

/// The access time, if it was set on purpose.
pub(super) fn set_atime(stat: &Stat) -> Option<Moment> {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let is_set = stat.st_atime < SET_BEFORE_SECS;
    (is_set && !is_link).then_some((stat.st_atime, stat.st_atime_nsec as i64))
}

fn compared(before: Option<Moment>, now: Moment) -> Time {
    if now.0 < SET_BEFORE_SECS {
        return Time::Set(now.0, now.1);
    }
    match before.map(|before| now.cmp(&before)) {
        None => Time::New,
        Some(std::cmp::Ordering::Equal) => Time::Same,
        Some(std::cmp::Ordering::Greater) => Time::Later,
        Some(std::cmp::Ordering::Less) => Time::Earlier,
    }
}
