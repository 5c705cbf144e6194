//! The map from chunk ids to chunks.
//!
//! Sharded by data id, so that all chunks of a file are in one shard. A chunk's lock is held for
//! synchronous work alone; that a change is in progress is part of its [`ChunkState`].
//!
//! Lock order: a chunk, then its shard. Nobody holds two chunks.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use vdfs_proto::{ChainId, ChunkId, DataId, Status};

use super::reaped::Reaped;
use super::sums::ChunkSums;
use crate::chain::ChunkState;

const SHARDS: usize = 64;

/// What a chunk in the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Made for its first write, which has not begun.
    New,
    Whole,
    /// A file without its record, or a record without its file: never a hole.
    Bad,
    /// It was never here, and is being taken from another member: as long as it is not complete there is no
    /// such chunk.
    Coming,
    /// Not in the map any more: look it up again.
    Detached,
}

#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) id: ChunkId,
    pub(super) body: RwLock<Body>,
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) id: ChunkId,
    /// Whose it is, for ever.
    pub(super) chain: ChainId,
    pub(super) state: ChunkState,
    pub(super) condition: Condition,
    /// Some of it does not match its sums: it is to be given again when this volume is syncing.
    pub(super) is_distrusted: bool,
    /// Place in the index.
    pub(super) entry: Option<u32>,
    /// Of the record written last.
    pub(super) sequence: u16,
    pub(super) sums: ChunkSums,
    /// What the budget counts for its pages, in bytes.
    pub(super) charged: u64,
}

impl Body {
    pub(super) fn new(id: ChunkId, chain: ChainId) -> Self {
        Body {
            id,
            chain,
            state: ChunkState::default(),
            condition: Condition::New,
            is_distrusted: false,
            entry: None,
            sequence: 0,
            sums: ChunkSums::default(),
            charged: 0,
        }
    }

    /// Whose it is; none of a file whose record is missing.
    pub(super) fn known_chain(&self) -> Option<ChainId> {
        self.entry.map(|_| self.chain)
    }
}

type Chunks = BTreeMap<ChunkId, Arc<Chunk>>;
type Shard = RwLock<Chunks>;

#[derive(Debug)]
pub(super) struct ChunkMap {
    shards: Vec<Shard>,
}

impl ChunkMap {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        ChunkMap { shards }
    }

    fn shard(&self, data: DataId) -> &Shard {
        &self.shards[shard_of(data)]
    }

    pub(super) fn find(&self, id: ChunkId) -> Option<Arc<Chunk>> {
        self.shard(id.data).read().get(&id).cloned()
    }

    /// `Gone` if the data id was reaped. It is looked up under the shard's lock: a reap marks the
    /// id first and then takes its chunks out of the shard, so it misses none.
    pub(super) fn find_or_make(
        &self,
        id: ChunkId,
        chain: ChainId,
        reaped: &Reaped,
    ) -> Result<Arc<Chunk>, Status> {
        if let Some(chunk) = self.find(id) {
            return Ok(chunk);
        }
        let mut shard = self.shard(id.data).write();
        if reaped.contains(id.data) {
            return Err(Status::Gone);
        }
        let make = || {
            let body = RwLock::new(Body::new(id, chain));
            Arc::new(Chunk { id, body })
        };
        Ok(shard.entry(id).or_insert_with(make).clone())
    }

    pub(super) fn insert(&self, body: Body) {
        let id = body.id;
        let chunk = Arc::new(Chunk {
            id,
            body: RwLock::new(body),
        });
        let replaced = self.shard(id.data).write().insert(id, chunk);
        assert!(replaced.is_none(), "{id} is in the store twice");
    }

    pub(super) fn remove(&self, id: ChunkId) {
        self.shard(id.data).write().remove(&id);
    }

    /// Takes all chunks of a file out of the map.
    pub(super) fn take(&self, data: DataId) -> Vec<Arc<Chunk>> {
        let mut shard = self.shard(data).write();
        let ids = rest_of_file(&shard, ChunkId { data, index: 0 });
        ids.iter().filter_map(|id| shard.remove(id)).collect()
    }

    /// The chunks of a file from `first` on, in order.
    pub(super) fn of_file_from(&self, first: ChunkId) -> Vec<ChunkId> {
        rest_of_file(&self.shard(first.data).read(), first)
    }

    /// The first chunk of the file of `from` that is not before it.
    pub(super) fn next_of_file(&self, from: ChunkId) -> Option<Arc<Chunk>> {
        let shard = self.shard(from.data).read();
        let next = shard.range(from..=last_of_file(from)).next();
        next.map(|(_, chunk)| chunk.clone())
    }

    /// The chunk behind `after` in an order of all chunks.
    pub(super) fn next_behind(&self, after: Option<ChunkId>) -> Option<ChunkId> {
        let first = after.map_or(0, |id| shard_of(id.data));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next_in = |shard: &Shard, from| {
            let shard = shard.read();
            let next = shard.range((from, Bound::Unbounded)).next();
            next.map(|(id, _)| *id)
        };
        let mut rest = self.shards[first..].iter();
        let same = rest.next().and_then(|shard| next_in(shard, from));
        same.or_else(|| rest.find_map(|shard| next_in(shard, Bound::Unbounded)))
    }

    /// All chunks behind `after` in that order; those that are made meanwhile may be among them.
    pub(super) fn ids_behind(&self, after: Option<ChunkId>) -> impl Iterator<Item = ChunkId> {
        let next = |id: &ChunkId| self.next_behind(Some(*id));
        std::iter::successors(self.next_behind(after), next)
    }

    pub(super) fn len(&self) -> u64 {
        let of_shard = |shard: &Shard| shard.read().len() as u64;
        self.shards.iter().map(of_shard).sum()
    }

    /// The highest data id in the map; 0 if it is empty.
    pub(super) fn data_id_max(&self) -> DataId {
        let of_shard = |shard: &Shard| shard.read().last_key_value().map(|(id, _)| id.data);
        self.shards
            .iter()
            .filter_map(of_shard)
            .max()
            .unwrap_or_default()
    }
}

fn shard_of(data: DataId) -> usize {
    (data.0 % SHARDS as u64) as usize
}

fn rest_of_file(chunks: &Chunks, first: ChunkId) -> Vec<ChunkId> {
    let rest = chunks.range(first..=last_of_file(first));
    rest.map(|(id, _)| *id).collect()
}

fn last_of_file(chunk: ChunkId) -> ChunkId {
    ChunkId {
        index: u32::MAX,
        ..chunk
    }
}

impl Chunk {
    /// The chunk as a reader sees it; `None` if it is not in the map any more.
    pub(super) fn attached(&self) -> Option<RwLockReadGuard<'_, Body>> {
        let body = self.body.read();
        (body.condition != Condition::Detached).then_some(body)
    }
}
