//! What VDFS processes say to each other: ids, attributes, messages, status codes, limits, and the
//! arithmetic of chunks. Pure: no tokio, no clock, no IO, so that every core and every test can use
//! it.
//!
//! Everything that arrives is parsed into a type that cannot be wrong ([`FileName`], [`ChunkSize`],
//! [`Ino`]...): a handler never checks a name or a length a second time.

pub mod acl;
pub mod attr;
pub mod chunk;
pub mod codec;
pub mod copies;
pub mod data;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod lock;
pub mod meta;
pub mod name;
pub mod operation;
pub mod peer;
pub mod session;
pub mod status;
pub mod sums;
pub mod totals;
pub mod volume;

pub use acl::{Acl, AclKind};
pub use attr::{Attr, FileKind, Timestamp};
pub use chunk::{ChunkSize, ChunkSpan};
pub use copies::Copies;
pub use ids::{
    ChainId, ChunkId, ClusterId, DataId, Epoch, HandleId, Ino, OpId, SessionId, StoreId, Version,
    VolumeId,
};
pub use layout::{Chain, ChainSet, ChainTable, Layout, Member, MemberState, VolumeInfo};
pub use lock::{LockKind, LockOwner, LockRange, LockRanges};
pub use name::{FileName, SymlinkTarget, XattrName};
pub use status::{RetryClass, Status};
pub use totals::{NetTotals, OpTotals};
