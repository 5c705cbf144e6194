//! CREATE: a regular file made and opened in one step.

use fuser::{OpenFlags, ReplyCreate, Request};
use vdfs_proto::Status;
use vdfs_proto::meta::NewKind;

use crate::door::Door;
use crate::ops::open::{open_options, opened};
use crate::ops::{NewMode, Place, new_file};

pub(crate) fn create(
    door: &Door,
    request: &Request,
    place: Place<'_>,
    mode: NewMode,
    flags: OpenFlags,
    reply: ReplyCreate,
) {
    let (fs, options) = (door.fs(), open_options(door, request, flags));
    let new = new_file(request, place, NewKind::Regular, mode);
    let exclusive = flags.0 & libc::O_EXCL != 0;
    door.answer(request, reply, async move {
        let created = fs.create_open(new?, options, exclusive).await;
        let (attr, file) = created.map_err(|status| refusal(status, exclusive))?;
        Ok((attr, opened(file, options)))
    });
}

/// Without `O_EXCL` an existing name is no reason to refuse. It is one here only if another mount
/// has made something else than a regular file of it since the kernel looked: `ESTALE` lets the
/// kernel look again and open what is there.
fn refusal(status: Status, exclusive: bool) -> Status {
    match status {
        Status::Exists if !exclusive => Status::StaleInode,
        other => other,
    }
}
