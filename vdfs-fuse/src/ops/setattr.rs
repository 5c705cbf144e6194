//! SETATTR: `chmod(2)`, `chown(2)`, `truncate(2)`, `utimensat(2)`.

use fuser::{INodeNo, ReplyAttr, Request, TimeOrNow};
use vdfs_client::AttrChanges;
use vdfs_proto::Ino;

use crate::door::Door;
use crate::ops::MODE_BITS;
use crate::stat::set_time;

/// What the kernel asks to be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

impl Wanted {
    /// A change of owner takes suid and sgid away from whoever makes it, a truncation only from
    /// callers without privilege. The kernel says so in a flag (`FATTR_KILL_SUIDGID`) that fuser
    /// 0.18 does not pass on; uid 0 stands for its `CAP_FSETID`.
    fn kills_privileges(&self, caller_uid: u32) -> bool {
        let changes_owner = self.uid.is_some() || self.gid.is_some();
        changes_owner || self.size.is_some() && caller_uid != 0
    }

    fn changes(self, caller_uid: u32) -> AttrChanges {
        AttrChanges {
            mode: self.mode.map(|mode| (mode & MODE_BITS) as u16),
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            atime: self.atime.map(set_time),
            mtime: self.mtime.map(set_time),
            kill_privileges: self.kills_privileges(caller_uid),
        }
    }
}

pub(crate) fn setattr(
    door: &Door,
    request: &Request,
    ino: INodeNo,
    wanted: Wanted,
    reply: ReplyAttr,
) {
    let (fs, changes) = (door.fs(), wanted.changes(request.uid()));
    door.answer(request, reply, async move {
        fs.set_attr(Ino(ino.0), changes).await
    });
}

#[cfg(test)]
mod tests {
    use vdfs_proto::attr::SetTime;

    use super::*;

    const NOTHING: Wanted = Wanted {
        mode: None,
        uid: None,
        gid: None,
        size: None,
        atime: None,
        mtime: None,
    };

    #[test]
    fn changes_kill_privileges_as_linux_does() {
        let kills = |wanted: Wanted, uid| wanted.changes(uid).kill_privileges;
        assert!(
            kills(
                Wanted {
                    uid: Some(7),
                    ..NOTHING
                },
                0
            ),
            "chown, even by root"
        );
        assert!(
            kills(
                Wanted {
                    gid: Some(7),
                    ..NOTHING
                },
                1000
            ),
            "chgrp"
        );
        assert!(
            kills(
                Wanted {
                    size: Some(0),
                    ..NOTHING
                },
                1000
            ),
            "truncate"
        );
        assert!(
            !kills(
                Wanted {
                    size: Some(0),
                    ..NOTHING
                },
                0
            ),
            "truncate by root"
        );
        assert!(
            !kills(
                Wanted {
                    mode: Some(0o4755),
                    ..NOTHING
                },
                1000
            ),
            "chmod"
        );
    }

    #[test]
    fn changes_of_mode_leave_the_file_type_out() {
        let changes = Wanted {
            mode: Some(0o104_755),
            ..NOTHING
        }
        .changes(0);
        assert_eq!(changes.mode, Some(0o4755));
        let touch = Wanted {
            mtime: Some(TimeOrNow::Now),
            ..NOTHING
        }
        .changes(0);
        assert_eq!((touch.mtime, touch.mode), (Some(SetTime::Now), None));
    }
}
