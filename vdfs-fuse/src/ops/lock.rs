//! GETLK, SETLK and SETLKW: locks of programs, which the filesystem keeps for all mounts.
//!
//! fuser 0.18 does not say whether `fcntl(2)` or `flock(2)` asks. The kernel numbers their owners
//! differently, so a `flock` is a lock of the whole file by an owner of its own, as on NFS, and the
//! two see one another.

use fuser::{FileHandle, LockOwner as KernelOwner, ReplyEmpty, ReplyLock, Request};
use vdfs_client::Contended;
use vdfs_proto::meta::LockAsked;
use vdfs_proto::{LockKind, LockOwner, LockRange, Status};

use crate::dispatch::Patience;
use crate::door::Door;
use crate::handle::DoorHandle;

/// What the kernel says of a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelLock {
    pub(crate) owner: KernelOwner,
    /// Offsets of the first and the last byte.
    pub(crate) range: (u64, u64),
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub(crate) kind: i32,
    pub(crate) pid: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Lock(LockAsked),
    Unlock(LockOwner, LockRange),
}

pub(crate) fn getlk(
    door: &Door,
    request: &Request,
    handle: FileHandle,
    lock: KernelLock,
    reply: ReplyLock,
) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    door.answer(request, reply, async move {
        match decode(lock)? {
            Asked::Lock(lock) => fs.test_lock(handle.id, lock).await,
            Asked::Unlock(..) => Err(Status::Invalid),
        }
    });
}

/// The kernel restarts the call that is answered `EINTR`, and takes for granted that a signal is
/// there; so only a signal ends these.
pub(crate) fn setlk(
    door: &Door,
    request: &Request,
    handle: FileHandle,
    (lock, contended): (KernelLock, Contended),
    reply: ReplyEmpty,
) {
    let (fs, handle) = (door.fs(), DoorHandle::from_kernel(handle));
    let patience = match contended {
        Contended::Refuse => Patience::UntilKilled,
        Contended::Wait => Patience::UntilSignal,
    };
    door.answer_with(patience, request, reply, async move {
        match decode(lock)? {
            Asked::Lock(lock) => fs.lock(handle.id, lock, contended).await,
            Asked::Unlock(owner, range) => fs.unlock(handle.id, owner, range).await,
        }
    });
}

fn decode(lock: KernelLock) -> Result<Asked, Status> {
    let owner = LockOwner(lock.owner.0);
    let range = LockRange::new(lock.range.0, lock.range.1)?;
    let kind = match lock.kind {
        libc::F_RDLCK => LockKind::Read,
        libc::F_WRLCK => LockKind::Write,
        libc::F_UNLCK => return Ok(Asked::Unlock(owner, range)),
        _ => return Err(Status::Invalid),
    };
    Ok(Asked::Lock(LockAsked {
        owner,
        pid: lock.pid,
        kind,
        range,
    }))
}

/// As `struct flock` has it.
pub(crate) fn kernel_kind(kind: LockKind) -> i32 {
    match kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: i32, range: (u64, u64)) -> Result<Asked, Status> {
        decode(KernelLock {
            owner: KernelOwner(7),
            range,
            kind,
            pid: 42,
        })
    }

    #[test]
    fn decode_of_flock_is_the_whole_file() {
        let whole = (0, i64::MAX as u64);
        let expected = LockAsked {
            owner: LockOwner(7),
            pid: 42,
            kind: LockKind::Write,
            range: LockRange::WHOLE,
        };
        assert_eq!(asked(libc::F_WRLCK, whole), Ok(Asked::Lock(expected)));
        let unlock = Asked::Unlock(LockOwner(7), LockRange::WHOLE);
        assert_eq!(asked(libc::F_UNLCK, whole), Ok(unlock));
    }

    #[test]
    fn decode_of_nonsense_is_invalid() {
        assert_eq!(asked(libc::F_RDLCK, (2, 1)), Err(Status::Invalid));
        assert_eq!(asked(99, (0, 1)), Err(Status::Invalid));
    }
}
