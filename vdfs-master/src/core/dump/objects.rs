//! The lines of a dump, and what they are made of.

use serde::{Deserialize, Serialize};
use vdfs_proto::{
    Chain, ChainId, Copies, DataId, FileKind, Ino, Member, MemberState, VolumeId, VolumeInfo,
    XattrName,
};

use super::escape::escape;
use crate::core::directory::Entry;
use crate::core::groups::Group;
use crate::core::inode::{Body, FileBody, Inode};
use crate::core::inodes::Counters;
use crate::core::state::{PendingTrim, State, StoredVolume};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    VdfsDump {
        version: u32,
    },
    Filesystem(FilesystemLine),
    Numbers(NumbersLine),
    Slots(SlotsLine),
    Volume(VolumeLine),
    Group(GroupLine),
    Chain(ChainLine),
    Inode(InodeLine),
    Name(NameLine),
    Xattr(XattrLine),
    /// An inode without a name.
    Orphan {
        ino: u64,
    },
    Trim(TrimLine),
    Reap(ReapLine),
    /// Of a volume that was removed.
    RemovedStore {
        store: String,
    },
    End {
        lines: u64,
        sum: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesystemLine {
    pub(super) cluster: String,
    pub(super) chunk_bytes: u64,
    /// `null`: nobody has said.
    pub(super) replicas: Option<u32>,
    /// Orders listings.
    pub(super) hash_key: String,
    pub(super) root_uid: u32,
    pub(super) root_gid: u32,
    pub(super) files_max: u64,
    /// Chains do not move to balance volumes.
    #[serde(default)]
    pub(super) is_balance_paused: bool,
}

/// The next free number of each kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NumbersLine {
    pub(super) term: u64,
    pub(super) data: u64,
    pub(super) session: u64,
    pub(super) volume: u32,
    pub(super) fence: u64,
    pub(super) table_version: u64,
    /// From here to below there, data ids may be of files that the log has lost.
    #[serde(default)]
    pub(super) lost_data: (u64, u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlotsLine {
    /// Lines of inodes.
    pub(super) count: u32,
    /// Of these, inodes that live.
    pub(super) used: u64,
    /// Free slots, first in, first out.
    pub(super) free_count: u64,
    #[serde(default)]
    pub(super) free_first: Option<u32>,
    #[serde(default)]
    pub(super) free_last: Option<u32>,
    /// New inodes get at least this generation.
    pub(super) generation_floor: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeLine {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) host: String,
    pub(super) addr: String,
    pub(super) node: String,
    pub(super) store: String,
    /// Of the process that was taken in last.
    #[serde(default)]
    pub(super) incarnation: u64,
    pub(super) capacity_bytes: u64,
    /// Its places are to move to others.
    #[serde(default)]
    pub(super) is_draining: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupLine {
    pub(super) index: u32,
    /// That there shall be of its files; otherwise as many as the filesystem says.
    #[serde(default)]
    pub(super) copies: Option<Copies>,
    /// Some data id lies in it.
    pub(super) is_used: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChainLine {
    pub(super) index: u32,
    pub(super) epoch: u64,
    /// Data ids below it had bytes here that are gone.
    pub(super) lost_below: u64,
    pub(super) is_active: bool,
    /// Head first.
    pub(super) members: Vec<MemberPart>,
    /// Of a chain that is not active: who served it when it was active last.
    #[serde(default)]
    pub(super) in_sync: Vec<MemberPart>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberPart {
    pub(super) volume: u32,
    pub(super) store: String,
    /// Otherwise it is syncing, or waiting.
    pub(super) is_serving: bool,
    /// All members had gone, and it is not known whose copy is the chain's.
    #[serde(default)]
    pub(super) is_waiting: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InodeLine {
    pub(super) slot: u64,
    pub(super) generation: u32,
    #[serde(default)]
    pub(super) nlink: u16,
    #[serde(default)]
    pub(super) mode: u16,
    #[serde(default)]
    pub(super) uid: u32,
    #[serde(default)]
    pub(super) gid: u32,
    #[serde(default)]
    pub(super) atime_ns: i64,
    #[serde(default)]
    pub(super) mtime_ns: i64,
    #[serde(default)]
    pub(super) ctime_ns: i64,
    pub(super) is: BodyPart,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum BodyPart {
    File(FilePart),
    Directory {
        parent: u64,
    },
    Symlink {
        target: String,
    },
    Fifo {},
    Socket {},
    CharDevice {
        rdev: u32,
    },
    BlockDevice {
        rdev: u32,
    },
    /// Without an inode; `next` in the list of free slots.
    Free {
        next: Option<u32>,
    },
    /// Without an inode for ever.
    Retired {},
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePart {
    pub(super) size: u64,
    pub(super) data: u64,
    pub(super) version: u64,
    pub(super) truncations: u32,
    /// No chunk from here on has bytes.
    pub(super) chunks: u32,
    pub(super) seed: u32,
    pub(super) group: u16,
    #[serde(default)]
    pub(super) holes: bool,
    /// Bytes behind the size may lie on the volumes.
    #[serde(default)]
    pub(super) tail_unknown: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameLine {
    pub(super) dir: u64,
    pub(super) name: String,
    pub(super) ino: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct XattrLine {
    pub(super) ino: u64,
    pub(super) name: String,
    pub(super) value: String,
}

/// What volumes hold behind `size` is cut before the file may grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrimLine {
    pub(super) ino: u64,
    pub(super) size: u64,
}

/// What a volume has still to drop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReapLine {
    pub(super) volume: u32,
    pub(super) data: u64,
}

impl FilesystemLine {
    pub(super) fn of(state: &State) -> Self {
        let config = &state.config;
        FilesystemLine {
            cluster: config.cluster.to_string(),
            chunk_bytes: config.chunk_size.bytes().into(),
            replicas: config.replicas,
            hash_key: format!("{:032x}", u128::from_be_bytes(config.hash_key)),
            root_uid: config.root_uid,
            root_gid: config.root_gid,
            files_max: config.files_max,
            is_balance_paused: state.is_balance_paused,
        }
    }
}

impl NumbersLine {
    pub(super) fn of(state: &State) -> Self {
        let numbers = &state.numbers;
        NumbersLine {
            term: numbers.term,
            data: numbers.data.0,
            session: numbers.session.0,
            volume: numbers.volume.0,
            fence: numbers.fence,
            table_version: state.table.version,
            lost_data: (numbers.lost_data.0.0, numbers.lost_data.1.0),
        }
    }
}

impl SlotsLine {
    pub(super) fn of(counters: &Counters) -> Self {
        SlotsLine {
            count: counters.slots,
            used: counters.used,
            free_count: counters.free_count,
            free_first: counters.free_head,
            free_last: counters.free_tail,
            generation_floor: counters.generation_floor,
        }
    }
}

impl VolumeLine {
    pub(super) fn of(info: &VolumeInfo, stored: &StoredVolume) -> Self {
        VolumeLine {
            id: info.id.0,
            name: info.name.clone(),
            host: info.host.clone(),
            addr: info.addr.to_string(),
            node: info.node.clone(),
            store: stored.store.to_string(),
            incarnation: stored.incarnation,
            capacity_bytes: stored.capacity_bytes,
            is_draining: stored.is_draining,
        }
    }
}

impl GroupLine {
    pub(super) fn of(index: u32, group: &Group) -> Self {
        GroupLine {
            index,
            copies: group.copies,
            is_used: group.is_used,
        }
    }
}

impl ChainLine {
    pub(super) fn of(id: ChainId, chain: &Chain, in_sync: &[Member]) -> Self {
        ChainLine {
            index: id.0,
            epoch: chain.epoch.0,
            lost_below: chain.lost_below.0,
            is_active: chain.is_active,
            members: chain.members.iter().map(MemberPart::of).collect(),
            in_sync: in_sync.iter().map(MemberPart::of).collect(),
        }
    }
}

impl MemberPart {
    fn of(member: &Member) -> Self {
        MemberPart {
            volume: member.volume.0,
            store: member.store.to_string(),
            is_serving: member.state == MemberState::Serving,
            is_waiting: member.state == MemberState::Waiting,
        }
    }
}

impl InodeLine {
    pub(super) fn of(slot: u64, inode: &Inode, is_being_written: bool) -> Self {
        InodeLine {
            slot,
            generation: inode.generation,
            nlink: inode.nlink,
            mode: inode.mode(),
            uid: inode.uid,
            gid: inode.gid,
            atime_ns: inode.atime.0,
            mtime_ns: inode.mtime.0,
            ctime_ns: inode.ctime.0,
            is: BodyPart::of(&inode.body, is_being_written),
        }
    }
}

impl BodyPart {
    fn of(body: &Body, is_being_written: bool) -> Self {
        match body {
            Body::File(file) => BodyPart::File(FilePart::of(file, is_being_written)),
            Body::Directory(directory) => BodyPart::Directory {
                parent: directory.parent.0,
            },
            Body::Symlink(target) => BodyPart::Symlink {
                target: escape(target.as_bytes()),
            },
            Body::Special { kind, rdev } => match kind {
                FileKind::Fifo => BodyPart::Fifo {},
                FileKind::Socket => BodyPart::Socket {},
                FileKind::CharDevice => BodyPart::CharDevice { rdev: *rdev },
                FileKind::BlockDevice => BodyPart::BlockDevice { rdev: *rdev },
                FileKind::Regular | FileKind::Directory | FileKind::Symlink => {
                    unreachable!("has a body of its own")
                }
            },
            Body::Free { next } => BodyPart::Free { next: *next },
            Body::Retired => BodyPart::Retired {},
        }
    }
}

impl FilePart {
    fn of(file: &FileBody, is_being_written: bool) -> Self {
        FilePart {
            size: file.size,
            data: file.data.0,
            version: file.version,
            truncations: file.truncations,
            chunks: file.chunks,
            seed: file.seed,
            group: file.group,
            holes: file.holes,
            tail_unknown: file.tail_unknown || is_being_written,
        }
    }
}

impl NameLine {
    pub(super) fn of(dir: Ino, entry: &Entry) -> Self {
        NameLine {
            dir: dir.0,
            name: escape(entry.name.as_bytes()),
            ino: entry.ino.0,
        }
    }
}

impl XattrLine {
    pub(super) fn of(ino: Ino, name: &XattrName, value: &[u8]) -> Self {
        XattrLine {
            ino: ino.0,
            name: escape(name.as_bytes()),
            value: escape(value),
        }
    }
}

impl TrimLine {
    pub(super) fn of(ino: Ino, trim: &PendingTrim) -> Self {
        TrimLine {
            ino: ino.0,
            size: trim.size,
        }
    }
}

impl ReapLine {
    pub(super) fn of(volume: VolumeId, data: DataId) -> Self {
        ReapLine {
            volume: volume.0,
            data: data.0,
        }
    }
}
