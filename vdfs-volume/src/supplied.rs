//! What a volume is given while it is syncing: chunks, by its predecessor.
//!
//! A chunk is *in step* once it was given whole, or has followed a change: from then on it goes on by
//! changes alone, and a copy that comes later is older. Whoever gives a chunk or follows a change holds
//! the lock of this, so that neither sees the other half done.
//!
//! With each epoch all this begins anew. That loses nothing: copies of an earlier epoch are refused, a
//! change under way is passed on again, and no copy of a chunk is begun while one is under way.

use std::collections::{HashMap, HashSet};

use vdfs_proto::peer::PutChunk;
use vdfs_proto::{ChainId, ChunkId, Epoch, OpId, Status};

use crate::chain::Outcome;
use crate::store::{Piece, Store};

#[derive(Debug, Default)]
pub(crate) struct Supplied {
    chains: HashMap<ChainId, Progress>,
}

/// Of one chain, in one epoch.
#[derive(Debug, Default)]
struct Progress {
    epoch: Epoch,
    in_step: HashSet<ChunkId>,
    /// Copies that are coming.
    streams: HashMap<ChunkId, u64>,
    /// What was told so far of the chain's ops.
    lesson: Vec<(OpId, Outcome)>,
}

impl Supplied {
    /// Copies that were given up, or cut off, would pass for some of their version: with the first word
    /// of an epoch they go.
    pub(crate) fn begin(&mut self, store: &Store, chains: &[(ChainId, Epoch)]) {
        let epoch_of = |chain| self.chains.get(chain).map(|progress| progress.epoch);
        let begun: HashMap<ChainId, Epoch> = chains
            .iter()
            .filter(|(chain, epoch)| epoch_of(chain) < Some(*epoch))
            .copied()
            .collect();
        if begun.is_empty() {
            return;
        }
        store.drop_unknown(|chain| begun.contains_key(&chain));
        for (chain, epoch) in begun {
            let progress = Progress {
                epoch,
                ..Progress::default()
            };
            self.chains.insert(chain, progress);
        }
    }

    fn of(&mut self, store: &Store, place: (ChainId, Epoch)) -> &mut Progress {
        self.begin(store, &[place]);
        self.chains.get_mut(&place.0).expect("it has begun")
    }

    /// Gives all that was told, once it is all.
    pub(crate) fn learn(
        &mut self,
        store: &Store,
        place: (ChainId, Epoch),
        replies: impl Iterator<Item = (OpId, Outcome)>,
        (is_first, is_last): (bool, bool),
    ) -> Option<Vec<(OpId, Outcome)>> {
        let progress = self.of(store, place);
        if is_first {
            progress.lesson.clear();
        }
        progress.lesson.extend(replies);
        is_last.then(|| std::mem::take(&mut progress.lesson))
    }

    /// Whether the chunk is given completely now, or was already.
    pub(crate) fn put(
        &mut self,
        store: &Store,
        put: &PutChunk,
        piece: &Piece,
    ) -> Result<bool, Status> {
        let chunk = put.copy.chunk;
        let progress = self.of(store, (put.copy.chain, put.epoch));
        if progress.in_step.contains(&chunk) {
            return Ok(true);
        }
        if put.is_first {
            store.begin_copy(&put.copy)?;
            progress.streams.insert(chunk, put.stream);
        }
        if progress.streams.get(&chunk) != Some(&put.stream) {
            return Err(Status::NotInSync);
        }
        store.take_piece(&put.copy, piece)?;
        if put.is_last {
            progress.streams.remove(&chunk);
            progress.in_step.insert(chunk);
        }
        Ok(put.is_last)
    }

    /// The chunk has followed a change.
    pub(crate) fn follows(&mut self, store: &Store, chunk: ChunkId, place: (ChainId, Epoch)) {
        self.of(store, place).in_step.insert(chunk);
    }

    /// The chain has no such chunk.
    pub(crate) fn drop_chunk(&mut self, store: &Store, chunk: ChunkId, place: (ChainId, Epoch)) {
        let progress = self.of(store, place);
        if !progress.in_step.contains(&chunk) {
            progress.streams.remove(&chunk);
            store.drop_copy(chunk);
        }
    }

    /// Frees what is known of chains in which this volume is not syncing any more.
    pub(crate) fn keep_chains(&mut self, is_syncing: impl Fn(ChainId) -> bool) {
        self.chains.retain(|chain, _| is_syncing(*chain));
    }
}
