//! GETATTR: `stat(2)`. The one reply whose blocks programs see: the kernel believes no attributes of
//! other replies, and asks again.

use fuser::{INodeNo, ReplyAttr, Request};
use vdfs_proto::Ino;

use crate::door::Door;
use crate::stat::Stat;

pub(crate) fn getattr(door: &Door, request: &Request, ino: INodeNo, reply: ReplyAttr) {
    let fs = door.fs();
    door.answer(request, reply, async move {
        let attr = fs.getattr(Ino(ino.0)).await?;
        let allocated_bytes = fs.allocated_bytes(&attr).await;
        Ok(Stat {
            attr,
            allocated_bytes,
        })
    });
}
