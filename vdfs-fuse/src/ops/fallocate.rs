//! FALLOCATE: room, zeros and holes. The kernel writes its dirty pages of a range that is punched or
//! zeroed back before it asks, and drops them afterwards.

use fuser::{FileHandle, ReplyEmpty, Request};
use vdfs_client::SpaceChange;
use vdfs_proto::Status;
use vdfs_proto::data::SpaceKind;

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
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    // The kernel leaves suid and sgid to the filesystem here too; uid 0 stands for `CAP_FSETID`.
    let kill_privileges = request.uid() != 0;
    door.answer(request, reply, async move {
        let (kind, keep_size) = decode(mode)?;
        let wanted = SpaceChange {
            kind,
            offset,
            len,
            keep_size,
            kill_privileges,
        };
        fs.change_space(handle.id, wanted).await
    });
}

/// What a mode asks for, and whether the file keeps its size.
fn decode(mode: i32) -> Result<(SpaceKind, bool), Status> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match (mode & !libc::FALLOC_FL_KEEP_SIZE, keep_size) {
        (0, _) => Ok((SpaceKind::Allocate, keep_size)),
        (libc::FALLOC_FL_PUNCH_HOLE, true) => Ok((SpaceKind::Punch, true)),
        (libc::FALLOC_FL_ZERO_RANGE, _) => Ok((SpaceKind::Zero, keep_size)),
        _ => Err(Status::NotSupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_takes_what_linux_lets_programs_combine() {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let good = [
            (0, SpaceKind::Allocate, false),
            (keep, SpaceKind::Allocate, true),
            (libc::FALLOC_FL_PUNCH_HOLE | keep, SpaceKind::Punch, true),
            (libc::FALLOC_FL_ZERO_RANGE, SpaceKind::Zero, false),
            (libc::FALLOC_FL_ZERO_RANGE | keep, SpaceKind::Zero, true),
        ];
        for (mode, kind, keep_size) in good {
            assert_eq!(decode(mode), Ok((kind, keep_size)), "{mode:#x}");
        }
        for mode in [
            libc::FALLOC_FL_PUNCH_HOLE,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE | keep,
            libc::FALLOC_FL_COLLAPSE_RANGE,
            libc::FALLOC_FL_INSERT_RANGE,
            libc::FALLOC_FL_UNSHARE_RANGE,
        ] {
            assert_eq!(decode(mode), Err(Status::NotSupported), "{mode:#x}");
        }
    }
}
