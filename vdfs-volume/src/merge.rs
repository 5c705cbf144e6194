//! Takes better copies from those who wait with this volume, before it takes a chain over whose members had
//! all gone: asks what each of them has, and takes of each chunk the best copy, where it is not here.
//!
//! What is here changes only as long as the chain is still to be taken over, and under the lock of whoever
//! gives this volume copies: in a later epoch it may be syncing, and what it took now would be old.
//!
//! A copy that cannot be taken, for want of room or because it is damaged, holds nothing up: what is here
//! has all that was acknowledged, or is lost and stays so, until the other one has a place again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use vdfs_proto::peer::{ChunkCopy, FetchBlocks};
use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{ChainId, ChunkId, Epoch, Status, VolumeId};

use crate::chain::is_better;
use crate::engine::Engine;
use crate::limits::PIECES_AT_ONCE;
use crate::peers::Peers;
use crate::store::is_sound;
use crate::supply::{Chains, list, wait_for_earlier_changes};

const DEADLINE: Duration = Duration::from_secs(10);
/// Before those who could not be asked are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long somebody is asked who cannot be reached, before the chains go on without him: as long as the
/// master waits for those who are not back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks these volumes for what they have of these chains, until each of the chains has all of it, or goes on
/// without. However it ends, it is begun again while one of the chains needs it.
pub(crate) async fn merge(engine: &Engine, others: &BTreeSet<VolumeId>, chains: &Chains) {
    wait_for_earlier_changes(engine, chains).await;
    let mut reached = Instant::now();
    let mut rest = still_to_merge(engine, chains);
    while !rest.is_empty() {
        let missed = try_merge(engine, others, &rest).await;
        drop_incomplete(engine, chains).await;
        let left = still_to_merge(engine, chains);
        if let Some(Missed { peer, status }) = missed {
            tracing::warn!(%peer, %status, "cannot compare copies with a volume that is back");
            if left.len() < rest.len() || !status.is_silence() {
                reached = Instant::now();
            }
            if reached.elapsed() >= PATIENCE {
                for (chain, epoch) in &left {
                    engine.note_news(*chain, *epoch, ChainEvent::Suspect(peer));
                }
            }
        }
        rest = left;
        tokio::time::sleep(PAUSE).await;
    }
}

fn still_to_merge(engine: &Engine, chains: &Chains) -> Chains {
    let is_now = |(chain, epoch): &(&ChainId, &Epoch)| must_merge(engine, **chain, **epoch);
    let rest = chains.iter().filter(is_now);
    rest.map(|(chain, epoch)| (*chain, *epoch)).collect()
}

fn must_merge(engine: &Engine, chain: ChainId, epoch: Epoch) -> bool {
    engine.look(|core| {
        let membership = core.membership();
        membership.epoch(chain) == Some(epoch) && membership.must_merge(chain)
    })
}

/// What was never here, and is not complete, is of no use to anybody.
async fn drop_incomplete(engine: &Engine, chains: &Chains) {
    let _given = engine.supplied.lock().await;
    let is_of_these = |chain| {
        let epoch = engine.look(|core| core.membership().epoch(chain));
        chains
            .get(&chain)
            .is_some_and(|known| Some(*known) == epoch)
    };
    engine.store().drop_coming(is_of_these);
}

/// Somebody could not be asked for all that he may have.
#[derive(Clone, Copy, Debug)]
struct Missed {
    peer: VolumeId,
    status: Status,
}

/// It may be otherwise in a moment.
fn may_pass(status: Status) -> bool {
    let is_of_now = matches!(
        status,
        Status::NotServing | Status::StaleEpoch(_) | Status::NotInSync | Status::Busy
    );
    is_of_now || status.is_silence() || status == Status::ShuttingDown
}

type Better = Vec<(VolumeId, ChunkCopy)>;

/// Gives whom it has missed, if anybody.
async fn try_merge(
    engine: &Engine,
    others: &BTreeSet<VolumeId>,
    chains: &Chains,
) -> Option<Missed> {
    let mut best: BTreeMap<ChunkId, (VolumeId, ChunkCopy)> = BTreeMap::new();
    let giver = |peer| Giver {
        engine,
        peers: engine.peers().expect("they run"),
        peer,
    };
    for peer in others.iter().copied() {
        let theirs = match giver(peer).list(chains).await {
            Ok(theirs) => theirs,
            Err(status) => return Some(Missed { peer, status }),
        };
        for copy in theirs.into_values().filter(is_sound) {
            let own = engine.store().copy_of(copy.chunk);
            let known = best.get(&copy.chunk).map(|(_, known)| *known);
            if is_better(&copy, known.or(own).as_ref()) {
                best.insert(copy.chunk, (peer, copy));
            }
        }
    }
    let mut better: BTreeMap<ChainId, Better> =
        chains.keys().map(|chain| (*chain, Vec::new())).collect();
    for found in best.into_values() {
        better.entry(found.1.chain).or_default().push(found);
    }
    let taken = better.into_iter().map(|(chain, better)| {
        let epoch = chains[&chain];
        async move {
            for (peer, copy) in better {
                if let Err(status) = giver(peer).take(copy, epoch).await {
                    return Some(Missed { peer, status });
                }
            }
            engine.merged(chain, epoch);
            None
        }
    });
    let all: Vec<_> = stream::iter(taken)
        .buffer_unordered(PIECES_AT_ONCE)
        .collect()
        .await;
    all.into_iter().flatten().next()
}

/// One of those who wait.
struct Giver<'a> {
    engine: &'a Engine,
    peers: &'a Peers,
    peer: VolumeId,
}

impl Giver<'_> {
    async fn list(&self, chains: &Chains) -> Result<BTreeMap<ChunkId, ChunkCopy>, Status> {
        let carrier = self.peers.carrier(self.engine, self.peer)?;
        list(&*carrier, chains, DEADLINE).await
    }

    /// Takes a copy that is better than what is here, unless that cannot be.
    async fn take(&self, copy: ChunkCopy, epoch: Epoch) -> Result<(), Status> {
        match self.try_take(&copy, epoch).await {
            Ok(()) => {
                tracing::info!(chunk = %copy.chunk, "took a better copy");
                Ok(())
            }
            Err(status) if may_pass(status) => Err(status),
            Err(status) => {
                let _given = self.engine.supplied.lock().await;
                self.engine.store().give_up_merge(copy.chunk);
                // `Gone`: its file is being removed.
                if status != Status::Gone {
                    tracing::error!(chunk = %copy.chunk, %status, "cannot take a better copy");
                }
                Ok(())
            }
        }
    }

    async fn try_take(&self, copy: &ChunkCopy, epoch: Epoch) -> Result<(), Status> {
        let store = self.engine.store();
        self.change(copy, epoch, || store.begin_merge(copy)).await?;
        let mut first = 0;
        loop {
            let sums = store.sums_beside(copy.chunk, copy.len, first);
            if sums.is_empty() {
                break;
            }
            let asked = sums.len() as u32;
            let ask = FetchBlocks {
                epoch,
                copy: *copy,
                first,
                sums,
            };
            let theirs = self.peers.fetch(self.engine, self.peer, ask).await?;
            self.change(copy, epoch, || store.merge(copy, &theirs))
                .await?;
            first += asked;
        }
        self.change(copy, epoch, || store.end_merge(copy)).await?;
        self.engine.taken(copy);
        Ok(())
    }

    /// Changes what is here, if the chain is still to be taken over in this epoch.
    async fn change(
        &self,
        copy: &ChunkCopy,
        epoch: Epoch,
        work: impl FnOnce() -> Result<(), Status>,
    ) -> Result<(), Status> {
        let _given = self.engine.supplied.lock().await;
        match must_merge(self.engine, copy.chain, epoch) {
            true => work(),
            false => Err(Status::NotServing),
        }
    }
}
