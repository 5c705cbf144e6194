//! Modes, owners and times.

use vdfs_proto::meta::SetAttr;
use vdfs_proto::{Attr, Status, Timestamp};

use crate::core::inode::{MODE_BITS, resolve_time};
use crate::core::record::Change;
use crate::core::state::State;

impl State {
    pub(super) fn plan_set_attr(&self, set: &SetAttr, at: Timestamp) -> Result<Change, Status> {
        self.inode(set.ino)?;
        Ok(Change::SetAttr {
            ino: set.ino,
            mode: set.mode.map(|mode| mode & MODE_BITS),
            uid: set.uid,
            gid: set.gid,
            atime: set.atime.map(|time| resolve_time(time, at)),
            mtime: set.mtime.map(|time| resolve_time(time, at)),
            kill_privileges: set.kill_privileges,
        })
    }

    pub(super) fn apply_set_attr(&mut self, at: Timestamp, change: &Change) -> Attr {
        let Change::SetAttr {
            ino,
            mode,
            uid,
            gid,
            atime,
            mtime,
            kill_privileges,
        } = change
        else {
            unreachable!("asked for a setattr");
        };
        let is_directory = self.directory(*ino).is_ok();
        if (uid.is_some() || gid.is_some()) && !is_directory {
            self.drop_capabilities(*ino);
        }
        if let Some(mode) = mode {
            self.follow_mode(*ino, *mode);
        }
        let inode = self.inodes.get_mut(*ino);
        // Privileges fall with the old mode; a mode that is set in the same call is what is wanted.
        if *kill_privileges {
            inode.kill_privileges();
        }
        inode.set_mode(mode.unwrap_or(inode.mode()));
        inode.uid = uid.unwrap_or(inode.uid);
        inode.gid = gid.unwrap_or(inode.gid);
        inode.atime = atime.map_or(inode.atime, Into::into);
        inode.mtime = mtime.map_or(inode.mtime, Into::into);
        inode.ctime = at.into();
        inode.attr(*ino)
    }
}
