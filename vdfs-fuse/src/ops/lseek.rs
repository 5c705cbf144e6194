//! LSEEK: to data and to holes. The kernel does all other seeks by itself.

use fuser::{FileHandle, INodeNo, ReplyLseek, Request};
use vdfs_proto::data::SeekTarget;
use vdfs_proto::{Ino, Status};

use crate::door::Door;
use crate::handle::DoorHandle;

pub(crate) fn lseek(
    door: &Door,
    request: &Request,
    (ino, handle): (INodeNo, FileHandle),
    offset: i64,
    whence: i32,
    reply: ReplyLseek,
) {
    let (fs, kernel_cache) = (door.fs(), door.kernel_cache());
    let handle = DoorHandle::from_kernel(handle);
    door.answer(request, reply, async move {
        let target = decode(whence)?;
        let offset = u64::try_from(offset).map_err(|_| Status::NoSuchOffset)?;
        if fs.may_have_dirty_pages(handle.id) {
            // What was written through a mapping over a hole is data. The way to have it written back
            // is to have the pages dropped.
            kernel_cache.drop_now(Ino(ino.0), offset, 0).await;
        }
        fs.seek(handle.id, offset, target).await
    });
}

fn decode(whence: i32) -> Result<SeekTarget, Status> {
    match whence {
        libc::SEEK_DATA => Ok(SeekTarget::Data),
        libc::SEEK_HOLE => Ok(SeekTarget::Hole),
        _ => Err(Status::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_takes_data_and_hole_alone() {
        assert_eq!(decode(libc::SEEK_DATA), Ok(SeekTarget::Data));
        assert_eq!(decode(libc::SEEK_HOLE), Ok(SeekTarget::Hole));
        assert_eq!(decode(libc::SEEK_END), Err(Status::Invalid));
    }
}
