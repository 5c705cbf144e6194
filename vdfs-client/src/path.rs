//! Walking paths for programs without a mount, with the checks that a kernel makes for a mount
//! (path_resolution(7)): search permission on every directory, symlinks, `..`.
//!
//! Paths begin at the root of the filesystem, with or without a slash in front.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use vdfs_proto::acl::Perms;
use vdfs_proto::{Attr, FileKind, FileName, Ino, Status};

use crate::fs::Fs;
use crate::limits::SYMLINKS_MAX;
use crate::permission::Caller;

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
    caller.check_new_name(fs, &parent).await?;
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
        self.caller.check(self.fs, &here, Perms::EXECUTE).await?;
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
