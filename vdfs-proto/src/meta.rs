//! The namespace: what clients ask of the master.

use serde::{Deserialize, Serialize};

use crate::acl::{Acl, AclKind};
use crate::attr::{Attr, FileKind, SetTime, Timestamp};
use crate::copies::Copies;
use crate::handshake::Role;
use crate::ids::{DataId, HandleId, Ino, OpId, SessionId, VolumeId};
use crate::layout::{ChainTable, Layout, MemberState, VolumeInfo};
use crate::lock::{LockKind, LockOwner, LockRange};
use crate::name::{FileName, SymlinkTarget, XattrName};
use crate::operation::operations;
use crate::totals::{NetTotals, OpTotals};

/// A change of the namespace. A retry carries the same op id and gets the first answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MutateRequest {
    pub op: OpId,
    pub mutation: Mutation,
}

/// A question about the namespace, or a change of what the session holds open. May be repeated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryRequest {
    pub session: SessionId,
    pub query: Query,
}

operations!(
    /// Changes of the namespace; what is logged.
    Mutation,
    /// Replies to [`Mutation`]s; what the reply store keeps.
    Mutated {
        Create -> Created,
        Link -> Attr,
        Unlink -> (),
        Rmdir -> (),
        Rename -> (),
        SetAttr -> Attr,
        Truncate -> Truncated,
        Commit -> Committed,
        Extend -> Committed,
        SetXattr -> (),
        SetAcl -> Attr,
        RemoveXattr -> (),
        Lock -> Attr,
        Unlock -> (),
        TakeOver -> (),
    }
);

operations!(
    /// Questions, and opens and closes.
    Query,
    /// Answers to [`Query`]s.
    Answer {
        Lookup -> Attr,
        GetAttr -> Attr,
        ReadLink -> SymlinkTarget,
        ReadDir -> Listing,
        GetXattr -> Vec<u8>,
        ListXattr -> Vec<XattrName>,
        StatFs -> FsStats,
        Open -> Opened,
        Release -> (),
        GetLayout -> Layout,
        AcquireAppend -> AppendToken,
        ReturnAppend -> (),
        GetChainTable -> ChainTable,
        SyncLog -> (),
        TestLock -> Option<Conflict>,
        WaitLock -> LockNews,
    }
);

operations!(
    /// Questions of operators.
    AdminRequest,
    /// Answers to [`AdminRequest`]s.
    AdminReply {
        GetStatus -> Box<StatusReport>,
        ListLocks -> LockReport,
        SetReplicas -> (),
        DrainVolume -> DrainAnswer,
        RemoveVolume -> RemoveAnswer,
        PauseBalance -> (),
        DropOrphans -> (),
        BeginInspection -> InspectionBegun,
        NextInspection -> InspectionPiece,
    }
);

impl AdminRequest {
    /// It changes something that is logged; for [`Role::Admin`] alone.
    pub fn is_order(&self) -> bool {
        match self {
            AdminRequest::SetReplicas(_)
            | AdminRequest::DrainVolume(_)
            | AdminRequest::RemoveVolume(_)
            | AdminRequest::PauseBalance(_)
            | AdminRequest::DropOrphans(_) => true,
            AdminRequest::GetStatus(_)
            | AdminRequest::ListLocks(_)
            | AdminRequest::BeginInspection(_)
            | AdminRequest::NextInspection(_) => false,
        }
    }
}

/// What kind of inode to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewKind {
    Regular,
    Directory,
    Symlink(SymlinkTarget),
    Fifo,
    Socket,
    CharDevice { rdev: u32 },
    BlockDevice { rdev: u32 },
}

/// What an open handle may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    pub read: bool,
    pub write: bool,
}

/// Makes an inode and its name; with `open`, opens it in the same round trip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Create {
    pub parent: Ino,
    pub name: FileName,
    pub kind: NewKind,
    /// 12 bits.
    pub mode: u16,
    /// Bits that a new inode does not get, unless its directory has a default ACL.
    pub umask: u16,
    pub uid: u32,
    /// The caller's group; a setgid directory overrules it.
    pub gid: u32,
    pub open: Option<(HandleId, Access)>,
    /// `O_EXCL`: an existing name is `Exists`. Without it an existing regular file is opened.
    pub exclusive: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    pub attr: Attr,
    /// Of a regular file.
    pub layout: Option<Layout>,
    /// False if the name existed.
    pub is_new: bool,
    /// As [`Opened::is_shared`]; false if nothing was opened.
    pub is_shared: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    pub ino: Ino,
    pub parent: Ino,
    pub name: FileName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unlink {
    pub parent: Ino,
    pub name: FileName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rmdir {
    pub parent: Ino,
    pub name: FileName,
    /// The directory that the caller has found under the name, if it has: anything else there is
    /// `StaleInode`.
    pub found: Option<Ino>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rename {
    pub parent: Ino,
    pub name: FileName,
    pub new_parent: Ino,
    pub new_name: FileName,
    pub mode: RenameMode,
    /// The directory that the caller has found under the new name, if it has: anything else there,
    /// or nothing, is `StaleInode`. Not looked at by an exchange.
    pub found: Option<Ino>,
}

/// What happens to what has the new name (rename(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// It loses it.
    Replace,
    /// `RENAME_NOREPLACE`: `Exists`.
    NoReplace,
    /// `RENAME_EXCHANGE`: it gets the old name; `NotFound` if there is nothing.
    Exchange,
}

/// Sets what is `Some`; ctime is always set. Sizes change by [`Truncate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetAttr {
    pub ino: Ino,
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// Clear suid, and sgid of a group-executable file (chown(2)).
    pub kill_privileges: bool,
}

/// `truncate(2)`: layouts are recalled from all other openers first. The reply leaves when the
/// chunks past `size` are trimmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truncate {
    pub ino: Ino,
    pub size: u64,
    pub kill_privileges: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truncated {
    pub attr: Attr,
    pub layout: Layout,
}

/// Gives a file the copy of its bytes that another one holds, in other chains perhaps, and that one
/// the old bytes. The layout is recalled from all other openers first. `StaleLayout`, and nothing
/// changes, unless the file is as it was when the copy was begun: nobody has changed it since. No time
/// and no version moves: nobody can see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOver {
    pub ino: Ino,
    /// As it was before the first byte was copied.
    pub data: DataId,
    pub truncations: u32,
    /// [`Attr::data_version`] of then.
    pub version: u64,
    /// A file without a name, as long as this one, that only the session has open.
    pub from: Ino,
}

/// Makes written bytes part of the file; sent after the volumes have acknowledged them. The size
/// becomes the maximum of what it was and `end`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    pub ino: Ino,
    pub data: DataId,
    pub truncations: u32,
    /// End of the bytes written, as a file offset.
    pub end: u64,
    /// A write began beyond the end of the file, or one before it failed.
    pub holes: bool,
    /// Time of the last `write(2)`.
    pub mtime: Timestamp,
    pub kill_privileges: bool,
}

/// Lets the file reach `commit.end` with zeros, before bytes are written behind that. Whoever asks
/// has nothing behind the committed size at the volumes: what a dead writer may have left there is
/// cut first, so that the gap shows none of it. An end that the file has just reached makes no gap:
/// it asks for the cut alone, before room is provided there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extend {
    pub commit: Commit,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    pub attr: Attr,
    /// `Attr::data_version` before this commit: if it is the one the client knew, nobody else has
    /// changed the bytes.
    pub data_version_before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    Set,
    /// `XATTR_CREATE`: `Exists` if it is there.
    Create,
    /// `XATTR_REPLACE`: `NoData` if it is not.
    Replace,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetXattr {
    pub ino: Ino,
    pub name: XattrName,
    /// At most `XATTR_VALUE_BYTES_MAX` bytes.
    pub value: Vec<u8>,
    pub mode: XattrMode,
}

/// Sets or removes an ACL; an access ACL changes the mode with it. `AccessDenied` for a default ACL
/// of anything but a directory, `NotSupported` for a symlink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetAcl {
    pub ino: Ino,
    pub kind: AclKind,
    pub acl: Option<Acl>,
    /// Clear sgid: the caller is not in the inode's group.
    pub kill_setgid: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoveXattr {
    pub ino: Ino,
    pub name: XattrName,
}

/// Locks a range of a regular file for an owner; what that owner held of it is replaced at once.
/// `WouldBlock` if somebody else's lock is in the way, `NoLocks` at a bound. The attributes say
/// whether what was cached before is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub ino: Ino,
    pub lock: LockAsked,
    /// The place in the queue of one who would wait; it lets those who came before go first. `None`
    /// asks only for what nobody holds.
    pub queued: Option<LockPlace>,
}

/// What is wanted, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockAsked {
    pub owner: LockOwner,
    /// The process, in the numbers of its host, for those who ask who holds a lock.
    pub pid: u32,
    pub kind: LockKind,
    pub range: LockRange,
}

/// A place in a queue for locks; lower ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockPlace(pub u64);

impl LockPlace {
    /// Behind everybody: of one who has not waited yet.
    pub const LAST: LockPlace = LockPlace(u64::MAX);
}

/// Unlocks a range; of what is not held, nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlock {
    pub ino: Ino,
    pub owner: LockOwner,
    pub range: LockRange,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    pub parent: Ino,
    pub name: FileName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetAttr {
    pub ino: Ino,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadLink {
    pub ino: Ino,
}

/// Entries behind `cookie`, in cookie order. Cookies are stable while others create and delete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadDir {
    pub ino: Ino,
    /// 0 begins; then the cookie of the last entry taken.
    pub cookie: u64,
    /// At most `READDIR_ENTRIES_MAX`.
    pub entries_max: u32,
    /// With the attributes of each entry.
    pub with_attrs: bool,
    /// Counts as an access of the directory (`relatime`, mount(8)).
    pub marks_access: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// What `..` is.
    pub parent: Ino,
    pub entries: Vec<ListingEntry>,
    /// Nothing follows.
    pub at_end: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListingEntry {
    pub name: FileName,
    pub ino: Ino,
    pub kind: FileKind,
    /// Positive, below 2^63, ascending.
    pub cookie: u64,
    pub attr: Option<Attr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetXattr {
    pub ino: Ino,
    pub name: XattrName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListXattr {
    pub ino: Ino,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatFs {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsStats {
    /// What files can hold, in bytes: the volumes' budgets divided by the copies.
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    /// Inodes in use.
    pub files: u64,
    /// Inodes there can be.
    pub files_max: u64,
    /// Bytes of files that are gone are still being dropped: there will be more room soon.
    pub is_reaping: bool,
}

/// Opens a regular file. Repeating it with the same handle is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    pub ino: Ino,
    pub handle: HandleId,
    pub access: Access,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    pub attr: Attr,
    pub layout: Layout,
    /// Another session has the file open for writing (for a handle for reading only: and has had so
    /// for a while): what is read through this handle must not be kept, and the handle not be mapped
    /// shared. Of the sessions that have a file open for writing one at most has a handle for writing
    /// that is not shared, and keeps getting such handles.
    pub is_shared: bool,
}

/// Closes a handle; one that is not open is closed already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub handle: HandleId,
    /// A flush of this handle failed: bytes beyond the committed size may lie on the volumes.
    pub tail_unknown: bool,
    /// When the file was read, if that is later than the access time it has shown.
    pub read_at: Option<Timestamp>,
}

/// The layout of a file, waiting for a truncation in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetLayout {
    pub ino: Ino,
}

/// The right to append, held until recalled. One holder per inode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcquireAppend {
    pub ino: Ino,
    pub handle: HandleId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendToken {
    /// The end of the file, where the next record goes.
    pub layout: Layout,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReturnAppend {
    pub ino: Ino,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetChainTable {}

/// Answered when everything acknowledged so far is on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncLog {}

/// A lock that is in the way of the one asked for, if there is one (`F_GETLK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestLock {
    pub ino: Ino,
    pub lock: LockAsked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    pub session: SessionId,
    pub pid: u32,
    pub kind: LockKind,
    pub range: LockRange,
}

/// Answered when [`Lock`] may succeed, after `LOCK_PARK_MS` if it does not, and with `Deadlock` if it
/// never can. Whoever does not ask again within a moment has left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitLock {
    pub ino: Ino,
    pub lock: LockAsked,
    /// As the answer before gave it; [`LockPlace::LAST`] at first.
    pub place: LockPlace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockNews {
    pub place: LockPlace,
    /// It is this one's turn to lock.
    pub is_free: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetStatus {}

/// How many members each chain is to have from now on, but those of directories that ask for a number
/// of their own. Answered when that is durable; the copies are
/// made, or dropped, later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReplicas {
    /// From 1 to `CHAIN_MEMBERS_MAX`.
    pub replicas: u32,
}

/// The volume gets no new places and no new data, and its places move to others; or, with `is_on` false,
/// it is as any other again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainVolume {
    pub volume: VolumeId,
    pub is_on: bool,
}

/// What became of the order. All but the first change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainAnswer {
    /// It is on the disk; the places move meanwhile.
    Logged,
    Unknown,
    /// No other volume serves that is not drained itself.
    NoOther,
    /// The others are on so many hosts, fewer than there shall be copies.
    TooFewHosts {
        hosts: u32,
        replicas: u32,
    },
    /// What it holds does not fit into what the others have left.
    NoRoom {
        held_bytes: u64,
        free_bytes: u64,
    },
}

/// Takes a volume out of the table for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveVolume {
    pub volume: VolumeId,
    /// Also if nobody else has a copy of what it holds: that is lost then.
    pub may_lose: bool,
}

/// What became of the order. All but the first change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoveAnswer {
    /// It is on the disk.
    Removed,
    Unknown,
    /// It runs and is a member of so many chains, of some of them alone.
    Serves {
        chains: u32,
        alone: u32,
    },
    /// It is away, and nobody else has a copy of what lies on these.
    HasOnlyCopy {
        chains: u32,
    },
    /// Nobody is there who could go on with its chains.
    NoOther,
    /// It has not been silent for its lease since the master started.
    MayBeAlive,
}

/// Whether chains move to volumes that have fewer than their share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseBalance {
    pub is_paused: bool,
}

/// Who holds locks of an inode, and who waits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLocks {
    pub ino: Ino,
}

/// At most `LOCKS_LISTED_MAX` of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockReport {
    pub held: Vec<ListedLock>,
    /// In the order of their places.
    pub waiting: Vec<ListedLock>,
    /// There are more.
    pub is_cut: bool,
    /// The sessions of both.
    pub sessions: Vec<LockingSession>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedLock {
    pub session: SessionId,
    pub lock: LockAsked,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockingSession {
    pub id: SessionId,
    pub host: String,
    pub mount: String,
}

/// What an operator asks of a running master's state as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inspection {
    /// Log, checkpoints and all invariants.
    Check,
    /// Everything as text.
    Dump,
}

/// Has all volumes drop what they have of data ids that no file has: none had them at some instant after
/// they were given out, and so none ever will. At most `REAP_BATCH_MAX`. For [`Role::Admin`] alone.
/// `Invalid` if one was not given out yet, or may be of a file that the log has lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropOrphans {
    pub ids: Vec<DataId>,
}

/// Takes one instant of the state and inspects it beside the service; ends the inspection before.
/// For [`Role::Admin`] alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeginInspection {
    pub what: Inspection,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InspectionBegun {
    pub inspection: u64,
}

/// The next piece, waiting a little for it. `NotFound` if the inspection has ended: another began,
/// nobody asked for too long, or there was no memory for it while so much was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextInspection {
    pub inspection: u64,
    /// 0, 1, ..; the last one may be asked for again.
    pub piece: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InspectionPiece {
    /// It was there: otherwise ask for the same again.
    pub is_there: bool,
    /// Of a dump.
    pub text: Vec<u8>,
    /// Of a check.
    pub findings: Vec<Finding>,
    /// Nothing follows.
    pub is_last: bool,
    /// How far it has come, in slots of inodes.
    pub done: u64,
    pub total: u64,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// With the file and the offset, where it is in one.
    pub what: String,
    pub way_out: String,
}

/// Facts of the whole system, as the master knows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    pub stats: FsStats,
    pub ram: MetadataRam,
    pub chunk_bytes: u32,
    /// Of what directories ask nothing else for.
    pub replicas: u32,
    pub chains: ChainCounts,
    /// By number.
    pub groups: Vec<GroupStatus>,
    pub volumes: Vec<VolumeStatus>,
    pub sessions: Vec<SessionStatus>,
    /// Files with bytes that are gone for good.
    pub lost_files: u64,
    pub lost_bytes: u64,
    /// Paths of some of them.
    pub lost_names: Vec<String>,
    /// All files were looked at for what is lost and what waits; otherwise there may be more.
    pub is_counted: bool,
    /// Why mutations are refused, or wait, at the moment (a full or failing disk under the log).
    pub log_trouble: Option<LogTrouble>,
    /// A volume knows more than the log, if one does: nothing is deleted there.
    pub history_lost: Option<String>,
    /// Certificates seen, and the master's own, that end within [`CERTIFICATE_WARNING_SECS`].
    pub certificates: Vec<CertificateEnd>,
    /// Of the master's door.
    pub net: NetTotals,
    pub ops: Vec<OpTotals>,
    pub uptime_ms: u64,
    pub balance: BalanceStatus,
}

/// How chains move to volumes that have fewer than their share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceStatus {
    pub is_paused: bool,
    /// Chains that are being moved, off drained volumes too.
    pub moving: u32,
    /// How far it has come.
    pub progress: MoveProgress,
}

/// Of moves that belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveProgress {
    /// Places in chains that are still to move.
    pub left: u32,
    /// Places that have moved since the master knows of it.
    pub done: u32,
    /// At the rate so far; `None` as long as nothing has moved, and when nothing is left.
    pub remaining_ms: Option<u64>,
}

/// The master's memory for names and all else that it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataRam {
    pub used_bytes: u64,
    /// At the limit nothing new is made; `None`: there is no limit.
    pub limit_bytes: Option<u64>,
    /// Twice in memory while a checkpoint is written.
    pub copied_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTrouble {
    pub why: String,
    pub since_ms: u64,
    /// Questions are answered; otherwise everybody waits.
    pub serves_reads: bool,
}

/// How long before its end a certificate is worth a word: 30 days.
pub const CERTIFICATE_WARNING_SECS: u64 = 30 * 24 * 3600;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateEnd {
    pub role: Role,
    pub node: String,
    pub ends: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainCounts {
    pub total: u32,
    /// As many copies as there shall be, all of which are served.
    pub whole: u32,
    /// Fewer.
    pub short: u32,
    pub lost: u32,
    /// All members had gone, and too few are back to know whose copy is the chain's. Counted beside
    /// the others.
    pub waiting: u32,
}

/// A group of chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// That there shall be of each chunk; `None`: as many as the filesystem keeps.
    pub copies: Option<Copies>,
    pub chains: u32,
    /// Of these, those with fewer copies than there shall be, or of which some are not served.
    pub short: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeState {
    Serving,
    /// Not heard for its lease.
    Away,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    pub info: VolumeInfo,
    pub state: VolumeState,
    /// Since the last heartbeat.
    pub silent_ms: u64,
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// What members of its chains are.
    pub membership: MemberState,
    /// Chains of which it is a member.
    pub chains: u32,
    /// While it is drained.
    pub drain: Option<DrainStatus>,
    /// Files with bytes there, while it is away.
    pub waiting_files: u64,
    /// Paths of some of them.
    pub waiting_names: Vec<String>,
    /// Its clock less the master's.
    pub clock_ahead_ms: Option<i64>,
    /// Of its door, when it last told.
    pub net: NetTotals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Nothing is left of it when no place is.
    pub progress: MoveProgress,
    /// What its places hold, about, in bytes.
    pub left_bytes: u64,
    /// Others can take what is left; otherwise it waits for room, or for a host.
    pub can_move: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    pub id: SessionId,
    pub host: String,
    pub mount: String,
    pub idle_ms: u64,
    pub handles: u32,
    /// Slots that keep the reply to their last change.
    pub slots: u32,
    /// Ranges and whole files that programs of it have locked.
    pub locks: u32,
    /// Rights that others wait for it to give back.
    pub recalls: u32,
    /// Since the first of these was asked back.
    pub recalled_ms: u64,
    /// Its clock less the master's.
    pub clock_ahead_ms: Option<i64>,
}
