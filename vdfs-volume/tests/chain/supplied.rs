//! What a simulated volume is given while it is syncing: the rules of `src/supplied.rs`, on a shelf.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::{ChainId, ChunkId, Epoch, Status};

use crate::message::{Piece, Told};
use crate::shelf::{KilledAt, Shelf};

#[derive(Debug, Default)]
pub(crate) struct Supplied {
    chains: BTreeMap<ChainId, Progress>,
}

/// Of one chain, in one epoch.
#[derive(Debug, Default)]
struct Progress {
    epoch: Epoch,
    in_step: BTreeSet<ChunkId>,
    /// Copies that are coming, each with the cell that comes next.
    streams: BTreeMap<ChunkId, (u64, usize)>,
}

impl Supplied {
    /// A copy that was given up, or cut off, would pass for one of its version.
    pub(crate) fn begin(&mut self, shelf: &mut Shelf, chain: ChainId, epoch: Epoch) {
        let known = self.chains.get(&chain).map(|progress| progress.epoch);
        if known < Some(epoch) {
            shelf.drop_unknown(chain);
            self.of(chain, epoch);
        }
    }

    fn of(&mut self, chain: ChainId, epoch: Epoch) -> &mut Progress {
        let progress = self.chains.entry(chain).or_default();
        if progress.epoch < epoch {
            *progress = Progress {
                epoch,
                ..Progress::default()
            };
        }
        progress
    }

    /// Whether the chunk is given completely now, or was already.
    pub(crate) fn put(
        &mut self,
        shelf: &mut Shelf,
        (epoch, told, stream): (Epoch, &Told, u64),
        piece: &Piece,
        killed: Option<KilledAt>,
    ) -> Result<bool, Status> {
        let chunk = told.copy.chunk;
        let progress = self.of(told.copy.chain, epoch);
        if progress.in_step.contains(&chunk) {
            return Ok(true);
        }
        // The network here brings messages twice, which no connection does.
        let coming = progress.streams.get(&chunk).copied();
        if coming.is_some_and(|(of, next)| of == stream && piece.at < next) {
            return Ok(false);
        }
        if piece.is_first {
            shelf.begin_copy(told)?;
            progress.streams.insert(chunk, (stream, 0));
        }
        if progress.streams.get(&chunk) != Some(&(stream, piece.at)) {
            return Err(Status::NotInSync);
        }
        let next = piece.at + piece.cells.len();
        progress.streams.insert(chunk, (stream, next));
        shelf.take_piece(told, piece, killed)?;
        if piece.is_last {
            progress.streams.remove(&chunk);
            progress.in_step.insert(chunk);
        }
        Ok(piece.is_last)
    }

    /// The chunk has followed a change.
    pub(crate) fn follows(&mut self, chunk: ChunkId, (chain, epoch): (ChainId, Epoch)) {
        self.of(chain, epoch).in_step.insert(chunk);
    }

    /// The chain has no such chunk.
    pub(crate) fn drop_chunk(
        &mut self,
        shelf: &mut Shelf,
        chunk: ChunkId,
        (chain, epoch): (ChainId, Epoch),
    ) {
        let progress = self.of(chain, epoch);
        if !progress.in_step.contains(&chunk) {
            progress.streams.remove(&chunk);
            shelf.drop_copy(chunk);
        }
    }

    pub(crate) fn keep_chains(&mut self, is_syncing: impl Fn(ChainId) -> bool) {
        self.chains.retain(|chain, _| is_syncing(*chain));
    }
}
