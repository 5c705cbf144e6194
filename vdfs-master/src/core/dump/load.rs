//! From the lines of a dump to a state. Holds the state and one line, so its memory is that of the
//! master which will serve it.

use std::sync::Arc;

use vdfs_proto::{
    Acl, AclKind, Chain, ChainId, ChainTable, ChunkSize, DataId, Epoch, FileKind, FileName, Ino,
    Member, MemberState, SessionId, StoreId, SymlinkTarget, Timestamp, VolumeId, VolumeInfo,
    XattrName,
};

use super::escape::unescape;
use super::objects::{
    BodyPart, ChainLine, FilePart, FilesystemLine, InodeLine, Line, MemberPart, NameLine,
    NumbersLine, SlotsLine, VolumeLine, XattrLine,
};
use super::{VERSION, next_sum};
use crate::core::directory::Directory;
use crate::core::groups::Group;
use crate::core::inode::{Body, FileBody, Inode, Nanos};
use crate::core::inodes::{Counters, Inodes};
use crate::core::state::{Numbers, PendingTrim, State, StoredVolume};
use crate::core::weight::Weights;
use crate::core::{Core, FsConfig, check};

/// Why a text is not the dump of a filesystem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("line {line}: not a line of a dump: {why}")]
    Line { line: u64, why: String },
    #[error("line {line}: {what}")]
    Content { line: u64, what: &'static str },
    #[error("form {version}; this program reads form {VERSION}")]
    Version { version: u32 },
    #[error("the dump is cut off behind line {line}")]
    Cut { line: u64 },
    #[error("the dump was changed: its sum is {found}, and should be {expected}")]
    Sum { found: String, expected: String },
    #[error("the dump contradicts itself: {0}")]
    Flawed(String),
}

/// Takes a dump line by line.
#[derive(Debug, Default)]
pub struct Loader {
    filesystem: Option<FsConfig>,
    is_balance_paused: bool,
    numbers: Option<NumbersLine>,
    state: Option<State>,
    table: ChainTable,
    sum: u32,
    lines: u64,
    has_ended: bool,
}

type Taken = Result<(), &'static str>;

impl Loader {
    /// Takes the next line, with its newline.
    pub fn take_line(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let number = self.lines + 1;
        if !bytes.ends_with(b"\n") {
            return Err(LoadError::Cut { line: self.lines });
        }
        let line = serde_json::from_slice(bytes).map_err(|why| LoadError::Line {
            line: number,
            why: why.to_string(),
        })?;
        match line {
            Line::VdfsDump { version } if version != VERSION => {
                return Err(LoadError::Version { version });
            }
            Line::End { lines, sum } => return self.take_end(lines, sum),
            line => self
                .take(line)
                .map_err(|what| LoadError::Content { line: number, what })?,
        }
        self.sum = next_sum(self.sum, bytes);
        self.lines = number;
        Ok(())
    }

    /// The filesystem; an error unless the whole dump was taken and makes one.
    pub fn finish(self) -> Result<Core, LoadError> {
        if !self.has_ended {
            return Err(LoadError::Cut { line: self.lines });
        }
        let mut state = self.state.ok_or(LoadError::Content {
            line: self.lines,
            what: "there are no inodes in it",
        })?;
        state.table = Arc::new(self.table);
        state.weights = Weights::of(&state);
        let flaws = check::flaws_of(&state, &mut |_| {});
        match flaws.into_iter().next() {
            Some(flaw) => Err(LoadError::Flawed(flaw)),
            None => Ok(Core::of_state(state)),
        }
    }

    fn take_end(&mut self, lines: u64, expected: String) -> Result<(), LoadError> {
        let found = format!("{:08x}", self.sum);
        if lines != self.lines || found != expected {
            return Err(LoadError::Sum { found, expected });
        }
        self.has_ended = true;
        Ok(())
    }

    fn take(&mut self, line: Line) -> Taken {
        let is_first = self.lines == 0;
        if is_first != matches!(line, Line::VdfsDump { .. }) || self.has_ended {
            return Err("a dump begins with `vdfs_dump` and ends with `end`");
        }
        match line {
            Line::VdfsDump { .. } => Ok(()),
            Line::Filesystem(line) => {
                self.is_balance_paused = line.is_balance_paused;
                self.filesystem = Some(config_of(&line).ok_or("not a filesystem")?);
                Ok(())
            }
            Line::Numbers(line) => {
                self.table.version = line.table_version;
                self.numbers = Some(line);
                Ok(())
            }
            Line::Slots(line) => self.begin_state(&line),
            line => self.take_object(line),
        }
    }

    fn begin_state(&mut self, slots: &SlotsLine) -> Taken {
        let config = self.filesystem.clone().ok_or("`filesystem` comes first")?;
        let numbers = self.numbers.as_ref().ok_or("`numbers` comes first")?;
        let counters = Counters {
            slots: slots.count,
            used: slots.used,
            free_head: slots.free_first,
            free_tail: slots.free_last,
            free_count: slots.free_count,
            generation_floor: slots.generation_floor,
        };
        self.state = Some(State {
            config,
            // The log begins anew.
            records: 1,
            numbers: Numbers {
                term: numbers.term,
                data: DataId(numbers.data),
                session: SessionId(numbers.session),
                volume: VolumeId(numbers.volume),
                fence: numbers.fence,
                lost_data: (DataId(numbers.lost_data.0), DataId(numbers.lost_data.1)),
            },
            inodes: Inodes::restoring(counters),
            xattrs: Default::default(),
            orphans: Default::default(),
            trims: Default::default(),
            reaps: Default::default(),
            sessions: Default::default(),
            writers: Default::default(),
            locks: Default::default(),
            volumes: Default::default(),
            removed: Default::default(),
            is_balance_paused: self.is_balance_paused,
            table: Default::default(),
            in_sync: Default::default(),
            groups: Default::default(),
            weights: Weights::default(),
        });
        Ok(())
    }

    fn take_object(&mut self, line: Line) -> Taken {
        let state = self.state.as_mut().ok_or("`slots` comes first")?;
        match line {
            Line::Volume(line) => {
                let (info, stored) = volume_of(line).ok_or("not a volume")?;
                Arc::make_mut(&mut state.volumes).insert(info.id, stored);
                self.table.volumes.push(info);
            }
            Line::Group(line) => {
                let groups = Arc::make_mut(&mut state.groups);
                if line.index as usize != groups.len() {
                    return Err("not the next group");
                }
                groups.push(Group {
                    copies: line.copies,
                    is_used: line.is_used,
                });
            }
            Line::Chain(line) => {
                let is_next = line.index as usize == self.table.chains.len();
                let chain = chain_of(&line).filter(|_| is_next);
                self.table.chains.push(chain.ok_or("not the next chain")?);
                let in_sync = members_of(&line.in_sync).ok_or("not members of a chain")?;
                if !in_sync.is_empty() {
                    Arc::make_mut(&mut state.in_sync).insert(ChainId(line.index), in_sync);
                }
            }
            Line::Inode(line) => return take_inode(state, line),
            Line::Name(line) => return take_name(state, &line),
            Line::Xattr(line) => return take_xattr(state, &line),
            Line::Orphan { ino } => drop(state.orphans.insert(Ino(ino), ())),
            Line::Trim(line) => {
                let trim = PendingTrim {
                    op: None,
                    size: line.size,
                };
                state.trims.insert(Ino(line.ino), trim);
            }
            Line::Reap(line) => {
                let key = (VolumeId(line.volume), DataId(line.data));
                state.reaps.insert(key, ());
            }
            Line::RemovedStore { store } => {
                let store = store.parse().map_err(|_| "not a store")?;
                Arc::make_mut(&mut state.removed).push(store);
            }
            Line::VdfsDump { .. }
            | Line::Filesystem(_)
            | Line::Numbers(_)
            | Line::Slots(_)
            | Line::End { .. } => unreachable!("taken before"),
        }
        Ok(())
    }
}

impl Core {
    /// After a load: goes beyond all numbers that another master may have given out since the dump was
    /// written, also one that was loaded from the same dump. Volumes remember them.
    pub fn outlive(&mut self, at: Timestamp) {
        let ms = at.secs.max(0) as u64 * 1000 + u64::from(at.nanos) / 1_000_000;
        let numbers = &mut self.state.numbers;
        numbers.term = numbers.term.max(ms / 1000);
        numbers.session.0 = numbers.session.0.max(ms);
        numbers.data.0 = numbers.data.0.max(ms * IDS_PER_MS);
        numbers.fence = numbers.fence.max(ms);
        // There are too few of these for a clock: an hour's loads differ.
        let minutes = (ms / 60_000 % 4096) as u32;
        self.state.inodes.raise_generation_floor(minutes + 1);
    }
}

/// Nobody gives out more data ids for long.
const IDS_PER_MS: u64 = 256;

fn config_of(line: &FilesystemLine) -> Option<FsConfig> {
    Some(FsConfig {
        cluster: line.cluster.parse().ok()?,
        chunk_size: ChunkSize::new(line.chunk_bytes).ok()?,
        replicas: line.replicas,
        hash_key: u128::from_str_radix(&line.hash_key, 16).ok()?.to_be_bytes(),
        root_uid: line.root_uid,
        root_gid: line.root_gid,
        files_max: line.files_max,
    })
}

fn volume_of(line: VolumeLine) -> Option<(VolumeInfo, StoredVolume)> {
    let stored = StoredVolume {
        store: line.store.parse().ok()?,
        incarnation: line.incarnation,
        capacity_bytes: line.capacity_bytes,
        is_draining: line.is_draining,
    };
    let info = VolumeInfo {
        id: VolumeId(line.id),
        addr: line.addr.parse().ok()?,
        name: line.name,
        host: line.host,
        node: line.node,
    };
    Some((info, stored))
}

fn chain_of(line: &ChainLine) -> Option<Chain> {
    Some(Chain {
        epoch: Epoch(line.epoch),
        members: members_of(&line.members)?,
        lost_below: DataId(line.lost_below),
        is_active: line.is_active,
    })
}

fn members_of(parts: &[MemberPart]) -> Option<Vec<Member>> {
    parts.iter().map(member_of).collect()
}

fn member_of(part: &MemberPart) -> Option<Member> {
    let store: StoreId = part.store.parse().ok()?;
    Some(Member {
        volume: VolumeId(part.volume),
        store,
        state: match (part.is_serving, part.is_waiting) {
            (true, false) => MemberState::Serving,
            (false, false) => MemberState::Syncing,
            (false, true) => MemberState::Waiting,
            (true, true) => return None,
        },
    })
}

fn take_inode(state: &mut State, line: InodeLine) -> Taken {
    let is_next = line.slot == state.inodes.restored() as u64;
    if !is_next || line.generation > Ino::GENERATION_MAX {
        return Err("not the inode of the next slot");
    }
    let body = body_of(line.is).ok_or("not an inode")?;
    let owned = (line.mode, line.uid, line.gid);
    let mut inode = Inode::new(owned, Timestamp::default(), body);
    (inode.generation, inode.nlink) = (line.generation, line.nlink);
    inode.atime = Nanos(line.atime_ns);
    inode.mtime = Nanos(line.mtime_ns);
    inode.ctime = Nanos(line.ctime_ns);
    state.inodes.restore_slot(inode);
    Ok(())
}

fn body_of(part: BodyPart) -> Option<Body> {
    let special = |kind, rdev| Body::Special { kind, rdev };
    Some(match part {
        BodyPart::File(file) => Body::File(file_of(&file)),
        BodyPart::Directory { parent } => Body::Directory(Arc::new(Directory::new(Ino(parent)))),
        BodyPart::Symlink { target } => {
            let target = SymlinkTarget::new(&unescape(&target)?).ok()?;
            Body::Symlink(Arc::new(target))
        }
        BodyPart::Fifo {} => special(FileKind::Fifo, 0),
        BodyPart::Socket {} => special(FileKind::Socket, 0),
        BodyPart::CharDevice { rdev } => special(FileKind::CharDevice, rdev),
        BodyPart::BlockDevice { rdev } => special(FileKind::BlockDevice, rdev),
        BodyPart::Free { next } => Body::Free { next },
        BodyPart::Retired {} => Body::Retired,
    })
}

fn file_of(part: &FilePart) -> FileBody {
    FileBody {
        size: part.size,
        data: DataId(part.data),
        version: part.version,
        truncations: part.truncations,
        chunks: part.chunks,
        seed: part.seed,
        group: part.group,
        holes: part.holes,
        tail_unknown: part.tail_unknown,
    }
}

/// The inodes must be there: names follow them.
fn take_name(state: &mut State, line: &NameLine) -> Taken {
    let (dir, ino) = (Ino(line.dir), Ino(line.ino));
    let name = unescape(&line.name).and_then(|name| FileName::new(&name).ok());
    let name = name.ok_or("not a name")?;
    let hash = state.hash(&name);
    let directory = state.directory(dir).map_err(|_| "a name in no directory")?;
    if directory.get(hash, &name).is_some() || directory.check_room(hash).is_err() {
        return Err("a name that is there already");
    }
    let directory = state.inodes.get_mut(dir).directory_mut();
    let directory = directory.expect("asked above");
    directory.insert(hash, name, ino);
    let child = state.inode(ino).map_err(|_| "a name of no inode")?;
    if child.directory().is_some() {
        let directory = state.inodes.get_mut(dir).directory_mut();
        directory.expect("asked above").subdirectories += 1;
    }
    Ok(())
}

fn take_xattr(state: &mut State, line: &XattrLine) -> Taken {
    let name = unescape(&line.name).and_then(|name| XattrName::new(&name).ok());
    let name = name.ok_or("not the name of an attribute")?;
    let value = unescape(&line.value).ok_or("not the value of an attribute")?;
    let ino = Ino(line.ino);
    let kind = AclKind::of_name(name.as_bytes());
    if kind.is_some() {
        let acl = Acl::parse(&value).map_err(|_| "not an ACL")?;
        acl.ok_or("an empty ACL")?;
    }
    if kind == Some(AclKind::Access) {
        state.inode(ino).map_err(|_| "an ACL of no inode")?;
        state.inodes.get_mut(ino).set_has_acl(true);
    }
    state.change_xattrs(ino, |xattrs| xattrs.insert(name, value));
    Ok(())
}
