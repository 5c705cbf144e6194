//! A store in a directory of `/dev/shm` that goes when the test ends, and a client of it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tempfile::TempDir;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{
    ChangeSpace, CopyBytes, CopySource, FilePart, Read, ReadDone, Seek, SeekTarget, SpaceKind,
    Write, Written,
};
use vdfs_proto::limits::{CHAINS_PER_GROUP, PAYLOAD_BYTES_MAX};
use vdfs_proto::sums::piece_sums;
use vdfs_proto::volume::{Fence, Registered};
use vdfs_proto::{
    Chain, ChainId, ChainSet, ChainTable, ChunkId, ChunkSize, DataId, Epoch, Layout, Member,
    MemberState, OpId, SessionId, Status, VolumeId,
};
use vdfs_volume::engine::Engine;
use vdfs_volume::store::steps::{NoFaults, Steps};
use vdfs_volume::store::{Job, Recovery, StoreConfig};

pub(crate) const EPOCH: Epoch = Epoch(1);
pub(crate) const TERMS: Terms = Terms {
    lost_below: DataId(0),
    is_fenced: false,
};
/// More than any test uses.
const SESSIONS: u64 = 1000;
pub(crate) const MIB: u64 = 1 << 20;

/// What the master has said before a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) lost_below: DataId,
    /// All sessions are.
    pub(crate) is_fenced: bool,
}

/// A store under the core that decides what is done to it, as in a volume whose only chain has no
/// other member.
#[derive(Debug)]
pub(crate) struct Store(Arc<Engine>);

impl Store {
    pub(crate) fn write(
        &self,
        write: &Write,
        payload: &[u8],
        terms: Terms,
    ) -> Result<Written, Status> {
        let payload = Bytes::copy_from_slice(payload);
        let write = write.clone();
        self.change(Job::Write { write, payload }, terms)
    }

    pub(crate) fn change_space(&self, ask: &ChangeSpace, terms: Terms) -> Result<Written, Status> {
        self.change(Job::Space(ask.clone()), terms)
    }

    pub(crate) fn copy(
        &self,
        copy: &CopyBytes,
        source_lost_below: DataId,
        terms: Terms,
    ) -> Result<Written, Status> {
        let copy = copy.clone();
        let job = Job::Copy {
            copy,
            source_lost_below,
        };
        self.change(job, terms)
    }

    /// A change and its answer.
    fn change(&self, job: Job, terms: Terms) -> Result<Written, Status> {
        if terms != TERMS {
            self.register(terms);
        }
        let begun = self.0.begin(job);
        let written = begun.and_then(|begun| wait(begun.written()));
        if terms != TERMS {
            self.register(TERMS);
        }
        written
    }

    fn register(&self, terms: Terms) {
        let member = Member {
            volume: VolumeId(1),
            store: self.0.store().id(),
            state: MemberState::Serving,
        };
        let chain = Chain {
            epoch: EPOCH,
            members: vec![member],
            lost_below: terms.lost_below,
            is_active: true,
        };
        let sessions = (1..=SESSIONS).map(SessionId);
        let fences = sessions.clone().filter(|_| terms.is_fenced);
        let registered = Registered {
            volume: VolumeId(1),
            term: 1,
            registration: 1,
            chunk_size: ChunkSize::DEFAULT,
            table: ChainTable {
                version: 1,
                chains: vec![chain; CHAINS_PER_GROUP as usize],
                volumes: Vec::new(),
            },
            data_next: DataId(1 << 40),
            fences: fences.map(|session| Fence { number: 1, session }).collect(),
            live_sessions: sessions.collect(),
            session_next: SessionId(SESSIONS + 1),
        };
        self.0.register(registered);
    }
}

/// What is not answered at once waits for another thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    future.as_mut().now_or_never().unwrap_or_else(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(future)
    })
}

impl Deref for Store {
    type Target = vdfs_volume::store::Store;

    fn deref(&self) -> &Self::Target {
        self.0.store()
    }
}

/// Where a store lies, while the test runs.
#[derive(Debug)]
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) budget_bytes: u64,
    pub(crate) chunk_size: ChunkSize,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place {
            directory: tempfile::tempdir_in("/dev/shm").expect("a directory in RAM"),
            budget_bytes: 64 * MIB,
            chunk_size: ChunkSize::DEFAULT,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn open(&self) -> Store {
        self.open_with(Arc::new(NoFaults)).0
    }

    pub(crate) fn open_with(&self, steps: Arc<dyn Steps>) -> (Store, Recovery) {
        open(self.path(), self.budget_bytes, self.chunk_size, steps)
    }

    pub(crate) fn file_of(&self, chunk: ChunkId) -> PathBuf {
        chunk_file(self.path(), chunk)
    }
}

pub(crate) fn open(
    path: &Path,
    budget_bytes: u64,
    chunk_size: ChunkSize,
    steps: Arc<dyn Steps>,
) -> (Store, Recovery) {
    let config = StoreConfig {
        budget_bytes,
        is_shared: false,
        steps,
    };
    let opened = vdfs_volume::store::Store::open(path, config);
    let (store, recovery) = opened.expect("the store opens");
    store.adopt_chunk_size(chunk_size).expect("the same size");
    let store = Store(Engine::new(store));
    store.0.extend_lease(0, u64::MAX);
    store.register(TERMS);
    (store, recovery)
}

pub(crate) fn chunk_file(store: &Path, chunk: ChunkId) -> PathBuf {
    let directory = format!("chunks/{:02x}", chunk.data.0 % 64);
    let name = format!("{:016x}.{:08x}", chunk.data.0, chunk.index);
    store.join(directory).join(name)
}

pub(crate) fn chunk(data: u64, index: u32) -> ChunkId {
    ChunkId {
        data: DataId(data),
        index,
    }
}

/// Bytes that tell the seed and the position.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// As the layouts of these tests have it.
fn chain_of(chunk: ChunkId) -> ChainId {
    ChainId(chunk.index % CHAINS_PER_GROUP)
}

pub(crate) fn write_message(op: OpId, chunk: ChunkId, offset: u32, payload: &[u8]) -> Write {
    Write {
        chain: chain_of(chunk),
        epoch: EPOCH,
        chunk,
        op,
        offset,
        len_expected: 0,
        sums: piece_sums(offset, payload),
    }
}

pub(crate) fn space_message(
    op: OpId,
    chunk: ChunkId,
    kind: SpaceKind,
    (offset, len): (u32, u32),
) -> ChangeSpace {
    ChangeSpace {
        chain: chain_of(chunk),
        epoch: EPOCH,
        chunk,
        op,
        kind,
        offset,
        len,
        len_expected: 0,
    }
}

/// Copies `len` bytes from the first place to the second.
pub(crate) fn copy_message(
    op: OpId,
    from: (ChunkId, u32),
    to: (ChunkId, u32),
    len: u32,
) -> CopyBytes {
    CopyBytes {
        chain: chain_of(to.0),
        epoch: EPOCH,
        chunk: to.0,
        op,
        offset: to.1,
        len,
        len_expected: 0,
        source: CopySource {
            chain: chain_of(from.0),
            epoch: EPOCH,
            chunk: from.0,
            offset: from.1,
            len_expected: 0,
        },
    }
}

/// One slot of one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) session: u64,
    pub(crate) seq: u64,
}

impl Client {
    pub(crate) fn new(session: u64) -> Self {
        Client { session, seq: 0 }
    }

    pub(crate) fn op(&self) -> OpId {
        OpId {
            session: SessionId(self.session),
            slot: 0,
            seq: self.seq,
        }
    }

    pub(crate) fn next_op(&mut self) -> OpId {
        self.seq += 1;
        self.op()
    }

    pub(crate) fn write(
        &mut self,
        store: &Store,
        chunk: ChunkId,
        offset: u32,
        payload: &[u8],
    ) -> Result<Written, Status> {
        let message = write_message(self.next_op(), chunk, offset, payload);
        store.write(&message, payload, TERMS)
    }

    pub(crate) fn trim(&mut self, store: &Store, chunk: ChunkId, len: u32) -> Result<(), Status> {
        self.seq += 1;
        let layout = Layout {
            data: chunk.data,
            truncations: 0,
            group: 0,
            seed: 0,
            size: 0,
            holes: true,
        };
        wait(store.0.cut(&layout, chunk.index, len))
    }
}

impl Client {
    pub(crate) fn change_space(
        &mut self,
        store: &Store,
        chunk: ChunkId,
        kind: SpaceKind,
        range: (u32, u32),
    ) -> Result<Written, Status> {
        let message = space_message(self.next_op(), chunk, kind, range);
        store.change_space(&message, TERMS)
    }

    pub(crate) fn copy(
        &mut self,
        store: &Store,
        from: (ChunkId, u32),
        to: (ChunkId, u32),
        len: u32,
    ) -> Result<Written, Status> {
        let message = copy_message(self.next_op(), from, to, len);
        store.copy(&message, DataId(0), TERMS)
    }
}

/// All chunks of a file, whose first chain is the first of its group.
pub(crate) fn whole_file(data: DataId) -> FilePart {
    let mut chains = ChainSet::default();
    (0..=u8::MAX).for_each(|position| chains.insert(position));
    let layout = Layout {
        data,
        truncations: 0,
        group: 0,
        seed: 0,
        size: 0,
        holes: true,
    };
    FilePart {
        layout,
        chains,
        table_version: 1,
    }
}

/// Start and end of each run of data in `from..to` of a file, as a walk of seeks finds them.
pub(crate) fn data_runs(store: &Store, data: DataId, (from, to): (u64, u64)) -> Vec<(u64, u64)> {
    let seek = |target, from| {
        let part = whole_file(data);
        let seek = Seek {
            part,
            target,
            from,
            to,
        };
        match from < to {
            true => store.seek(&seek, DataId(0)).expect("it looks"),
            false => None,
        }
    };
    let mut runs = Vec::new();
    let mut at = from;
    while let Some(start) = seek(SeekTarget::Data, at) {
        at = seek(SeekTarget::Hole, start).unwrap_or(to);
        runs.push((start, at));
    }
    runs
}

pub(crate) fn read_message(chunk: ChunkId, offset: u32, len: u32) -> Read {
    Read {
        chain: chain_of(chunk),
        epoch: EPOCH,
        chunk,
        offset,
        len,
        len_expected: 0,
    }
}

pub(crate) fn read(
    store: &Store,
    chunk: ChunkId,
    offset: u32,
    len: u32,
) -> Result<(ReadDone, Bytes), Status> {
    store.read(&read_message(chunk, offset, len), DataId(0))
}

/// All bytes of a chunk, each block verified as a client does.
pub(crate) fn read_all(store: &Store, chunk: ChunkId, chunk_size: ChunkSize) -> Vec<u8> {
    let mut all = Vec::new();
    let step = (PAYLOAD_BYTES_MAX as u32).min(chunk_size.bytes());
    for offset in (0..chunk_size.bytes()).step_by(step as usize) {
        let (done, bytes) = read(store, chunk, offset, step).expect("it reads");
        assert_eq!(done.sums, piece_sums(offset, &bytes), "{chunk} at {offset}");
        all.extend_from_slice(&bytes);
        if bytes.len() < step as usize {
            break;
        }
    }
    assert_eq!(BLOCK_BYTES, 4096);
    all
}
