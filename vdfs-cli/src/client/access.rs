//! What a kernel checks before it lets a program touch a file (path_resolution(7), unlink(2)):
//! without a mount nobody else does.

use vdfs_client::Caller;
use vdfs_proto::{Attr, FileKind, Status};

/// What is wanted of an inode; the value is the bit of one `rwx` triple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read = 4,
    Write = 2,
    Search = 1,
}

const STICKY: u16 = 0o1000;

/// `AccessDenied` unless all of `wanted` is allowed to `caller`. Root may all, save running files,
/// which nobody does here.
pub(crate) fn check(caller: &Caller, attr: &Attr, wanted: &[Access]) -> Result<(), Status> {
    if caller.uid == 0 {
        return Ok(());
    }
    let in_group = caller.gid == attr.gid || caller.groups.contains(&attr.gid);
    let triple = match (caller.uid == attr.uid, in_group) {
        (true, _) => attr.mode >> 6,
        (false, true) => attr.mode >> 3,
        (false, false) => attr.mode,
    };
    let allowed = wanted.iter().all(|access| triple & *access as u16 != 0);
    if allowed {
        Ok(())
    } else {
        Err(Status::AccessDenied)
    }
}

/// A name may be made in `directory`.
pub(crate) fn check_new_name(caller: &Caller, directory: &Attr) -> Result<(), Status> {
    if directory.kind != FileKind::Directory {
        return Err(Status::NotDirectory);
    }
    check(caller, directory, &[Access::Write, Access::Search])
}

/// The name of `victim` may be taken out of `directory`.
pub(crate) fn check_removal(
    caller: &Caller,
    directory: &Attr,
    victim: &Attr,
) -> Result<(), Status> {
    check_new_name(caller, directory)?;
    let owner = [0, directory.uid, victim.uid].contains(&caller.uid);
    if directory.mode & STICKY != 0 && !owner {
        return Err(Status::NotPermitted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{Ino, Timestamp};

    use super::*;

    fn attr(mode: u16, uid: u32, gid: u32) -> Attr {
        let time = Timestamp::default();
        Attr {
            ino: Ino::ROOT,
            kind: FileKind::Directory,
            mode,
            nlink: 2,
            uid,
            gid,
            rdev: 0,
            size: 0,
            atime: time,
            mtime: time,
            ctime: time,
            data_version: 0,
            has_holes: false,
        }
    }

    fn user(uid: u32, gid: u32) -> Caller {
        Caller {
            uid,
            gid,
            groups: vec![50],
        }
    }

    #[test]
    fn check_goes_by_the_first_triple_that_fits() {
        let (read, denied) = (&[Access::Read][..], Err(Status::AccessDenied));
        assert_eq!(check(&user(7, 7), &attr(0o400, 7, 1), read), Ok(()));
        // The owner is not asked by the bits of others, though they would allow it.
        assert_eq!(check(&user(7, 7), &attr(0o044, 7, 1), read), denied);
        assert_eq!(check(&user(8, 8), &attr(0o040, 7, 50), read), Ok(()));
        assert_eq!(check(&user(8, 8), &attr(0o404, 7, 50), read), denied);
        assert_eq!(check(&user(8, 8), &attr(0o004, 7, 1), read), Ok(()));
        assert_eq!(check(&user(0, 0), &attr(0, 7, 1), read), Ok(()));
    }

    #[test]
    fn check_removal_in_a_sticky_directory_is_for_owners() {
        let directory = attr(0o1777, 1, 1);
        assert_eq!(
            check_removal(&user(7, 7), &directory, &attr(0o644, 7, 7)),
            Ok(())
        );
        assert_eq!(
            check_removal(&user(8, 8), &directory, &attr(0o644, 7, 7)),
            Err(Status::NotPermitted)
        );
        assert_eq!(
            check_removal(&user(1, 1), &directory, &attr(0o644, 7, 7)),
            Ok(())
        );
    }
}
