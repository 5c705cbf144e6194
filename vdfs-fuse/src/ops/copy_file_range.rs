//! COPY_FILE_RANGE, within one mount. The kernel writes the source's dirty pages back before it asks,
//! and drops the target's afterwards.

use fuser::{CopyFileRangeFlags, FileHandle, ReplyWrite, Request};
use vdfs_client::CopyRange;
use vdfs_proto::Status;

use crate::door::Door;
use crate::handle::DoorHandle;

/// A handle, and an offset in bytes.
pub(crate) type Place = (FileHandle, u64);

/// `len` in bytes.
pub(crate) fn copy_file_range(
    door: &Door,
    request: &Request,
    (source, target): (Place, Place),
    len: u64,
    flags: CopyFileRangeFlags,
    reply: ReplyWrite,
) {
    let fs = door.fs();
    let wanted = CopyRange {
        source: DoorHandle::from_kernel(source.0).id,
        source_offset: source.1,
        target: DoorHandle::from_kernel(target.0).id,
        target_offset: target.1,
        len,
        // As for a truncation: uid 0 stands for `CAP_FSETID`.
        kill_privileges: request.uid() != 0,
    };
    door.answer(request, reply, async move {
        if !flags.is_empty() {
            return Err(Status::Invalid);
        }
        let copied = fs.copy_range(wanted).await?;
        Ok(u32::try_from(copied).expect("a call copies at most COPY_RANGE_BYTES_MAX"))
    });
}
