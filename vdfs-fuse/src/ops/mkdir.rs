//! MKDIR.

use fuser::{ReplyEntry, Request};
use vdfs_proto::meta::NewKind;

use crate::door::Door;
use crate::ops::{NewMode, Place, new_file};

pub(crate) fn mkdir(
    door: &Door,
    request: &Request,
    place: Place<'_>,
    mode: NewMode,
    reply: ReplyEntry,
) {
    let (fs, new) = (
        door.fs(),
        new_file(request, place, NewKind::Directory, mode),
    );
    door.answer(request, reply, async move { fs.create(new?).await });
}
