//! A master and up to three volumes, which share their chunks, in one struct: enough of the protocol for the client's rules to be tested,
//! and switches that make it fail. It keeps what it was asked, so that tests assert what was sent.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use vdfs_client::{ClientConfig, Fs, KernelCache, NewFile};
use vdfs_net::carrier::Outcome;
use vdfs_net::in_process::Switchboard;
use vdfs_net::{PeerIdentity, Request, Response, Service, Target};
use vdfs_proto::chunk::block_count;
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::data::{
    BlockCount, ChangeSpace, DataReply, DataRequest, Doubted, Read, ReadDone, SpaceKind, Write,
    Written,
};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::{
    Answer, AppendToken, Committed, Created, FsStats, MutateRequest, Mutated, Mutation, NewKind,
    Opened, Query, QueryRequest, Truncated,
};
use vdfs_proto::session::{
    Event, Events, RecallOutcome, Right, SessionOpened, SessionReply, SessionRequest,
    SessionResumed,
};
use vdfs_proto::sums::piece_sums;
use vdfs_proto::{
    Attr, Chain, ChainTable, ChunkId, ChunkSize, ClusterId, DataId, Epoch, FileKind, FileName,
    HandleId, Ino, Layout, Member, MemberState, OpId, SessionId, Status, StoreId, Timestamp,
    Version, VolumeId, VolumeInfo,
};

pub(crate) const CHUNK: u64 = 64 << 10;
const PARK: Duration = Duration::from_millis(50);
pub(crate) const VOLUMES: [VolumeId; 3] = [VolumeId(1), VolumeId(2), VolumeId(3)];

/// What becomes of the next request of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It does not arrive.
    Lost,
    /// It is done, but the answer does not arrive.
    AnswerLost,
    Refused(Status),
    Slow(Duration),
    /// It is done, but the answer takes its time.
    AnswerSlow(Duration),
}

/// A request that has arrived at a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) volume: VolumeId,
    pub(crate) name: &'static str,
    /// Of a change.
    pub(crate) op: Option<OpId>,
}

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) attr: Attr,
    pub(crate) layout: Layout,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: HashMap<Ino, File>,
    names: HashMap<(Ino, FileName), Ino>,
    links: HashMap<Ino, vdfs_proto::SymlinkTarget>,
    pub(crate) chunks: HashMap<ChunkId, Vec<u8>>,
    sessions: HashSet<SessionId>,
    sessions_begun: u64,
    events: BTreeMap<u64, Event>,
    replies: HashMap<(SessionId, u16), (u64, Result<Mutated, Status>)>,
    writes: HashMap<(SessionId, u16), u64>,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    /// What `StatFs` says.
    pub(crate) is_reaping: bool,
    /// Faults that stay.
    broken: HashMap<&'static str, Status>,
    /// Faults of one volume, which stay.
    sick: HashMap<(VolumeId, &'static str), Fault>,
    /// Reads whose bytes come with a bit flipped.
    pub(crate) rotten_reads: u32,
    /// Doubts that are answered as being looked into.
    pub(crate) open_doubts: u32,
    /// Of every chain, head first.
    members: Vec<(VolumeId, MemberState)>,
    pub(crate) asked: Vec<Asked>,
    /// Names of what was executed, in order.
    pub(crate) done: Vec<&'static str>,
    /// Every mutation that arrived.
    pub(crate) ops: Vec<(OpId, &'static str)>,
    pub(crate) commits: Vec<vdfs_proto::meta::Commit>,
    pub(crate) recalled: Vec<(u64, RecallOutcome)>,
    /// Another client's truncation that waits for the recall.
    pub(crate) truncate_when_recalled: Option<Ino>,
    pub(crate) released: Vec<vdfs_proto::meta::Release>,
    pub(crate) handles: HashSet<HandleId>,
    epoch: u64,
    next: u64,
    /// Ranges of writes being applied.
    flying: Vec<(ChunkId, u32, u32)>,
}

/// Shared by both services and the test.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) switchboard: Switchboard,
    pub(crate) kernel: Arc<FakeKernel>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
pub(crate) struct FakeKernel {
    pub(crate) dropped: Mutex<Vec<(Ino, u64, u64)>>,
    /// Locked while pages are in use.
    pub(crate) pages: Arc<tokio::sync::Mutex<()>>,
}

impl KernelCache for FakeKernel {
    fn invalidate_data(&self, ino: Ino, offset: u64, len: u64) {
        self.dropped.lock().push((ino, offset, len));
    }

    fn drop_data(&self, ino: Ino) -> BoxFuture<'static, ()> {
        self.invalidate_data(ino, 0, 0);
        let pages = self.pages.clone();
        async move { drop(pages.lock().await) }.boxed()
    }

    fn drop_attributes(&self, _ino: Ino) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

fn addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

impl Fake {
    pub(crate) fn start() -> Fake {
        let fake = Fake {
            state: Arc::default(),
            switchboard: Switchboard::default(),
            kernel: Arc::default(),
            news: Arc::default(),
        };
        {
            let mut state = fake.state.lock();
            state.epoch = 1;
            state.members = vec![(VOLUMES[0], MemberState::Serving)];
            state.next = 1;
            let root = state.new_file(FileKind::Directory, 0o755);
            assert_eq!(root, Ino::ROOT);
        }
        fake.attach_master();
        for volume in VOLUMES {
            fake.attach_volume(volume);
        }
        fake
    }

    pub(crate) fn attach_master(&self) {
        let service = Arc::new(FakeService(self.clone(), None));
        self.switchboard.attach(Role::Master, "m", service);
    }

    fn attach_volume(&self, volume: VolumeId) {
        let service = Arc::new(FakeService(self.clone(), Some(volume)));
        self.switchboard
            .attach(Role::Volume, &node_of(volume), service);
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let identity = PeerIdentity {
            cluster: ClusterId(1),
            role: Role::Client,
            node: "test".to_owned(),
            addr: None,
            same_host: true,
            certificate_ends: None,
        };
        ClientConfig {
            identity: "test".to_owned(),
            host: "here".to_owned(),
            mount: "/mnt".to_owned(),
            master: vec![Target {
                addr: addr(),
                role: Role::Master,
                node: None,
            }],
            connector: Arc::new(self.switchboard.connector(identity)),
            timeout: None,
            kernel_cache: self.kernel.clone(),
            read_only: false,
        }
    }

    pub(crate) async fn connect(&self) -> Fs {
        Fs::connect(self.config()).await.expect("the fake answers")
    }

    /// The next request of this name meets `fault`; several queue up.
    pub(crate) fn fail(&self, name: &'static str, fault: Fault) {
        let mut state = self.state.lock();
        state.faults.entry(name).or_default().push_back(fault);
    }

    /// Every request of this name is refused, until [`Fake::mend`].
    pub(crate) fn break_all(&self, name: &'static str, status: Status) {
        self.state.lock().broken.insert(name, status);
    }

    pub(crate) fn mend(&self, name: &'static str) {
        self.state.lock().broken.remove(name);
    }

    /// Every request of this name meets `fault` at one volume, until it is cured.
    pub(crate) fn sicken(&self, volume: VolumeId, name: &'static str, fault: Fault) {
        self.state.lock().sick.insert((volume, name), fault);
    }

    pub(crate) fn cure(&self, volume: VolumeId, name: &'static str) {
        self.state.lock().sick.remove(&(volume, name));
    }

    /// All chains get these members, and another epoch; clients are told.
    pub(crate) fn set_members(&self, members: &[(VolumeId, MemberState)]) {
        let mut state = self.state.lock();
        state.members = members.to_vec();
        state.epoch += 1;
        let version = state.epoch;
        let number = state.take_next();
        state.events.insert(number, Event::TableChanged { version });
        drop(state);
        self.news.notify_waiters();
    }

    /// What was asked of which volumes under this name, in order.
    pub(crate) fn asked(&self, name: &'static str) -> Vec<VolumeId> {
        let state = self.state.lock();
        let asked = state.asked.iter().filter(|asked| asked.name == name);
        asked.map(|asked| asked.volume).collect()
    }

    pub(crate) fn count(&self, name: &'static str) -> usize {
        let state = self.state.lock();
        state.done.iter().filter(|done| **done == name).count()
    }

    pub(crate) fn bump_epoch(&self) {
        self.state.lock().epoch += 1;
    }

    pub(crate) fn end_sessions(&self) {
        self.state.lock().sessions.clear();
        self.news.notify_waiters();
    }

    /// Asks whatever session there is to give a right back; returns the recall's number.
    pub(crate) fn recall(&self, ino: Ino, right: Right) -> u64 {
        let mut state = self.state.lock();
        let recall = state.take_next();
        state
            .events
            .insert(recall, Event::Recall { recall, ino, right });
        drop(state);
        self.news.notify_waiters();
        recall
    }

    pub(crate) async fn until_recalled(&self, recall: u64) -> RecallOutcome {
        let answer = |state: &State| {
            let mut answers = state.recalled.iter().rev();
            answers
                .find(|(number, _)| *number == recall)
                .map(|(_, outcome)| *outcome)
        };
        self.until(|state| {
            answer(state).is_some_and(|outcome| !matches!(outcome, RecallOutcome::Held { .. }))
        })
        .await;
        answer(&self.state.lock()).expect("just seen")
    }

    /// Waits until a condition holds, for at most 10 s.
    pub(crate) async fn until(&self, holds: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(&self.state.lock()) {
            assert!(Instant::now() < deadline, "waited for 10 s");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The file's bytes as the volumes have them, up to the committed size.
    pub(crate) fn bytes(&self, ino: Ino) -> Vec<u8> {
        let state = self.state.lock();
        let file = &state.files[&ino];
        let mut bytes = vec![0; file.attr.size as usize];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let id = ChunkId {
                data: file.layout.data,
                index: (at as u64 / CHUNK) as u32,
            };
            let chunk = state.chunks.get(&id).map(Vec::as_slice).unwrap_or_default();
            *byte = chunk.get(at % CHUNK as usize).copied().unwrap_or(0);
        }
        bytes
    }

    /// Another client writes behind the end, within the last chunk, and commits.
    pub(crate) fn extend_by_another(&self, ino: Ino, bytes: &[u8]) {
        let mut state = self.state.lock();
        let file = state.files.get_mut(&ino).expect("it is there");
        let index = (file.layout.size / CHUNK) as u32;
        file.layout.size += bytes.len() as u64;
        file.attr.size = file.layout.size;
        file.attr.data_version += 1;
        let data = file.layout.data;
        let chunk = state.chunks.entry(ChunkId { data, index }).or_default();
        chunk.extend_from_slice(bytes);
    }

    /// Another client truncates: the recall is the caller's business.
    pub(crate) fn truncate_by_another(&self, ino: Ino) {
        self.state.lock().renew(ino);
    }
}

pub(crate) fn name(text: &str) -> FileName {
    FileName::new(text.as_bytes()).expect("a good name")
}

pub(crate) fn regular(text: &str) -> NewFile {
    NewFile {
        parent: Ino::ROOT,
        name: name(text),
        kind: NewKind::Regular,
        mode: 0o644,
        umask: 0,
        uid: 0,
        gid: 0,
    }
}

fn node_of(volume: VolumeId) -> String {
    format!("v{}", volume.0)
}

/// The master, or one of the volumes.
struct FakeService(Fake, Option<VolumeId>);

impl Service for FakeService {
    fn handle(&self, _peer: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
        let (fake, volume) = (self.0.clone(), self.1);
        async move { fake.answer(volume, request).await }.boxed()
    }
}

impl Fake {
    async fn answer(&self, volume: Option<VolumeId>, request: Request) -> Outcome {
        let name = name_of(&request)?;
        let fault = {
            let mut state = self.state.lock();
            if let Some(volume) = volume {
                let op = op_of(&request)?;
                state.asked.push(Asked { volume, name, op });
            }
            if let Some(status) = state.broken.get(name) {
                return Err(*status);
            }
            let sick = volume.and_then(|volume| state.sick.get(&(volume, name)).copied());
            sick.or_else(|| state.faults.get_mut(name).and_then(VecDeque::pop_front))
        };
        match fault {
            Some(Fault::Lost) => return Err(Status::Disconnected),
            Some(Fault::Refused(status)) => return Err(status),
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::AnswerLost | Fault::AnswerSlow(_)) | None => {}
        }
        let outcome = self.execute(&request).await;
        match fault {
            Some(Fault::AnswerLost) => Err(Status::Disconnected),
            Some(Fault::AnswerSlow(time)) => {
                tokio::time::sleep(time).await;
                outcome
            }
            _ => outcome,
        }
    }

    async fn execute(&self, request: &Request) -> Outcome {
        let body = &request.body;
        let reply = match request.method {
            Method::Mutate => encode(&self.state.lock().mutate(decode(body)?)?),
            Method::Query => encode(&self.state.lock().query(decode(body)?)?),
            Method::Session => encode(&self.session(decode(body)?).await?),
            Method::Data => return self.data(decode(body)?, request.payload.clone()).await,
            Method::Admin
            | Method::Volume
            | Method::Peer
            | Method::PeerBehind
            | Method::PeerEarly
            | Method::Relay => {
                return Err(Status::NotSupported);
            }
        };
        Ok(Response {
            body: reply,
            payload: Bytes::new(),
        })
    }

    async fn session(&self, request: SessionRequest) -> Result<SessionReply, Status> {
        if let SessionRequest::NextEvents(ask) = &request {
            let news = self.news.notified();
            if self.state.lock().events_after(ask.seen).is_empty() {
                drop(tokio::time::timeout(PARK, news).await);
            }
        }
        self.state.lock().session(request)
    }

    async fn data(&self, request: DataRequest, payload: Bytes) -> Outcome {
        match request {
            DataRequest::Write(write) => {
                self.state.lock().begin_write(&write, &payload)?;
                // Others run while this write is on its way.
                tokio::task::yield_now().await;
                let written = self.state.lock().write(&write, &payload);
                Ok(Response {
                    body: encode(&DataReply::Write(written)),
                    payload: Bytes::new(),
                })
            }
            DataRequest::Read(read) => {
                let mut state = self.state.lock();
                let (done, mut payload) = state.read(&read)?;
                if state.rotten_reads > 0 {
                    state.rotten_reads -= 1;
                    let mut rotten = payload.to_vec();
                    rotten[0] ^= 1;
                    payload = rotten.into();
                }
                Ok(Response {
                    body: encode(&DataReply::Read(done)),
                    payload,
                })
            }
            DataRequest::ChangeSpace(change) => {
                let written = self.state.lock().change_space(&change)?;
                Ok(Response {
                    body: encode(&DataReply::ChangeSpace(written)),
                    payload: Bytes::new(),
                })
            }
            DataRequest::CountBlocks(_) => Ok(Response {
                body: encode(&DataReply::CountBlocks(BlockCount { blocks: 1 })),
                payload: Bytes::new(),
            }),
            DataRequest::Doubt(_) => {
                let mut state = self.state.lock();
                let is_open = state.open_doubts > 0;
                state.open_doubts = state.open_doubts.saturating_sub(1);
                Ok(Response {
                    body: encode(&DataReply::Doubt(Doubted { is_open })),
                    payload: Bytes::new(),
                })
            }
            DataRequest::CopyBytes(_)
            | DataRequest::Seek(_)
            | DataRequest::Inventory(_)
            | DataRequest::Mend(_)
            | DataRequest::Scrub(_) => Err(Status::NotSupported),
        }
    }
}

fn op_of(request: &Request) -> Result<Option<OpId>, Status> {
    Ok(match decode::<DataRequest>(&request.body)? {
        DataRequest::Write(write) => Some(write.op),
        DataRequest::ChangeSpace(change) => Some(change.op),
        DataRequest::CopyBytes(copy) => Some(copy.op),
        DataRequest::Read(_)
        | DataRequest::Seek(_)
        | DataRequest::CountBlocks(_)
        | DataRequest::Doubt(_)
        | DataRequest::Inventory(_)
        | DataRequest::Mend(_)
        | DataRequest::Scrub(_) => None,
    })
}

fn name_of(request: &Request) -> Result<&'static str, Status> {
    let body = &request.body;
    Ok(match request.method {
        Method::Mutate => decode::<MutateRequest>(body)?.mutation.name(),
        Method::Query => decode::<QueryRequest>(body)?.query.name(),
        Method::Session => decode::<SessionRequest>(body)?.name(),
        Method::Data => decode::<DataRequest>(body)?.name(),
        Method::Admin
        | Method::Volume
        | Method::Peer
        | Method::PeerBehind
        | Method::PeerEarly
        | Method::Relay => "other",
    })
}

impl State {
    fn renew(&mut self, ino: Ino) {
        let data = DataId(self.take_next());
        let file = self.files.get_mut(&ino).expect("it is there");
        file.layout.data = data;
        file.layout.size = 0;
        file.layout.holes = false;
        file.attr.size = 0;
        file.attr.data_version += 1;
    }

    fn take_next(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn new_file(&mut self, kind: FileKind, mode: u16) -> Ino {
        let ino = Ino(self.take_next());
        let time = Timestamp { secs: 1, nanos: 0 };
        let attr = Attr {
            ino,
            kind,
            mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: time,
            mtime: time,
            ctime: time,
            has_acl: false,
            data_version: 1,
            has_holes: false,
        };
        let layout = Layout {
            data: DataId(self.take_next()),
            truncations: 0,
            group: 0,
            seed: 0,
            size: 0,
            holes: false,
        };
        self.files.insert(ino, File { attr, layout });
        ino
    }

    fn file(&mut self, ino: Ino) -> Result<&mut File, Status> {
        self.files.get_mut(&ino).ok_or(Status::StaleInode)
    }

    fn check(&self, session: SessionId) -> Result<(), Status> {
        match self.sessions.contains(&session) {
            true => Ok(()),
            false => Err(Status::SessionExpired),
        }
    }

    fn table(&self) -> ChainTable {
        let members = self.members.iter().map(|&(volume, state)| Member {
            volume,
            store: StoreId(1),
            state,
        });
        let volumes = VOLUMES.iter().map(|&volume| VolumeInfo {
            id: volume,
            name: node_of(volume),
            host: "here".to_owned(),
            addr: addr(),
            node: node_of(volume),
        });
        let chain = Chain {
            epoch: Epoch(self.epoch),
            members: members.collect(),
            lost_below: DataId(0),
            is_active: true,
        };
        ChainTable {
            version: self.epoch,
            chains: vec![chain; 256],
            volumes: volumes.collect(),
        }
    }

    fn events_after(&self, seen: u64) -> Vec<(u64, Event)> {
        let events = self.events.range(seen + 1..);
        events
            .map(|(number, event)| (*number, event.clone()))
            .collect()
    }

    fn session(&mut self, request: SessionRequest) -> Result<SessionReply, Status> {
        self.done.push(request.name());
        Ok(match request {
            SessionRequest::OpenSession(_) => {
                self.sessions_begun += 1;
                let session = SessionId(self.sessions_begun);
                self.sessions.insert(session);
                SessionReply::OpenSession(SessionOpened {
                    session,
                    lease_ms: 10_000,
                    cluster: ClusterId(1),
                    chunk_size: ChunkSize::new(CHUNK).expect("a chunk size"),
                    table: self.table(),
                })
            }
            SessionRequest::ResumeSession(ask) => {
                self.check(ask.session)?;
                self.handles
                    .extend(ask.handles.iter().map(|open| open.handle));
                SessionReply::ResumeSession(SessionResumed {
                    lease_ms: 10_000,
                    table: self.table(),
                })
            }
            SessionRequest::NextEvents(ask) => {
                self.check(ask.session)?;
                SessionReply::NextEvents(Events {
                    events: self.events_after(ask.seen),
                })
            }
            SessionRequest::Recalled(answer) => {
                self.recalled.push((answer.recall, answer.outcome));
                if let Some(ino) = self.truncate_when_recalled.take() {
                    self.renew(ino);
                }
                SessionReply::Recalled(())
            }
            SessionRequest::CloseSession(ask) => {
                self.sessions.remove(&ask.session);
                SessionReply::CloseSession(())
            }
        })
    }

    fn mutate(&mut self, request: MutateRequest) -> Result<Mutated, Status> {
        let op = request.op;
        self.ops.push((op, request.mutation.name()));
        self.check(op.session)?;
        match self.replies.get(&(op.session, op.slot)) {
            Some((seq, outcome)) if *seq == op.seq => return outcome.clone(),
            Some((seq, _)) if *seq > op.seq => return Err(Status::StaleRequest),
            _ => {}
        }
        self.done.push(request.mutation.name());
        let outcome = self.apply(request.mutation);
        let stored = (op.seq, outcome.clone());
        self.replies.insert((op.session, op.slot), stored);
        outcome
    }

    fn apply(&mut self, mutation: Mutation) -> Result<Mutated, Status> {
        match mutation {
            Mutation::Create(create) => self.create(create).map(Mutated::Create),
            Mutation::Commit(commit) => self.commit(commit).map(Mutated::Commit),
            Mutation::Extend(extend) => self.commit(extend.commit).map(Mutated::Extend),
            Mutation::Lock(lock) => Ok(Mutated::Lock(self.file(lock.ino)?.attr)),
            Mutation::Unlock(_) => Ok(Mutated::Unlock(())),
            Mutation::Truncate(truncate) => {
                let truncated = self.truncate(truncate.ino, truncate.size)?;
                Ok(Mutated::Truncate(truncated))
            }
            Mutation::Unlink(unlink) => {
                let name = self.names.remove(&(unlink.parent, unlink.name));
                name.map(|_| Mutated::Unlink(())).ok_or(Status::NotFound)
            }
            Mutation::SetAttr(set) => {
                let file = self.file(set.ino)?;
                file.attr.mode = set.mode.unwrap_or(file.attr.mode);
                if let Some(vdfs_proto::attr::SetTime::At(time)) = set.mtime {
                    file.attr.mtime = time;
                }
                Ok(Mutated::SetAttr(file.attr))
            }
            _ => Err(Status::NotSupported),
        }
    }

    fn create(&mut self, create: vdfs_proto::meta::Create) -> Result<Created, Status> {
        let key = (create.parent, create.name.clone());
        let existing = self.names.get(&key).copied();
        if existing.is_some() && create.exclusive {
            return Err(Status::Exists);
        }
        let ino = existing.unwrap_or_else(|| {
            let kind = match &create.kind {
                NewKind::Directory => FileKind::Directory,
                NewKind::Symlink(_) => FileKind::Symlink,
                _ => FileKind::Regular,
            };
            self.new_file(kind, create.mode)
        });
        if let NewKind::Symlink(target) = create.kind {
            self.links.insert(ino, target);
        }
        self.names.insert(key, ino);
        self.handles.extend(create.open.map(|(handle, _)| handle));
        let file = self.file(ino)?;
        Ok(Created {
            attr: file.attr,
            layout: Some(file.layout),
            is_new: existing.is_none(),
            is_shared: false,
        })
    }

    fn commit(&mut self, commit: vdfs_proto::meta::Commit) -> Result<Committed, Status> {
        self.commits.push(commit.clone());
        let file = self.file(commit.ino)?;
        if (commit.data, commit.truncations) != (file.layout.data, file.layout.truncations) {
            return Err(Status::StaleLayout);
        }
        let data_version_before = file.attr.data_version;
        file.attr.data_version += 1;
        file.attr.size = file.attr.size.max(commit.end);
        file.attr.mtime = commit.mtime;
        file.layout.size = file.attr.size;
        file.layout.holes |= commit.holes;
        Ok(Committed {
            attr: file.attr,
            data_version_before,
        })
    }

    fn truncate(&mut self, ino: Ino, size: u64) -> Result<Truncated, Status> {
        let data = DataId(self.take_next());
        let file = self.file(ino)?;
        let before = file.attr.size;
        file.attr.size = size;
        file.attr.data_version += 1;
        file.layout.size = size;
        file.layout.holes |= size > before;
        if size == 0 {
            file.layout.data = data;
            file.layout.holes = false;
        } else {
            file.layout.truncations += 1;
        }
        let truncated = Truncated {
            attr: file.attr,
            layout: file.layout,
        };
        let layout = file.layout;
        for (id, chunk) in &mut self.chunks {
            if id.data == layout.data {
                let start = u64::from(id.index) * CHUNK;
                chunk.truncate(size.saturating_sub(start) as usize);
            }
        }
        Ok(truncated)
    }

    fn query(&mut self, request: QueryRequest) -> Result<Answer, Status> {
        self.check(request.session)?;
        self.done.push(request.query.name());
        Ok(match request.query {
            Query::Lookup(ask) => {
                let ino = self.names.get(&(ask.parent, ask.name)).copied();
                Answer::Lookup(self.file(ino.ok_or(Status::NotFound)?)?.attr)
            }
            Query::GetAttr(ask) => Answer::GetAttr(self.file(ask.ino)?.attr),
            Query::ReadLink(ask) => {
                Answer::ReadLink(self.links.get(&ask.ino).cloned().ok_or(Status::Invalid)?)
            }
            Query::Open(ask) => {
                self.handles.insert(ask.handle);
                let file = self.file(ask.ino)?;
                Answer::Open(Opened {
                    attr: file.attr,
                    layout: file.layout,
                    is_shared: false,
                })
            }
            Query::Release(ask) => {
                self.handles.remove(&ask.handle);
                self.released.push(ask);
                Answer::Release(())
            }
            Query::GetLayout(ask) => Answer::GetLayout(self.file(ask.ino)?.layout),
            Query::AcquireAppend(ask) => Answer::AcquireAppend(AppendToken {
                layout: self.file(ask.ino)?.layout,
            }),
            Query::ReturnAppend(_) => Answer::ReturnAppend(()),
            Query::GetChainTable(_) => Answer::GetChainTable(self.table()),
            Query::SyncLog(_) => Answer::SyncLog(()),
            Query::StatFs(_) => Answer::StatFs(FsStats {
                capacity_bytes: 1 << 30,
                free_bytes: 1 << 30,
                files: 1,
                files_max: 1 << 20,
                is_reaping: self.is_reaping,
            }),
            Query::ReadDir(_)
            | Query::GetXattr(_)
            | Query::ListXattr(_)
            | Query::TestLock(_)
            | Query::WaitLock(_) => return Err(Status::NotSupported),
        })
    }

    fn check_chunk(&self, epoch: Epoch, chunk: ChunkId, len_expected: u32) -> Result<(), Status> {
        if epoch.0 != self.epoch {
            return Err(Status::StaleEpoch(Epoch(self.epoch)));
        }
        let len = self.chunks.get(&chunk).map_or(0, Vec::len);
        if len < len_expected as usize {
            return Err(Status::DataLost);
        }
        Ok(())
    }

    fn begin_write(&mut self, write: &Write, payload: &[u8]) -> Result<(), Status> {
        self.check_chunk(write.epoch, write.chunk, write.len_expected)?;
        if !self.sessions.contains(&write.op.session) {
            return Err(Status::Fenced);
        }
        assert_eq!(piece_sums(write.offset, payload), write.sums);
        let end = write.offset + payload.len() as u32;
        let apart = |&(chunk, start, stop): &(ChunkId, u32, u32)| {
            chunk != write.chunk || stop <= write.offset || end <= start
        };
        assert!(
            self.flying.iter().all(apart),
            "overlapping writes in flight"
        );
        self.flying.push((write.chunk, write.offset, end));
        Ok(())
    }

    fn write(&mut self, write: &Write, payload: &[u8]) -> Written {
        let offset = write.offset as usize;
        let range = (
            write.chunk,
            write.offset,
            write.offset + payload.len() as u32,
        );
        self.flying.retain(|flying| *flying != range);
        let last = self
            .writes
            .entry((write.op.session, write.op.slot))
            .or_default();
        let is_new = write.op.seq > *last;
        *last = write.op.seq.max(*last);
        if is_new {
            self.done.push("Write");
            let chunk = self.chunks.entry(write.chunk).or_default();
            chunk.resize(chunk.len().max(offset + payload.len()), 0);
            chunk[offset..offset + payload.len()].copy_from_slice(payload);
        }
        Written {
            version: Version::default(),
            low_space: false,
        }
    }

    fn change_space(&mut self, change: &ChangeSpace) -> Result<Written, Status> {
        self.check_chunk(change.epoch, change.chunk, change.len_expected)?;
        self.done.push("ChangeSpace");
        let mut files = self.files.values();
        let has_holes =
            files.any(|file| file.layout.data == change.chunk.data && file.layout.holes);
        assert!(
            has_holes || change.kind != SpaceKind::Punch,
            "punched before the master knew of holes"
        );
        let chunk = self.chunks.entry(change.chunk).or_default();
        let (from, to) = (
            change.offset as usize,
            (change.offset + change.len) as usize,
        );
        if change.kind != SpaceKind::Punch {
            chunk.resize(chunk.len().max(to), 0);
        }
        if change.kind != SpaceKind::Allocate {
            let to = to.min(chunk.len());
            chunk[from.min(to)..to].fill(0);
        }
        Ok(Written {
            version: Version::default(),
            low_space: false,
        })
    }

    fn read(&mut self, read: &Read) -> Result<(ReadDone, Bytes), Status> {
        self.check_chunk(read.epoch, read.chunk, read.len_expected)?;
        self.done.push("Read");
        let chunk = self.chunks.get(&read.chunk).map(Vec::as_slice);
        let chunk = chunk.unwrap_or_default();
        let end = chunk.len().min((read.offset + read.len) as usize);
        let start = (read.offset as usize).min(end);
        let bytes = Bytes::copy_from_slice(&chunk[start..end]);
        let sums = piece_sums(read.offset, &bytes);
        assert_eq!(
            sums.len() as u32,
            block_count(read.offset, bytes.len() as u32)
        );
        let done = ReadDone {
            version: Version::default(),
            sums,
        };
        Ok((done, bytes))
    }
}
