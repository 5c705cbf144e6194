//! What programs see of a [`Status`]: the one table.

use fuser::Errno;
use vdfs_proto::Status;

/// The errno of a status. What a client retries by itself (another epoch, no connection) reaches a
/// program only when the operation's time is over, so it is `EIO`.
pub(crate) fn errno(status: Status) -> Errno {
    Errno::from_i32(errno_code(status))
}

fn errno_code(status: Status) -> i32 {
    match status {
        Status::NotFound => libc::ENOENT,
        Status::Exists => libc::EEXIST,
        Status::NotDirectory => libc::ENOTDIR,
        Status::IsDirectory => libc::EISDIR,
        Status::NotEmpty => libc::ENOTEMPTY,
        Status::NotPermitted => libc::EPERM,
        Status::AccessDenied | Status::WrongRole => libc::EACCES,
        Status::Invalid => libc::EINVAL,
        Status::NameTooLong => libc::ENAMETOOLONG,
        Status::NoSpace => libc::ENOSPC,
        Status::TooManyLinks => libc::EMLINK,
        Status::Loop => libc::ELOOP,
        Status::ReadOnly => libc::EROFS,
        Status::NoData => libc::ENODATA,
        Status::NoSuchOffset => libc::ENXIO,
        Status::OutOfRange => libc::ERANGE,
        Status::TooBig => libc::E2BIG,
        Status::FileTooLarge => libc::EFBIG,
        Status::NotSupported => libc::EOPNOTSUPP,
        Status::Interrupted => libc::EINTR,
        Status::WouldBlock => libc::EAGAIN,
        Status::Deadlock => libc::EDEADLK,
        Status::NoLocks => libc::ENOLCK,
        Status::StaleInode => libc::ESTALE,
        Status::BadHandle => libc::EBADF,
        Status::DataLost
        | Status::Corrupt
        | Status::Gone
        | Status::StaleLayout
        | Status::StaleEpoch(_)
        | Status::NotInSync
        | Status::SessionExpired
        | Status::Replaced
        | Status::NameInUse
        | Status::Removed
        | Status::Fenced
        | Status::StaleRequest
        | Status::Busy
        | Status::NotServing
        | Status::ShuttingDown
        | Status::Disconnected
        | Status::DeadlineExceeded
        | Status::Internal
        | Status::WrongCluster
        | Status::WrongVersion
        | Status::Malformed
        | Status::TooLarge => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::Epoch;

    use super::*;

    #[test]
    fn errno_of_what_posix_names_is_its_own() {
        let table = [
            (Status::NotFound, libc::ENOENT),
            (Status::Exists, libc::EEXIST),
            (Status::NotEmpty, libc::ENOTEMPTY),
            (Status::NoSpace, libc::ENOSPC),
            (Status::NotSupported, libc::EOPNOTSUPP),
            (Status::StaleInode, libc::ESTALE),
            (Status::Interrupted, libc::EINTR),
            (Status::FileTooLarge, libc::EFBIG),
        ];
        for (status, code) in table {
            assert_eq!(i32::from(errno(status)), code, "{status}");
        }
    }

    #[test]
    fn errno_of_trouble_with_peers_is_eio() {
        for status in [
            Status::DataLost,
            Status::StaleEpoch(Epoch(3)),
            Status::SessionExpired,
            Status::Disconnected,
            Status::DeadlineExceeded,
            Status::Malformed,
        ] {
            assert_eq!(i32::from(errno(status)), libc::EIO, "{status}");
        }
    }
}
