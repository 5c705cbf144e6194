//! What `stat(2)` shows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::ids::Ino;

/// Seconds and nanoseconds since 1970; seconds may be negative, nanoseconds count up from them
/// (as `struct timespec`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp {
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    pub fn from_system(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp {
                secs: after.as_secs() as i64,
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let borrow = i64::from(before.subsec_nanos() > 0);
                Timestamp {
                    secs: -(before.as_secs() as i64) - borrow,
                    nanos: (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000,
                }
            }
        }
    }

    pub fn to_system(self) -> SystemTime {
        let nanos = Duration::from_nanos(u64::from(self.nanos));
        match u64::try_from(self.secs) {
            Ok(secs) => UNIX_EPOCH + Duration::from_secs(secs) + nanos,
            Err(_) => UNIX_EPOCH - Duration::from_secs(self.secs.unsigned_abs()) + nanos,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// The attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileKind,
    /// The low 12 bits of `st_mode`: suid, sgid, sticky, rwxrwxrwx.
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Bytes of a regular file, of a symlink's target; entries of a directory.
    pub size: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// It has an access ACL that says more than its mode.
    pub has_acl: bool,
    /// Goes up with every change of the inode's bytes (commit, truncation), and of nothing else: a
    /// cache of its pages is good while this is unchanged.
    pub data_version: u64,
    /// Some of the bytes of a regular file may have no room under them: `Layout::holes`.
    pub has_holes: bool,
}

impl Attr {
    /// A read now moves the access time (`relatime`, mount(8)): nothing was read since the last
    /// change, or for a day.
    pub fn is_access_due(&self, now: Timestamp) -> bool {
        let a_day_on = Timestamp {
            secs: self.atime.secs.saturating_add(ACCESS_SECS),
            ..self.atime
        };
        self.atime <= self.mtime || self.atime <= self.ctime || a_day_on <= now
    }
}

/// How long an access time stays without a change of the inode.
const ACCESS_SECS: i64 = 24 * 3600;

/// What a write or a chown by an ordinary user leaves of the mode of anything but a directory: no
/// suid, and no sgid where the group may execute (write(2), chown(2)).
pub fn without_privileges(mode: u16) -> u16 {
    const SUID: u16 = 0o4000;
    const SGID: u16 = 0o2000;
    const GROUP_EXECUTE: u16 = 0o010;
    let sgid = if mode & GROUP_EXECUTE != 0 { SGID } else { 0 };
    mode & !(SUID | sgid)
}

/// One time of a `setattr`: `UTIME_NOW` is resolved by the master, whose clock goes into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    Now,
    At(Timestamp),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_privileges_keeps_sgid_where_the_group_may_not_execute() {
        assert_eq!(without_privileges(0o6777), 0o777);
        assert_eq!(without_privileges(0o6767), 0o2767);
        assert_eq!(without_privileges(0o1755), 0o1755);
    }

    proptest! {
        #[test]
        fn timestamp_round_trips_through_system_time(
            secs in -10_000_000_000i64..10_000_000_000,
            nanos in 0u32..1_000_000_000,
        ) {
            let time = Timestamp { secs, nanos };
            prop_assert_eq!(Timestamp::from_system(time.to_system()), time);
        }
    }
}
