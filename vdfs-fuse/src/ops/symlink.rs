//! SYMLINK.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fuser::{ReplyEntry, Request};
use vdfs_proto::SymlinkTarget;
use vdfs_proto::meta::NewKind;

use crate::door::Door;
use crate::ops::{NewMode, Place, new_file};

/// A symlink's own mode means nothing and is shown as this (symlink(7)).
const SYMLINK_MODE: NewMode = NewMode {
    mode: 0o777,
    umask: 0,
};

pub(crate) fn symlink(
    door: &Door,
    request: &Request,
    place: Place<'_>,
    target: &Path,
    reply: ReplyEntry,
) {
    let fs = door.fs();
    let new = SymlinkTarget::new(target.as_os_str().as_bytes())
        .and_then(|target| new_file(request, place, NewKind::Symlink(target), SYMLINK_MODE));
    door.answer(request, reply, async move { fs.create(new?).await });
}
