//! What a kernel checks before it lets a program touch an inode (path_resolution(7), acl(5),
//! unlink(2)): without a mount nobody else does.

use vdfs_proto::acl::{Asker, Perms};
use vdfs_proto::{AclKind, Attr, FileKind, Status};

use crate::fs::Fs;

const STICKY: u16 = 0o1000;

/// On whose behalf something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// 0 may do everything.
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Caller {
    pub(crate) fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// `AccessDenied` unless the mode of the inode, or its ACL, gives the caller all that is
    /// `wanted`; [`Perms::EXECUTE`] of a directory is reaching what is in it.
    pub async fn check(&self, fs: &Fs, attr: &Attr, wanted: Perms) -> Result<(), Status> {
        let is_permitted = match self.uid {
            0 => true,
            uid if uid != attr.uid && attr.has_acl => {
                self.is_permitted_by_acl(fs, attr, wanted).await?
            }
            _ => self.is_permitted_by_mode(attr, wanted),
        };
        match is_permitted {
            true => Ok(()),
            false => Err(Status::AccessDenied),
        }
    }

    async fn is_permitted_by_acl(
        &self,
        fs: &Fs,
        attr: &Attr,
        wanted: Perms,
    ) -> Result<bool, Status> {
        // Removed since the attributes were read: the mode shows what is left.
        let Some(acl) = fs.acl(attr.ino, AclKind::Access).await? else {
            return Ok(self.is_permitted_by_mode(attr, wanted));
        };
        let groups: Vec<u32> = std::iter::once(self.gid)
            .chain(self.groups.iter().copied())
            .collect();
        let asker = Asker {
            uid: self.uid,
            groups: &groups,
        };
        Ok(acl.permits(asker, (attr.uid, attr.gid), wanted))
    }

    fn is_permitted_by_mode(&self, attr: &Attr, wanted: Perms) -> bool {
        let shift = if attr.uid == self.uid {
            6
        } else if self.is_in(attr.gid) {
            3
        } else {
            0
        };
        Perms::of_mode(attr.mode, shift).include(wanted)
    }

    /// A name may be made in `directory`.
    pub async fn check_new_name(&self, fs: &Fs, directory: &Attr) -> Result<(), Status> {
        if directory.kind != FileKind::Directory {
            return Err(Status::NotDirectory);
        }
        let wanted = Perms::WRITE.and(Perms::EXECUTE);
        self.check(fs, directory, wanted).await
    }

    /// An attribute in `user.` of the inode may be changed (xattr(7)): `NotPermitted` for a sticky
    /// directory of somebody else.
    pub async fn check_user_xattr(&self, fs: &Fs, attr: &Attr) -> Result<(), Status> {
        let is_owner = [0, attr.uid].contains(&self.uid);
        if attr.kind == FileKind::Directory && attr.mode & STICKY != 0 && !is_owner {
            return Err(Status::NotPermitted);
        }
        self.check(fs, attr, Perms::WRITE).await
    }

    /// The name of `victim` may be taken out of `directory`: `NotPermitted` if that is sticky and
    /// neither belongs to the caller.
    pub async fn check_removal(
        &self,
        fs: &Fs,
        directory: &Attr,
        victim: &Attr,
    ) -> Result<(), Status> {
        self.check_new_name(fs, directory).await?;
        let is_owner = [0, directory.uid, victim.uid].contains(&self.uid);
        if directory.mode & STICKY != 0 && !is_owner {
            return Err(Status::NotPermitted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{Ino, Timestamp};

    use super::*;

    fn attr(mode: u16, uid: u32, gid: u32) -> Attr {
        Attr {
            ino: Ino(2),
            kind: FileKind::Directory,
            mode,
            nlink: 2,
            uid,
            gid,
            rdev: 0,
            size: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            has_acl: false,
            data_version: 0,
            has_holes: false,
        }
    }

    fn caller(uid: u32) -> Caller {
        Caller {
            uid,
            gid: 100,
            groups: vec![200],
        }
    }

    #[test]
    fn mode_permits_by_the_first_class_that_fits_and_no_other() {
        let permits = |uid, attr: Attr, wanted| caller(uid).is_permitted_by_mode(&attr, wanted);
        assert!(!permits(1, attr(0o077, 1, 100), Perms::READ));
        assert!(permits(2, attr(0o070, 1, 200), Perms::WRITE));
        assert!(permits(2, attr(0o007, 1, 300), Perms::EXECUTE));
        assert!(!permits(2, attr(0o770, 1, 300), Perms::READ));
    }
}
