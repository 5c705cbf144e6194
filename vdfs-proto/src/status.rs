//! The one table of outcomes on the wire, each with its retry class.

use serde::{Deserialize, Serialize};

use crate::ids::Epoch;

/// Why a request was not done. What the user sees of each is decided once, by the kernel door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
pub enum Status {
    // What POSIX knows.
    #[error("no such file or directory")]
    NotFound,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("operation not permitted")]
    NotPermitted,
    #[error("permission denied")]
    AccessDenied,
    #[error("invalid argument")]
    Invalid,
    #[error("name too long")]
    NameTooLong,
    #[error("no space left")]
    NoSpace,
    #[error("too many links")]
    TooManyLinks,
    #[error("too many levels of symbolic links")]
    Loop,
    #[error("read-only filesystem")]
    ReadOnly,
    #[error("no such attribute")]
    NoData,
    /// No data, or no end of data, from there on (`ENXIO` of lseek(2)).
    #[error("no such offset")]
    NoSuchOffset,
    #[error("result out of range")]
    OutOfRange,
    #[error("argument list too long")]
    TooBig,
    #[error("file too large")]
    FileTooLarge,
    #[error("operation not supported")]
    NotSupported,
    #[error("interrupted")]
    Interrupted,
    #[error("resource temporarily unavailable")]
    WouldBlock,
    /// Those who hold the lock wait, in the end, for the one who asks.
    #[error("resource deadlock avoided")]
    Deadlock,
    #[error("no locks available")]
    NoLocks,
    /// The inode is not there any more: its slot has another generation.
    #[error("stale file handle")]
    StaleInode,
    #[error("bad file descriptor")]
    BadHandle,

    // What happened to data.
    /// The chunk's bytes are gone for good; never answered with zeros.
    #[error("data lost")]
    DataLost,
    /// The chunk's bytes do not match their sums.
    #[error("checksum mismatch")]
    Corrupt,
    /// The data id was reaped: the layout is older than a truncation or an unlink.
    #[error("data id is gone")]
    Gone,
    /// The layout named in the request is not the inode's: fetch it again.
    #[error("stale layout")]
    StaleLayout,
    /// The chain has another epoch: fetch the chain table.
    #[error("stale epoch, current is {0}")]
    StaleEpoch(Epoch),

    /// The member has another version of the chunk, and is to be given the chain's first.
    #[error("not in step with its chain")]
    NotInSync,

    // What happened to the session or the op.
    #[error("session expired")]
    SessionExpired,
    /// Another client of the same identity has taken over.
    #[error("another mount of the same name has taken over")]
    Replaced,
    /// Another process is known under this certificate, and may be alive.
    #[error("another process runs under this certificate; end it, or issue one of its own")]
    NameInUse,
    /// The store belongs to a volume that was removed.
    #[error(
        "this volume was removed from the cluster; free its RAM with `vdfs volume wipe`, then it comes in as a new one"
    )]
    Removed,
    /// The session is fenced at this volume.
    #[error("session fenced")]
    Fenced,
    /// The slot of this op id has moved on: a delayed duplicate, never executed.
    #[error("stale request")]
    StaleRequest,

    // What happened to the peer or the connection.
    /// The peer has its hands full; the same request may be sent again.
    #[error("busy")]
    Busy,
    /// The peer cannot serve this now: no lease, not a member, still starting.
    #[error("not serving")]
    NotServing,
    #[error("shutting down")]
    ShuttingDown,
    /// No connection, or it broke before the reply.
    #[error("disconnected")]
    Disconnected,
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// An internal failure of the peer's machine (its disk, its memory).
    #[error("internal error")]
    Internal,

    // What is wrong with the peer or the frame.
    #[error("wrong role for this operation")]
    WrongRole,
    #[error("another cluster")]
    WrongCluster,
    #[error("protocol version not supported")]
    WrongVersion,
    #[error("malformed message")]
    Malformed,
    #[error("message too large")]
    TooLarge,
}

/// What a client may do about a [`Status`]. The one retry loop, in the client, goes by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// Final: the answer.
    Never,
    /// Ask the same peer again after a pause.
    SamePeer,
    /// Another replica may have it.
    OtherReplica,
    /// Fetch the chain table or the layout, then ask again.
    RefreshTable,
    /// Reconnect, then ask again: mutations with the same op id.
    Reconnect,
}

impl Status {
    /// No answer has come: the peer may be gone, and may have done what it was asked.
    pub fn is_silence(self) -> bool {
        matches!(self, Status::Disconnected | Status::DeadlineExceeded)
    }

    pub fn retry_class(self) -> RetryClass {
        match self {
            Status::NotFound
            | Status::Exists
            | Status::NotDirectory
            | Status::IsDirectory
            | Status::NotEmpty
            | Status::NotPermitted
            | Status::AccessDenied
            | Status::Invalid
            | Status::NameTooLong
            | Status::NoSpace
            | Status::TooManyLinks
            | Status::Loop
            | Status::ReadOnly
            | Status::NoData
            | Status::NoSuchOffset
            | Status::OutOfRange
            | Status::TooBig
            | Status::FileTooLarge
            | Status::NotSupported
            | Status::Interrupted
            | Status::WouldBlock
            | Status::Deadlock
            | Status::NoLocks
            | Status::StaleInode
            | Status::BadHandle
            | Status::SessionExpired
            | Status::Replaced
            | Status::Removed
            | Status::Fenced
            | Status::StaleRequest
            | Status::DeadlineExceeded
            | Status::Internal
            | Status::WrongRole
            | Status::WrongCluster
            | Status::WrongVersion
            | Status::Malformed
            | Status::TooLarge => RetryClass::Never,
            Status::Busy | Status::NameInUse => RetryClass::SamePeer,
            Status::DataLost | Status::Corrupt => RetryClass::OtherReplica,
            Status::Gone
            | Status::StaleLayout
            | Status::StaleEpoch(_)
            | Status::NotServing
            | Status::NotInSync => RetryClass::RefreshTable,
            Status::ShuttingDown | Status::Disconnected => RetryClass::Reconnect,
        }
    }
}
