//! FALLOCATE: plain allocation, with or without a change of size.

use fuser::{FileHandle, ReplyEmpty, Request};
use vdfs_client::Allocation;
use vdfs_proto::Status;

use crate::door::Door;
use crate::handle::DoorHandle;

/// `offset` and `len` in bytes.
pub(crate) fn fallocate(
    door: &Door,
    request: &Request,
    handle: FileHandle,
    (offset, len): (u64, u64),
    mode: i32,
    reply: ReplyEmpty,
) {
    let (fs, handle, keep_size) = (door.fs(), DoorHandle::from_kernel(handle), keep_size(mode));
    // The kernel leaves suid and sgid to the filesystem here too; uid 0 stands for `CAP_FSETID`.
    let kill_privileges = request.uid() != 0;
    door.answer(request, reply, async move {
        let wanted = Allocation {
            offset,
            len,
            keep_size: keep_size?,
            kill_privileges,
        };
        fs.allocate(handle.id, wanted).await
    });
}

fn keep_size(mode: i32) -> Result<bool, Status> {
    match mode {
        0 => Ok(false),
        libc::FALLOC_FL_KEEP_SIZE => Ok(true),
        _ => Err(Status::NotSupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_size_refuses_all_but_plain_allocation() {
        assert_eq!(keep_size(0), Ok(false));
        assert_eq!(keep_size(libc::FALLOC_FL_KEEP_SIZE), Ok(true));
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        for mode in [
            punch,
            libc::FALLOC_FL_ZERO_RANGE,
            libc::FALLOC_FL_COLLAPSE_RANGE,
        ] {
            assert_eq!(keep_size(mode), Err(Status::NotSupported));
        }
    }
}
