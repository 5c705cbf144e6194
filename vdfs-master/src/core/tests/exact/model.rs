//! A filesystem of maps: what the master must be equal to. No caching, no log, no waiting, and no
//! code of the core's: where both are wrong in the same way, nothing is found.
//!
//! Inodes, data ids and sessions are numbered from 1 in the order in which they are made; what the
//! core calls them is [`super::ids`]'s matter. Time passes only by [`Model::pass`].

pub(super) mod acls;
mod dump;
mod files;
mod locks;
mod names;
mod sessions;
mod xattrs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use vdfs_proto::meta::{Access, Answer, MutateRequest, Mutated, Mutation, Query};
use vdfs_proto::{
    Attr, DataId, FileKind, FileName, HandleId, Ino, SessionId, Status, SymlinkTarget, Timestamp,
    XattrName,
};

pub(super) use dump::{Content, Dump, Seen};
pub(super) use files::FILE_BYTES_MAX;
use locks::Locks;
pub(super) use locks::{LOCKABLE, Units};

use crate::core::tests::world;

/// Clients that take part.
pub(super) const CLIENTS: usize = 3;
/// How long a file that a rename replaced can still be opened.
const LINGER_MS: u64 = 1000;

#[derive(Clone)]
pub(super) struct Model {
    pub(super) now_ms: u64,
    pub(super) nodes: BTreeMap<Ino, Node>,
    /// What inodes were when they ended, in this life of the master.
    pub(super) departed: BTreeMap<Ino, Attr>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// The present session of each client.
    pub(super) clients: [Option<SessionId>; CLIENTS],
    /// The session before that, if it had one.
    pub(super) former: [Option<SessionId>; CLIENTS],
    pub(super) next_ino: u64,
    pub(super) next_data: u64,
    pub(super) next_session: u64,
    /// The store of these data ids is gone.
    pub(super) lost_below: u64,
    /// What the last transition is answered.
    pub(super) answer: Expected,
    /// What a crash of the machine may take: states since the log was last synced, the oldest
    /// first, each at the end of a transition.
    pub(super) unsynced: Vec<Arc<Model>>,
    /// Numbers of copies of all files that were made, and 0 for the filesystem's.
    pub(super) kinds: BTreeSet<u16>,
    /// The last transition has the log synced.
    pub(super) is_synced: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Expected {
    #[default]
    Nothing,
    Mutated(Result<Mutated, Status>),
    Answer(Result<Answer, Status>),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    mode: u16,
    uid: u32,
    gid: u32,
    /// Of anything but a directory.
    nlink: u32,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    xattrs: BTreeMap<XattrName, Vec<u8>>,
    locks: Locks,
    /// Replaced by a rename, and still there until then.
    lingers_until_ms: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(File),
    Directory {
        parent: Ino,
        entries: BTreeMap<FileName, Ino>,
    },
    Symlink(SymlinkTarget),
    Special(FileKind, u32),
}

#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) size: u64,
    pub(super) data: DataId,
    pub(super) truncations: u32,
    version: u64,
    holes: bool,
    /// A dead writer may have left bytes behind the end.
    tail_unknown: bool,
    /// That its directory asked for when it was made; 0 for those of the filesystem.
    copies: u16,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    pub(super) handles: BTreeMap<HandleId, (Ino, Access)>,
    pub(super) slots: BTreeMap<u16, Slot>,
}

/// What was asked in one slot, the oldest first, and what the last was answered.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) asked: Vec<Mutation>,
    answer: Result<Mutated, Status>,
}

/// The states that proptest prints are of no use to whoever reads the transitions.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a filesystem of {} inodes", self.nodes.len())
    }
}

impl Model {
    /// An empty root, and a session for each client.
    pub(super) fn new(now_ms: u64) -> Self {
        let at = world::now(now_ms).wall;
        let root = Node {
            body: Body::Directory {
                parent: Ino::ROOT,
                entries: BTreeMap::new(),
            },
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 1,
            atime: at,
            mtime: at,
            ctime: at,
            xattrs: BTreeMap::new(),
            locks: Locks::new(),
            lingers_until_ms: None,
        };
        let mut model = Model {
            now_ms,
            nodes: BTreeMap::from([(Ino::ROOT, root)]),
            departed: BTreeMap::new(),
            sessions: BTreeMap::new(),
            clients: [None; CLIENTS],
            former: [None; CLIENTS],
            next_ino: 2,
            next_data: 1,
            next_session: 1,
            lost_below: 1,
            answer: Expected::Nothing,
            unsynced: Vec::new(),
            kinds: BTreeSet::from([0]),
            is_synced: false,
        };
        (0..CLIENTS).for_each(|by| model.begin_session(by));
        model
    }

    fn at(&self) -> Timestamp {
        world::now(self.now_ms).wall
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.collect();
    }

    /// Does a change once; a repetition gets the first answer.
    pub(super) fn mutate(&mut self, request: &MutateRequest) -> Result<Mutated, Status> {
        let (by, slot) = (request.op.session, request.op.slot);
        let session = self.sessions.get(&by).ok_or(Status::SessionExpired)?;
        let asked = session.slots.get(&slot).map_or(0, |slot| slot.asked.len());
        match request.op.seq.cmp(&(asked as u64)) {
            std::cmp::Ordering::Less => return Err(Status::StaleRequest),
            std::cmp::Ordering::Equal => return self.repeat(by, slot, &request.mutation),
            std::cmp::Ordering::Greater => {}
        }
        let answer = self.do_mutation(by, &request.mutation);
        let session = self.sessions.get_mut(&by).expect("found above");
        let stored = session.slots.entry(slot).or_insert_with(|| Slot {
            asked: Vec::new(),
            answer: answer.clone(),
        });
        stored.asked.push(request.mutation.clone());
        stored.answer = answer.clone();
        answer
    }

    /// The handle of a create is opened again: a master that was restarted does not know it.
    fn repeat(&mut self, by: SessionId, slot: u16, asked: &Mutation) -> Result<Mutated, Status> {
        let answer = self.sessions[&by].slots[&slot].answer.clone();
        if let (Mutation::Create(create), Ok(Mutated::Create(created))) = (asked, &answer)
            && let Some((handle, access)) = create.open
            && self.file(created.attr.ino).is_ok()
            && self
                .check_handle(by, handle, Some(created.attr.ino))
                .is_ok()
        {
            let session = self.sessions.get_mut(&by).expect("it has slots");
            session.handles.insert(handle, (created.attr.ino, access));
        }
        answer
    }

    fn do_mutation(&mut self, by: SessionId, mutation: &Mutation) -> Result<Mutated, Status> {
        match mutation {
            Mutation::Create(create) => self.create(by, create),
            Mutation::Link(link) => self.link(link),
            Mutation::Unlink(unlink) => self.unlink(unlink),
            Mutation::Rmdir(rmdir) => self.rmdir(rmdir),
            Mutation::Rename(rename) => self.rename(rename),
            Mutation::SetAttr(set) => self.set_attr(set),
            Mutation::Truncate(truncate) => self.truncate(truncate),
            Mutation::Commit(commit) => self.commit(commit).map(Mutated::Commit),
            Mutation::Extend(extend) => self.extend(&extend.commit),
            Mutation::SetXattr(set) => self.set_xattr(set),
            Mutation::SetAcl(set) => self.set_acl(set),
            Mutation::RemoveXattr(remove) => self.remove_xattr(remove),
            Mutation::Lock(lock) => self.lock(by, lock),
            Mutation::Unlock(unlock) => self.unlock(by, unlock),
            Mutation::TakeOver(_) => unreachable!("moves no byte that can be seen"),
        }
    }

    /// Listings are looked at by whoever knows the cookies.
    pub(super) fn ask(&mut self, by: SessionId, query: &Query) -> Result<Answer, Status> {
        if !self.sessions.contains_key(&by) {
            return Err(Status::SessionExpired);
        }
        match query {
            Query::Lookup(lookup) => {
                let ino = self.lookup(lookup.parent, &lookup.name)?;
                Ok(Answer::Lookup(self.attr(ino)?))
            }
            Query::GetAttr(get) => {
                let gone = self.departed.get(&get.ino).copied();
                let attr = self.attr(get.ino).or_else(|status| gone.ok_or(status));
                Ok(Answer::GetAttr(attr?))
            }
            Query::ReadLink(read) => match &self.node(read.ino)?.body {
                Body::Symlink(target) => Ok(Answer::ReadLink(target.clone())),
                _ => Err(Status::Invalid),
            },
            Query::GetXattr(get) => {
                let xattrs = &self.node(get.ino)?.xattrs;
                let value = xattrs.get(&get.name).ok_or(Status::NoData)?;
                Ok(Answer::GetXattr(value.clone()))
            }
            Query::ListXattr(list) => {
                let xattrs = &self.node(list.ino)?.xattrs;
                Ok(Answer::ListXattr(xattrs.keys().cloned().collect()))
            }
            query => self.ask_of_files(by, query),
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node, Status> {
        self.nodes.get(&ino).ok_or(Status::StaleInode)
    }

    fn node_mut(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).expect("looked up before")
    }

    /// It has changed.
    fn touch(&mut self, ino: Ino) {
        let at = self.at();
        self.node_mut(ino).ctime = at;
    }

    pub(super) fn attr(&self, ino: Ino) -> Result<Attr, Status> {
        let node = self.node(ino)?;
        let (kind, rdev, size, data_version, nlink) = match &node.body {
            Body::File(file) => (FileKind::Regular, 0, file.size, file.version, node.nlink),
            Body::Directory { entries, .. } => {
                let below = entries.values().filter(|ino| self.is_directory(**ino));
                let nlink = 2 + below.count() as u32;
                (FileKind::Directory, 0, entries.len() as u64, 0, nlink)
            }
            Body::Symlink(target) => {
                let size = target.as_bytes().len() as u64;
                (FileKind::Symlink, 0, size, 0, node.nlink)
            }
            Body::Special(kind, rdev) => (*kind, *rdev, 0, 0, node.nlink),
        };
        let has_holes = matches!(&node.body, Body::File(file) if file.holes);
        Ok(Attr {
            ino,
            kind,
            mode: node.mode,
            nlink,
            uid: node.uid,
            gid: node.gid,
            rdev,
            size,
            has_holes,
            has_acl: self.has_acl(ino),
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
            data_version,
        })
    }

    /// Ends what has no name, is not open, and does not linger.
    fn collect(&mut self) {
        let now_ms = self.now_ms;
        let is_dead = |(ino, node): (&Ino, &Node)| {
            let lingers = node.lingers_until_ms.is_some_and(|until| now_ms < until);
            let is_named = node.nlink > 0;
            (!is_named && !lingers && !self.is_open(*ino)).then_some(*ino)
        };
        let dead: Vec<Ino> = self.nodes.iter().filter_map(is_dead).collect();
        dead.into_iter().for_each(|ino| self.depart(ino));
    }

    fn depart(&mut self, ino: Ino) {
        let attr = self.attr(ino).expect("it ends once");
        self.departed.insert(ino, Attr { nlink: 0, ..attr });
        self.nodes.remove(&ino);
    }
}
