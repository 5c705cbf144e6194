//! A simulated head takes better copies from those who wait with it, before it takes its chain over: what
//! `src/merge.rs` does, as a machine of steps between messages.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{ChainId, ChunkId, Epoch, Status};
use vdfs_volume::chain::is_better;

use crate::message::{Ask, CoreInput, Piece, Place, Reply, Told, chain_of};
use crate::node::{Killed, Node, Scene, killed_at};
use crate::supplying::For;

#[derive(Debug, Default)]
pub(crate) struct Merging {
    tasks: BTreeMap<ChainId, Task>,
}

/// Merges one chain in one epoch.
#[derive(Debug, Default)]
struct Task {
    epoch: Epoch,
    /// Whose lists are still to come.
    asked: BTreeSet<usize>,
    lists: BTreeMap<usize, Vec<ChunkCopy>>,
    /// Better copies, and who has them.
    to_take: Vec<(usize, ChunkCopy)>,
    /// Of the first of these: cells of it that are here.
    at: usize,
}

impl Merging {
    pub(crate) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }
}

impl Node {
    pub(crate) fn merge_whoever_waits(&mut self, scene: &mut Scene<'_>) {
        for (chain, epoch, others) in self.core().membership().to_merge() {
            let known = self.merging.tasks.get(&chain).map(|of| of.epoch);
            if known == Some(epoch) {
                continue;
            }
            let asked: BTreeSet<usize> = others.into_iter().map(Self::index_of).collect();
            let task = Task {
                epoch,
                asked: asked.clone(),
                ..Task::default()
            };
            self.merging.tasks.insert(chain, task);
            for peer in asked {
                let list = Ask::ListToMerge { chain, epoch };
                self.call(scene, peer, For::Merge(chain, peer), list);
            }
        }
    }

    /// What the head asks of a volume that waits.
    pub(crate) fn merged(&self, from: Place, ask: Ask) -> Result<Reply, Status> {
        let (Ask::ListToMerge { chain, epoch } | Ask::Fetch { chain, epoch, .. }) = ask else {
            unreachable!("{ask:?} is no part of a merge")
        };
        let head = self.core().membership().merged_by(chain, epoch)?;
        if from != Place::Volume(Self::index_of(head)) {
            return Err(Status::NotServing);
        }
        let Ask::Fetch {
            copy, at, cells, ..
        } = ask
        else {
            let own = self.shelf.list().into_iter();
            return Ok(Reply::List(own.filter(|of| of.chain == chain).collect()));
        };
        let told = self.shelf.told(copy.chunk).ok_or(Status::NotInSync)?;
        match told.copy == copy {
            true => {
                let piece = self.shelf.piece(&told, at, cells)?;
                Ok(Reply::Fetched { told, piece })
            }
            false => Err(Status::NotInSync),
        }
    }

    pub(crate) fn merge_replied(
        &mut self,
        scene: &mut Scene<'_>,
        (chain, peer): (ChainId, usize),
        reply: Result<Reply, Status>,
    ) -> Result<(), Killed> {
        let present = self.core().membership().epoch(chain);
        let Some(task) = self.merging.tasks.get_mut(&chain) else {
            return Ok(());
        };
        if present != Some(task.epoch) {
            self.merging.tasks.remove(&chain);
            return Ok(());
        }
        match reply {
            Ok(Reply::List(theirs)) => {
                if task.asked.remove(&peer) {
                    task.lists.insert(peer, theirs);
                }
                match task.asked.is_empty() {
                    true => self.compare_all(scene, chain),
                    false => Ok(()),
                }
            }
            Ok(Reply::Fetched { told, piece }) => self.take_merged(scene, chain, &told, &piece),
            Ok(other) => unreachable!("{other:?} is no part of a merge"),
            Err(status) => {
                let epoch = task.epoch;
                self.merging.tasks.remove(&chain);
                scene.counts.hit("merges interrupted");
                if status.is_silence() {
                    self.note_news(chain, epoch, ChainEvent::Suspect(Self::volume(peer)));
                }
                Ok(())
            }
        }
    }

    fn compare_all(&mut self, scene: &mut Scene<'_>, chain: ChainId) -> Result<(), Killed> {
        let task = self.merging.tasks.get_mut(&chain).expect("looked at");
        let own = self.shelf.list().into_iter();
        let mut best: BTreeMap<ChunkId, (Option<usize>, ChunkCopy)> =
            own.map(|copy| (copy.chunk, (None, copy))).collect();
        for (peer, theirs) in std::mem::take(&mut task.lists) {
            for copy in theirs {
                let known = best.get(&copy.chunk).map(|(_, known)| known);
                if is_better(&copy, known) {
                    best.insert(copy.chunk, (Some(peer), copy));
                }
            }
        }
        let better = best.into_values();
        task.to_take = better
            .filter_map(|(peer, copy)| Some((peer?, copy)))
            .filter(|(_, copy)| chain_of(copy.chunk) == chain)
            .collect();
        self.take_next(scene, chain)
    }

    fn take_next(&mut self, scene: &mut Scene<'_>, chain: ChainId) -> Result<(), Killed> {
        let task = self.merging.tasks.get_mut(&chain).expect("under way");
        let (epoch, at) = (task.epoch, task.at);
        let Some((peer, copy)) = task.to_take.last().copied() else {
            self.merging.tasks.remove(&chain);
            return self.take(scene, CoreInput::Merged { chain, epoch });
        };
        let cells = *scene.rng.pick(&[1, 2, 3, 4]);
        let fetch = Ask::Fetch {
            chain,
            epoch,
            copy,
            at,
            cells,
        };
        self.call(scene, peer, For::Merge(chain, peer), fetch);
        Ok(())
    }

    fn take_merged(
        &mut self,
        scene: &mut Scene<'_>,
        chain: ChainId,
        told: &Told,
        piece: &Piece,
    ) -> Result<(), Killed> {
        let task = self.merging.tasks.get_mut(&chain).expect("looked at");
        let wanted = task.to_take.last().map(|(_, copy)| *copy);
        if wanted != Some(told.copy) || task.at != piece.at {
            return Ok(());
        }
        let chunk = told.copy.chunk;
        if self.shelf.is_full && self.shelf.told(chunk).is_none() {
            scene.counts.hit("better copies without room");
            scene.history.goes_without(chunk);
            task.at = 0;
            task.to_take.pop();
            return self.take_next(scene, chain);
        }
        task.at += piece.cells.len();
        if piece.is_last {
            task.at = 0;
            task.to_take.pop();
        }
        let killed = scene.is_killed().then(|| killed_at(scene));
        if let Some(made) = self.shelf.merge_piece(told, piece, killed) {
            scene.history.found(&made);
        }
        if killed.is_some() {
            scene.counts.hit("killed within a merge");
            return Err(Killed);
        }
        if piece.is_last {
            scene.counts.hit("better copies taken");
            let version = told.copy.version;
            if let Some(op) = told.copy.op {
                self.take(scene, CoreInput::Taken { chain, op, version })?;
            }
        }
        self.take_next(scene, chain)
    }
}
