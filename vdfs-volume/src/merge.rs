//! Takes better copies from those who wait with this volume, before it takes a chain over whose members had
//! all gone: asks what each of them has, and takes of each chunk the best copy, where it is not here.
//!
//! What is here changes only as long as the chain is still to be taken over, and under the lock of whoever
//! gives this volume copies: in a later epoch it may be syncing, and what it took now would be old.
//!
//! A copy that cannot be taken, for want of room or because it is damaged, holds nothing up: what is here
//! has all that was acknowledged, or is lost and stays so, until the other one has a place again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use vdfs_net::carrier::Carrier;
use vdfs_net::rpc;
use vdfs_proto::frame::Method;
use vdfs_proto::peer::{ChunkCopy, FetchBlocks};
use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{ChainId, ChunkId, Epoch, Status, VolumeId};

use crate::chain::is_better;
use crate::engine::Engine;
use crate::limits::PIECES_AT_ONCE;
use crate::store::{Difference, is_sound};
use crate::supply::{Chains, list, wait_for_earlier_changes};

const DEADLINE: Duration = Duration::from_secs(10);
/// Before those who could not be asked are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long somebody is asked who cannot be reached, before the chains go on without him: as long as the
/// master waits for those who are not back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks these volumes for what they have of these chains, until each of the chains has all of it, or goes on
/// without. However it ends, it is begun again while one of the chains needs it.
pub(crate) async fn merge(engine: &Arc<Engine>, others: &BTreeSet<VolumeId>, chains: &Chains) {
    let begun = Instant::now();
    wait_for_earlier_changes(engine, chains).await;
    loop {
        let missed = try_merge(engine, others, &still_to_merge(engine, chains)).await;
        drop_incomplete(engine, chains).await;
        let Some(Missed { peer, status }) = missed else {
            break;
        };
        tracing::warn!(%peer, %status, "cannot compare copies with a volume that is back");
        if begun.elapsed() >= PATIENCE {
            let rest = still_to_merge(engine, chains);
            for (chain, epoch) in rest.into_iter().filter(|_| is_unreachable(status)) {
                engine.note_news(chain, epoch, ChainEvent::Suspect(peer));
            }
            break;
        }
        tokio::time::sleep(PAUSE).await;
        if still_to_merge(engine, chains).is_empty() {
            break;
        }
    }
    // The master takes a moment to say that it has heard.
    tokio::time::sleep(PAUSE).await;
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
    engine
        .store()
        .drop_coming(|chain| chains.contains_key(&chain));
}

/// Somebody could not be asked for all that he may have.
#[derive(Clone, Copy, Debug)]
struct Missed {
    peer: VolumeId,
    status: Status,
}

fn is_unreachable(status: Status) -> bool {
    matches!(status, Status::Disconnected | Status::DeadlineExceeded)
}

/// It may be otherwise in a moment.
fn may_pass(status: Status) -> bool {
    let is_of_now = matches!(
        status,
        Status::NotServing | Status::StaleEpoch(_) | Status::NotInSync | Status::Busy
    );
    is_of_now || is_unreachable(status) || status == Status::ShuttingDown
}

type Better = Vec<(VolumeId, ChunkCopy)>;

/// Gives whom it has missed, if anybody.
async fn try_merge(
    engine: &Arc<Engine>,
    others: &BTreeSet<VolumeId>,
    chains: &Chains,
) -> Option<Missed> {
    let mut best: BTreeMap<ChunkId, (VolumeId, ChunkCopy)> = BTreeMap::new();
    let mut givers = BTreeMap::new();
    for peer in others {
        let missed = |status| Missed {
            peer: *peer,
            status,
        };
        let giver = match Giver::new(engine, *peer) {
            Ok(giver) => giver,
            Err(status) => return Some(missed(status)),
        };
        let theirs = match list(&*giver.carrier, chains, DEADLINE).await {
            Ok(theirs) => theirs,
            Err(status) => return Some(missed(status)),
        };
        for copy in theirs.into_values().filter(is_sound) {
            let own = engine.store().copy_of(copy.chunk);
            let known = best.get(&copy.chunk).map(|(_, known)| *known);
            if is_better(&copy, known.or(own).as_ref()) {
                best.insert(copy.chunk, (*peer, copy));
            }
        }
        givers.insert(*peer, giver);
    }
    let mut better: BTreeMap<ChainId, Better> =
        chains.keys().map(|chain| (*chain, Vec::new())).collect();
    for found in best.into_values() {
        better.entry(found.1.chain).or_default().push(found);
    }
    let taken = better.into_iter().map(|(chain, better)| {
        let (givers, epoch) = (&givers, chains[&chain]);
        async move {
            for (peer, copy) in better {
                if let Err(status) = givers[&peer].take(copy, epoch).await {
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
    engine: &'a Arc<Engine>,
    carrier: Arc<dyn Carrier>,
}

impl<'a> Giver<'a> {
    fn new(engine: &'a Arc<Engine>, peer: VolumeId) -> Result<Self, Status> {
        let peers = engine.peers().ok_or(Status::NotServing)?;
        let carrier = peers.carrier(engine, peer)?;
        Ok(Giver { engine, carrier })
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
            let asked = sums.len();
            let theirs = self.fetch(copy, epoch, (first, sums)).await?;
            if theirs.sums.len() != asked {
                return Err(Status::Malformed);
            }
            self.change(copy, epoch, || store.merge(copy, &theirs))
                .await?;
            first += asked as u32;
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

    async fn fetch(
        &self,
        copy: &ChunkCopy,
        epoch: Epoch,
        (first, sums): (u32, Vec<Option<u32>>),
    ) -> Result<Difference, Status> {
        let ask = FetchBlocks {
            epoch,
            copy: *copy,
            first,
            sums,
        };
        let peers = self.engine.peers().ok_or(Status::NotServing)?;
        let _turn = peers.fetch_turn().await;
        let method = Method::PeerBehind;
        let fetched = rpc::fetch_from_peer(&*self.carrier, method, ask, DEADLINE);
        let (fetched, bytes) = fetched.await?;
        Ok(Difference {
            first,
            sums: fetched.sums,
            bytes,
        })
    }
}
