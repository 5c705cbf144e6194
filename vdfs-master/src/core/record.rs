//! What the operation log holds: decided changes, complete enough to be applied without asking
//! anything but the state before them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use vdfs_proto::meta::{Commit, LockAsked, NewKind};
use vdfs_proto::session::OpenSession;
use vdfs_proto::volume::Register;
use vdfs_proto::{
    Acl, AclKind, ChainId, Copies, DataId, FileName, Ino, LockOwner, LockRange, OpId, SessionId,
    Status, StoreId, SymlinkTarget, Timestamp, VolumeId, XattrName,
};

use super::inode::NewData;
use super::{FsConfig, Peer};

/// What most records fit in.
const RECORD_BYTES: usize = 192;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The first record: makes the filesystem with its root.
    Format {
        config: FsConfig,
        at: Timestamp,
    },
    /// A life of the master begins.
    Term {
        skip_ids: bool,
    },
    /// A mutation, done.
    Change {
        op: OpId,
        at: Timestamp,
        change: Change,
    },
    /// A mutation, refused for good: a retry gets the same answer.
    Refused {
        op: OpId,
        status: Status,
    },
    /// The pending trim of this inode is done.
    Trimmed {
        ino: Ino,
    },
    /// Cut what may lie behind the committed size.
    TailTrim {
        ino: Ino,
    },
    /// An empty file gets another data id: the chains of the old one have lost their store.
    Renewed {
        ino: Ino,
        place: NewData,
    },
    /// Bytes behind the committed size may lie on the volumes.
    TailUnknown {
        ino: Ino,
    },
    /// The inode was read.
    Accessed {
        ino: Ino,
        at: Timestamp,
    },
    /// Orphans that nobody has open any more.
    Dropped {
        inos: Vec<Ino>,
    },
    SessionOpened {
        session: SessionId,
        owner: Peer,
        open: OpenSession,
    },
    /// Fences go out when this is durable.
    SessionClosing {
        session: SessionId,
    },
    SessionClosed {
        session: SessionId,
    },
    /// The session has the file open for writing, and did not before.
    WriterOpened {
        session: SessionId,
        ino: Ino,
    },
    /// These sessions have no handle for writing of these files any more.
    WritersClosed {
        writers: Vec<(SessionId, Ino)>,
    },
    VolumeRegistered(VolumeRegistered),
    /// In their order.
    ChainsChanged {
        changes: Vec<(ChainId, ChainChange)>,
    },
    /// Each chain is to have so many members, where nothing else is said.
    ReplicasSet {
        replicas: u32,
    },
    /// The volume has dropped these.
    Reaped {
        volume: VolumeId,
        ids: Vec<DataId>,
    },
    /// Volumes may have something of these, and no file has them.
    OrphansFound {
        ids: Vec<DataId>,
    },
    /// A group of chains for files of which there shall be so many copies; of these volumes.
    GroupMade {
        copies: Copies,
        volumes: Vec<VolumeId>,
    },
    /// The volume is to lose all its places, or is as any other again.
    Draining {
        volume: VolumeId,
        is_on: bool,
    },
    /// The volume is gone for good. Chains of which nobody else has a copy begin anew with these.
    VolumeRemoved {
        volume: VolumeId,
        heirs: Vec<(ChainId, VolumeId)>,
    },
    /// Chains do not move to balance volumes, or do again.
    BalancePaused {
        is_paused: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VolumeRegistered {
    pub(crate) volume: VolumeId,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) addr: SocketAddr,
    pub(crate) node: String,
    pub(crate) store: StoreId,
    pub(crate) incarnation: u64,
    pub(crate) capacity_bytes: u64,
    /// The volume has seen data ids up to this one.
    pub(crate) data_id_max: DataId,
}

impl VolumeRegistered {
    /// `node` is the volume's name in its certificate.
    pub(crate) fn new(volume: VolumeId, node: &str, register: &Register) -> Self {
        VolumeRegistered {
            volume,
            name: register.name.clone(),
            host: register.host.clone(),
            addr: register.addr,
            node: node.to_owned(),
            store: register.store,
            incarnation: register.incarnation,
            capacity_bytes: register.capacity_bytes,
            data_id_max: register.data_id_max,
        }
    }
}

/// What becomes of a chain. All but the first begin an epoch, which is not active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ChainChange {
    /// The head has taken the epoch over: it has the better copies of all who waited with it, and these
    /// lose their places.
    Activated,
    Removed(VolumeId),
    /// The same, and its copy is not the chain's.
    Left(VolumeId),
    /// The last member has all that the others have: it serves.
    Synced,
    /// One more member, at the end, that has nothing yet.
    Added(VolumeId),
    /// All copies may lack something: those that are in sync wait.
    Suspended,
    /// Of those that wait this one becomes the head.
    Resumed(VolumeId),
}

/// A planned mutation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Change {
    Create {
        parent: Ino,
        name: FileName,
        ino: Ino,
        body: NewBody,
        mode: u16,
        uid: u32,
        gid: u32,
        acls: NewAcls,
    },
    /// A create of a name that exists: opens it.
    Existing {
        ino: Ino,
    },
    Link {
        ino: Ino,
        parent: Ino,
        name: FileName,
    },
    Unlink {
        parent: Ino,
        name: FileName,
        /// The inode outlives its last name.
        keep: bool,
    },
    Rmdir {
        parent: Ino,
        name: FileName,
    },
    Rename {
        parent: Ino,
        name: FileName,
        new_parent: Ino,
        new_name: FileName,
        /// The replaced inode outlives its last name.
        keep: bool,
    },
    /// Each of two names gets what the other one stood for.
    Exchange {
        parent: Ino,
        name: FileName,
        new_parent: Ino,
        new_name: FileName,
    },
    /// A rename that changes nothing: both names are links to one inode.
    Nothing,
    SetAttr {
        ino: Ino,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
        atime: Option<Timestamp>,
        mtime: Option<Timestamp>,
        kill_privileges: bool,
    },
    /// Truncation to nothing: the old data id is reaped.
    Renew {
        ino: Ino,
        place: NewData,
        kill_privileges: bool,
    },
    /// Truncation to another size.
    Resize {
        ino: Ino,
        size: u64,
        kill_privileges: bool,
        /// Chunks are cut before the reply.
        trims: bool,
    },
    Commit(Commit),
    /// A gap before any bytes behind it.
    Extend(Commit),
    SetXattr {
        ino: Ino,
        name: XattrName,
        value: Vec<u8>,
    },
    RemoveXattr {
        ino: Ino,
        name: XattrName,
    },
    Lock {
        ino: Ino,
        lock: LockAsked,
    },
    Unlock {
        ino: Ino,
        owner: LockOwner,
        range: LockRange,
    },
    SetAcl {
        ino: Ino,
        kind: AclKind,
        acl: Option<Acl>,
        kill_setgid: bool,
    },
    /// Two files get each other's bytes, which are the same.
    TakeOver {
        ino: Ino,
        from: Ino,
    },
}

/// What a new inode inherits; boxed, since next to none does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NewAcls {
    pub(crate) access: Option<Box<Acl>>,
    pub(crate) default: Option<Box<Acl>>,
}

/// [`NewKind`] with its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum NewBody {
    Regular(NewData),
    Directory,
    Symlink(SymlinkTarget),
    Special(NewKind),
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes = Vec::with_capacity(RECORD_BYTES);
        postcard::to_extend(self, bytes).expect("records are plain data")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Record> {
        match postcard::take_from_bytes(bytes) {
            Ok((record, [])) => Some(record),
            Ok(_) | Err(_) => None,
        }
    }
}
