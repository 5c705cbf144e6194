//! Attributes and times as the kernel wants them.

use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use vdfs_proto::attr::SetTime;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::{Attr, FileKind, Ino, Timestamp};

/// `st_blksize`, the size in which buffered programs read and write. Large enough that a copy
/// costs four calls a MiB, small enough that a program that seeks and reads a line through a
/// buffer of this size (Python) does not fetch a MiB each time.
const BLKSIZE: u32 = 256 << 10;
/// Unit of `st_blocks`.
const SECTOR_BYTES: u64 = 512;

/// Attributes, with the room that the file takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) attr: Attr,
    pub(crate) allocated_bytes: u64,
}

impl Stat {
    pub(crate) fn file_attr(&self) -> FileAttr {
        FileAttr {
            blocks: self.allocated_bytes / SECTOR_BYTES,
            ..file_attr(&self.attr)
        }
    }
}

/// Attributes without a look at the volumes: as if the file had no holes.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    let allocated_bytes = match attr.kind {
        FileKind::Regular => attr.size.next_multiple_of(u64::from(BLOCK_BYTES)),
        _ => 0,
    };
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: allocated_bytes / SECTOR_BYTES,
        atime: attr.atime.to_system(),
        mtime: attr.mtime.to_system(),
        ctime: attr.ctime.to_system(),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLKSIZE,
        flags: 0,
    }
}

/// What a listing with attributes says of `.` and `..`: the kernel takes only number and type.
pub(crate) fn dot_attr(ino: Ino) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLKSIZE,
        flags: 0,
    }
}

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

/// The kernel's seconds and nanoseconds, out of what fuser 0.18 has made of them. Before 1970 it
/// subtracts the nanoseconds, which count up, from the epoch together with the seconds; what the
/// kernel sent is exactly what was subtracted.
fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => Timestamp::from_system(time),
        Err(before) => {
            let subtracted = before.duration();
            Timestamp {
                secs: 0i64.wrapping_sub_unsigned(subtracted.as_secs()),
                nanos: subtracted.subsec_nanos(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What fuser 0.18 does (`time.rs`, `system_time_from_time`).
    fn as_fuser_decodes(secs: i64, nanos: u32) -> SystemTime {
        if secs >= 0 {
            UNIX_EPOCH + Duration::new(secs as u64, nanos)
        } else {
            UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos)
        }
    }

    #[test]
    fn timestamp_before_1970_keeps_seconds_and_nanoseconds() {
        for (secs, nanos) in [
            (-2, 800_000_000),
            (-1, 1),
            (-1, 0),
            (0, 5),
            (7, 999_999_999),
        ] {
            let time = timestamp(as_fuser_decodes(secs, nanos));
            assert_eq!(time, Timestamp { secs, nanos });
        }
    }

    #[test]
    fn file_attr_counts_whole_blocks_in_units_of_512_bytes() {
        let attr = Attr {
            ino: Ino(5),
            kind: FileKind::Regular,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 513,
            atime: Timestamp::default(),
            mtime: Timestamp { secs: -2, nanos: 1 },
            ctime: Timestamp::default(),
            has_acl: false,
            data_version: 0,
            has_holes: false,
        };
        let shown = file_attr(&attr);
        assert_eq!((shown.blocks, shown.size), (8, 513));
        assert_eq!(
            shown.mtime,
            UNIX_EPOCH - Duration::from_secs(2) + Duration::from_nanos(1)
        );
    }
}
