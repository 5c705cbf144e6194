//! SETXATTR and REMOVEXATTR of an ACL (acl(5)).

use fuser::{INodeNo, ReplyEmpty, Request};
use vdfs_client::Caller;
use vdfs_proto::{Acl, AclKind, Ino, Status};

use crate::door::Door;
use crate::watch::groups_of;

pub(crate) fn set(
    door: &Door,
    request: &Request,
    (ino, kind): (INodeNo, AclKind),
    acl: Result<Option<Acl>, Status>,
    reply: ReplyEmpty,
) {
    let (fs, caller) = (door.fs(), caller_of(request));
    door.answer(request, reply, async move {
        fs.set_acl(Ino(ino.0), kind, acl?, &caller).await
    });
}

/// Whether the caller's groups let it keep sgid the kernel says in a flag
/// (`FUSE_SETXATTR_ACL_KILL_SGID`) that fuser 0.18 does not pass on. They are looked up while the
/// caller waits; uid 0 stands for its `CAP_FSETID`.
fn caller_of(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        groups: match request.uid() {
            0 => Vec::new(),
            _ => groups_of(request.pid()),
        },
    }
}
