//! Everything that is logged, and the one place where it changes.
//!
//! Each part is shared copy-on-write, so that an image is one instant of everything at the cost of
//! some pointers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vdfs_proto::meta::Mutated;
use vdfs_proto::{
    Attr, ChainId, ChainTable, DataId, Ino, Member, OpId, SessionId, Status, StoreId, Timestamp,
    VolumeId, XattrName,
};

use super::cow::CowMap;
use super::directory::{Directory, NameHash};
use super::groups::Group;
use super::inode::{Body, Inode};
use super::inodes::Inodes;
use super::limits::{GENERATIONS_SKIPPED, IDS_SKIPPED};
use super::locks::LockTable;
use super::record::{Change, Record};
use super::replies::{Outcome, Slots};
use super::weight::Weights;
use super::{FsConfig, Peer, RestoreError};

pub(crate) type Xattrs = BTreeMap<XattrName, Vec<u8>>;

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) config: FsConfig,
    /// Records applied.
    pub(crate) records: u64,
    pub(crate) numbers: Numbers,
    pub(crate) inodes: Inodes,
    pub(crate) xattrs: CowMap<Ino, Arc<Xattrs>>,
    /// Inodes without a name that somebody may have open.
    pub(crate) orphans: CowMap<Ino, ()>,
    pub(crate) trims: CowMap<Ino, PendingTrim>,
    /// What a volume has still to drop.
    pub(crate) reaps: CowMap<(VolumeId, DataId), ()>,
    pub(crate) sessions: CowMap<SessionId, Session>,
    /// Who may write to what.
    pub(crate) writers: CowMap<(SessionId, Ino), ()>,
    pub(crate) locks: LockTable,
    pub(crate) volumes: Arc<BTreeMap<VolumeId, StoredVolume>>,
    /// Of volumes that were removed, oldest first, at most `REMOVED_STORES_MAX`: whoever comes with one of
    /// these is refused.
    pub(crate) removed: Arc<Vec<StoreId>>,
    pub(crate) is_balance_paused: bool,
    pub(crate) table: Arc<ChainTable>,
    /// Of chains that are not active: who served when they were last. See `chains`.
    pub(crate) in_sync: Arc<BTreeMap<ChainId, Vec<Member>>>,
    /// Of the chains of the table, by number.
    pub(crate) groups: Arc<Vec<Group>>,
    /// Follows from the rest.
    pub(crate) weights: Weights,
}

/// Counters of what is given out. Each is the next free number, but `term`, which is the present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) term: u64,
    pub(crate) data: DataId,
    pub(crate) session: SessionId,
    pub(crate) volume: VolumeId,
    pub(crate) fence: u64,
    /// From here to below there, data ids may be of files that the log has lost.
    pub(crate) lost_data: (DataId, DataId),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Nobody else may speak for it.
    pub(crate) owner: Peer,
    pub(crate) identity: String,
    pub(crate) host: String,
    pub(crate) mount: String,
    pub(crate) closing: Option<Closing>,
    pub(crate) slots: Arc<Slots>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Closing {
    pub(crate) fence: u64,
}

/// What the chain table does not say of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredVolume {
    pub(crate) store: StoreId,
    /// Of the process that was taken in last.
    pub(crate) incarnation: u64,
    /// At its last logged registration: its weight.
    pub(crate) capacity_bytes: u64,
    /// It gets no new places, and its places move to others.
    pub(crate) is_draining: bool,
}

/// Chunks that must be cut before the file may grow again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingTrim {
    /// The truncation that waits for it.
    pub(crate) op: Option<OpId>,
    /// Bytes that stay.
    pub(crate) size: u64,
}

/// What follows from a record outside the state.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) answer: Option<(OpId, Outcome)>,
    /// Data ids that entered the reap queues.
    pub(crate) reaped: Vec<DataId>,
    /// The file that a rename has replaced and not ended.
    pub(crate) replaced: Option<Ino>,
    /// Inodes that have ended.
    pub(crate) departed: Vec<Attr>,
}

impl State {
    pub(crate) fn from_first_record(bytes: &[u8]) -> Result<Self, RestoreError> {
        match Record::decode(bytes) {
            Some(Record::Format { config, at }) => Ok(State::format(config, at)),
            Some(_) | None => Err(RestoreError::NotAFormat),
        }
    }

    fn format(config: FsConfig, at: Timestamp) -> Self {
        let numbers = Numbers {
            term: 0,
            data: DataId(1),
            session: SessionId(1),
            volume: VolumeId(1),
            fence: 1,
            lost_data: (DataId(0), DataId(0)),
        };
        let root = root_inode(&config, at);
        let mut state = State {
            config,
            records: 1,
            numbers,
            inodes: Inodes::new(),
            xattrs: CowMap::default(),
            orphans: CowMap::default(),
            trims: CowMap::default(),
            reaps: CowMap::default(),
            sessions: CowMap::default(),
            writers: CowMap::default(),
            locks: LockTable::default(),
            volumes: Arc::default(),
            removed: Arc::default(),
            is_balance_paused: false,
            table: Arc::default(),
            in_sync: Arc::default(),
            groups: Arc::new(vec![Group::default()]),
            weights: Weights::default(),
        };
        state.occupy(Ino::ROOT, root);
        state
    }

    pub(crate) fn replay(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let number = self.records + 1;
        match Record::decode(bytes) {
            Some(Record::Format { .. }) | None => Err(RestoreError::Undecodable { number }),
            Some(record) => {
                self.apply(&record);
                Ok(())
            }
        }
    }

    /// The only way in which the state changes. Panics if the record does not fit the state.
    pub(crate) fn apply(&mut self, record: &Record) -> Applied {
        let mut applied = Applied::default();
        match record {
            Record::Format { .. } => unreachable!("a filesystem is made once"),
            Record::Term { skip_ids } => self.apply_term(*skip_ids),
            Record::Change { op, at, change } => {
                if let Some(mutated) = self.apply_change(*op, *at, change, &mut applied) {
                    self.answer(*op, Ok(mutated), &mut applied);
                }
            }
            Record::Refused { op, status } => self.answer(*op, Err(*status), &mut applied),
            Record::Trimmed { ino } => self.apply_trimmed(*ino, &mut applied),
            Record::TailTrim { ino } => self.apply_tail_trim(*ino),
            Record::Renewed { ino, place } => self.apply_renewed(*ino, *place, &mut applied),
            Record::TailUnknown { ino } => self.mark_tail_unknown(*ino),
            Record::Accessed { ino, at } => self.apply_accessed(*ino, *at),
            Record::Dropped { inos } => self.apply_dropped(inos, &mut applied),
            Record::SessionOpened {
                session,
                owner,
                open,
            } => self.apply_session_opened(*session, owner, open),
            Record::SessionClosing { session } => self.apply_session_closing(*session),
            Record::SessionClosed { session } => self.apply_session_closed(*session),
            Record::WriterOpened { session, ino } => self.apply_writer_opened(*session, *ino),
            Record::WritersClosed { writers } => self.apply_writers_closed(writers),
            Record::VolumeRegistered(registered) => self.apply_volume_registered(registered),
            Record::ChainsChanged { changes } => self.apply_chains_changed(changes),
            Record::ReplicasSet { replicas } => self.config.replicas = Some(*replicas),
            Record::Reaped { volume, ids } => self.apply_reaped(*volume, ids),
            Record::OrphansFound { ids } => {
                ids.iter()
                    .for_each(|data| self.queue_reap(*data, &mut applied));
            }
            Record::GroupMade { copies, volumes } => self.apply_group_made(*copies, volumes),
            Record::Draining { volume, is_on } => self.apply_draining(*volume, *is_on),
            Record::VolumeRemoved { volume, heirs } => self.apply_volume_removed(*volume, heirs),
            Record::BalancePaused { is_paused } => self.is_balance_paused = *is_paused,
        }
        self.records += 1;
        applied
    }

    /// `None`: answered later, by the end of a pending trim.
    fn apply_change(
        &mut self,
        op: OpId,
        at: Timestamp,
        change: &Change,
        applied: &mut Applied,
    ) -> Option<Mutated> {
        match change {
            Change::Resize { .. } => return self.apply_resize(op, at, change),
            Change::Renew { .. } => return Some(self.apply_renew(at, change, applied)),
            Change::Commit(commit) => {
                return Some(Mutated::Commit(self.apply_commit(at, commit)));
            }
            Change::Extend(commit) => {
                return Some(Mutated::Extend(self.apply_commit(at, commit)));
            }
            Change::SetXattr { ino, name, value } => {
                self.apply_set_xattr(at, *ino, name, value);
                return Some(Mutated::SetXattr(()));
            }
            Change::RemoveXattr { ino, name } => {
                self.apply_remove_xattr(at, *ino, name);
                return Some(Mutated::RemoveXattr(()));
            }
            Change::Lock { ino, lock } => {
                return Some(Mutated::Lock(self.apply_lock(op.session, *ino, *lock)));
            }
            Change::Unlock { ino, owner, range } => {
                self.apply_unlock(op.session, (*ino, *owner), *range);
                return Some(Mutated::Unlock(()));
            }
            Change::TakeOver { ino, from } => {
                self.apply_take_over(*ino, *from);
                return Some(Mutated::TakeOver(()));
            }
            Change::SetAcl { .. } => {
                return Some(Mutated::SetAcl(self.apply_set_acl(at, change)));
            }
            _ => {}
        }
        Some(self.apply_to_names(at, change, applied))
    }

    /// Stores the answer for retries and hands it out.
    pub(crate) fn answer(&mut self, op: OpId, outcome: Outcome, applied: &mut Applied) {
        if let Some(session) = self.sessions.get_mut(op.session) {
            let slots = Arc::make_mut(&mut session.slots);
            let is_first = slots.store(op.slot, op.seq, outcome.clone());
            if is_first {
                self.weigh_reply();
            }
        }
        applied.answer = Some((op, outcome));
    }

    fn apply_term(&mut self, skip_ids: bool) {
        self.numbers.term += 1;
        if skip_ids {
            self.numbers.data.0 += IDS_SKIPPED;
            self.numbers.session.0 += IDS_SKIPPED;
            self.inodes.raise_generation_floor(GENERATIONS_SKIPPED);
        }
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<&Inode, Status> {
        self.inodes.get(ino)
    }

    /// `NotFound` if it has ended: it was empty then, and there is no name in it, nor will there be.
    pub(crate) fn directory(&self, ino: Ino) -> Result<&Directory, Status> {
        let inode = self.inode(ino).map_err(|_| Status::NotFound)?;
        inode.directory().ok_or(Status::NotDirectory)
    }

    pub(crate) fn hash(&self, name: &vdfs_proto::FileName) -> NameHash {
        NameHash::of(&self.config.hash_key, name)
    }
}

fn root_inode(config: &FsConfig, at: Timestamp) -> Inode {
    let body = Body::Directory(Arc::new(Directory::new(Ino::ROOT)));
    Inode::new((0o755, config.root_uid, config.root_gid), at, body)
}
