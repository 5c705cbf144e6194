//! STATFS: `df`.

use fuser::{ReplyStatfs, Request};

use crate::door::Door;

pub(crate) fn statfs(door: &Door, request: &Request, reply: ReplyStatfs) {
    let fs = door.fs();
    door.answer(request, reply, async move { fs.stat_fs().await });
}
