//! Walking paths for programs without a mount, with the checks that a kernel makes for a mount
//! (path_resolution(7)): search permission on every directory, symlinks, `..`.
//!
//! Paths begin at the root of the filesystem, with or without a slash in front.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use vdfs_proto::{Attr, FileKind, FileName, Ino, Status};

use crate::fs::Fs;
use crate::limits::SYMLINKS_MAX;

/// On whose behalf a path is walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// 0 may do everything.
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Permission bits, as in one digit of an octal mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want(u16);

impl Want {
    pub const READ: Want = Want(4);
    pub const WRITE: Want = Want(2);
    /// Of a directory: reaching what is in it.
    pub const SEARCH: Want = Want(1);

    #[must_use]
    pub fn and(self, other: Want) -> Want {
        Want(self.0 | other.0)
    }
}

impl Caller {
    /// `AccessDenied` unless the mode of the inode gives the caller all that it wants.
    pub fn check(&self, attr: &Attr, want: Want) -> Result<(), Status> {
        if self.uid == 0 {
            return Ok(());
        }
        let shift = if attr.uid == self.uid {
            6
        } else if attr.gid == self.gid || self.groups.contains(&attr.gid) {
            3
        } else {
            0
        };
        let given = attr.mode >> shift & 7;
        if given & want.0 == want.0 {
            return Ok(());
        }
        Err(Status::AccessDenied)
    }

    /// Whether the caller may take the name of `victim` out of `parent`: `NotPermitted` if the
    /// directory is sticky and neither belongs to the caller.
    pub fn check_remove(&self, parent: &Attr, victim: &Attr) -> Result<(), Status> {
        self.check(parent, Want::WRITE.and(Want::SEARCH))?;
        let is_sticky = parent.mode & 0o1000 != 0;
        if is_sticky && ![0, parent.uid, victim.uid].contains(&self.uid) {
            return Err(Status::NotPermitted);
        }
        Ok(())
    }
}

/// The inode that a path stands for; a symlink at its end is followed if `follow_last` or if a
/// slash comes behind it.
pub async fn resolve(
    fs: &Fs,
    caller: &Caller,
    path: &Path,
    follow_last: bool,
) -> Result<Attr, Status> {
    let mut walk = Walk::begin(fs, caller, path).await?;
    let as_directory = path.as_os_str().as_bytes().ends_with(b"/");
    while let Some(step) = walk.rest.pop_front() {
        let follow = follow_last || as_directory || !walk.rest.is_empty();
        walk.take(&step, follow).await?;
    }
    let found = walk.here();
    if as_directory && found.kind != FileKind::Directory {
        return Err(Status::NotDirectory);
    }
    Ok(found)
}

/// The directory in which the last name of a path is or would be, writable by the caller, and that
/// name. `Invalid` for a path without a last name.
pub async fn resolve_parent(
    fs: &Fs,
    caller: &Caller,
    path: &Path,
) -> Result<(Attr, FileName), Status> {
    let mut walk = Walk::begin(fs, caller, path).await?;
    let last = walk.rest.pop_back().ok_or(Status::Invalid)?;
    let name = FileName::new(&last)?;
    while let Some(step) = walk.rest.pop_front() {
        walk.take(&step, true).await?;
    }
    let parent = walk.here();
    if parent.kind != FileKind::Directory {
        return Err(Status::NotDirectory);
    }
    caller.check(&parent, Want::WRITE.and(Want::SEARCH))?;
    Ok((parent, name))
}

struct Walk<'a> {
    fs: &'a Fs,
    caller: &'a Caller,
    /// From the root to where the walk is; never empty.
    trail: Vec<Attr>,
    /// Names still to be walked.
    rest: VecDeque<Vec<u8>>,
    links: u32,
}

impl<'a> Walk<'a> {
    async fn begin(fs: &'a Fs, caller: &'a Caller, path: &Path) -> Result<Walk<'a>, Status> {
        let root = fs.getattr(Ino::ROOT).await?;
        Ok(Walk {
            fs,
            caller,
            trail: vec![root],
            rest: names(path.as_os_str().as_bytes()).collect(),
            links: 0,
        })
    }

    fn here(&self) -> Attr {
        *self.trail.last().expect("the trail begins at the root")
    }

    async fn take(&mut self, step: &[u8], follow: bool) -> Result<(), Status> {
        let here = self.here();
        if here.kind != FileKind::Directory {
            return Err(Status::NotDirectory);
        }
        self.caller.check(&here, Want::SEARCH)?;
        if step == b".." {
            self.trail.truncate((self.trail.len() - 1).max(1));
            return Ok(());
        }
        let next = self.fs.lookup(here.ino, &FileName::new(step)?).await?;
        if next.kind == FileKind::Symlink && follow {
            return self.follow(next.ino).await;
        }
        self.trail.push(next);
        Ok(())
    }

    async fn follow(&mut self, link: Ino) -> Result<(), Status> {
        self.links += 1;
        if self.links > SYMLINKS_MAX {
            return Err(Status::Loop);
        }
        let target = self.fs.readlink(link).await?;
        if target.as_bytes().starts_with(b"/") {
            self.trail.truncate(1);
        }
        let mut rest: VecDeque<_> = names(target.as_bytes()).collect();
        rest.append(&mut self.rest);
        self.rest = rest;
        Ok(())
    }
}

/// The names of a path, without the empty ones and `.`.
fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && name != b".")
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use vdfs_proto::Timestamp;

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
    fn check_takes_the_first_class_that_fits_and_no_other() {
        let owner_without = attr(0o077, 1, 100);
        assert_eq!(
            caller(1).check(&owner_without, Want::READ),
            Err(Status::AccessDenied)
        );
        assert_eq!(caller(2).check(&attr(0o070, 1, 200), Want::WRITE), Ok(()));
        assert_eq!(caller(2).check(&attr(0o007, 1, 300), Want::SEARCH), Ok(()));
        assert_eq!(
            caller(2).check(&attr(0o770, 1, 300), Want::READ),
            Err(Status::AccessDenied)
        );
        assert_eq!(
            caller(0).check(&attr(0, 1, 1), Want::READ.and(Want::WRITE)),
            Ok(())
        );
    }

    #[test]
    fn check_remove_in_a_sticky_directory_asks_for_an_owner() {
        let sticky = attr(0o1777, 1, 1);
        let victim = attr(0o644, 2, 2);
        assert_eq!(
            caller(3).check_remove(&sticky, &victim),
            Err(Status::NotPermitted)
        );
        for owner in [0, 1, 2] {
            assert_eq!(caller(owner).check_remove(&sticky, &victim), Ok(()));
        }
        assert_eq!(caller(3).check_remove(&attr(0o777, 1, 1), &victim), Ok(()));
    }
}
