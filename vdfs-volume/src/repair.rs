//! Repair of damaged chunks: a member whose copy does not match its sums gets what is damaged again.
//!
//! Blocks are taken from any other member that serves and has the same version: under the chunk's lock, if
//! it has not changed meanwhile, so that nothing changes for anybody else.
//!
//! Where that does not do, the way is a sync under the chain's rules: if the member that would give the
//! chunk has checked its own, this one leaves the chain for the present epoch, and comes back as one that
//! is syncing. Of a damaged chunk it says then that it does not know what it has, so it is given that one;
//! all others it keeps.
//!
//! Invariants: nobody leaves for a chunk that is not whole where it would come from, as each may have what
//! the other lacks, and only such chunks are distrusted; what clients say is only a reason to look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use vdfs_net::rpc;
use vdfs_proto::data::Content;
use vdfs_proto::frame::Method;
use vdfs_proto::peer::{CheckChunk, FetchBlocks};
use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{Chain, ChainId, ChunkId, Epoch, Status, VolumeId};

use crate::chain::Place;
use crate::engine::Engine;
use crate::limits::{DOUBTS_MAX, GIVEN_MAX};
use crate::store::{ScrubCursor, Store};

/// Before a chunk that could not be looked into, or is to be given, is looked at again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a chunk is beyond doubt once it was looked into.
const SETTLED_FOR: Duration = Duration::from_secs(10);
/// How often a chunk that changes meanwhile is looked at again.
const TRIES: u32 = 20;
const CHANGE_PAUSE: Duration = Duration::from_millis(5);
/// For the other one to check a chunk of the largest size.
const DEADLINE: Duration = Duration::from_secs(5);

/// Chunks that somebody has found damaged here.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    all: Mutex<BTreeMap<ChunkId, Doubt>>,
    /// How often chunks were given again in this life.
    given: Mutex<BTreeMap<ChunkId, u32>>,
    raised: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    Open,
    /// It is whole, or nothing can be done.
    Settled(Instant),
}

impl Doubts {
    /// Whether the chunk is being looked into: it may be repaired in a moment.
    pub(crate) fn raise(&self, chunk: ChunkId) -> bool {
        let mut all = self.all.lock();
        let is_recent = |doubt: &Doubt| match doubt {
            Doubt::Open => true,
            Doubt::Settled(since) => since.elapsed() < SETTLED_FOR,
        };
        all.retain(|_, doubt| is_recent(doubt));
        if all.len() == DOUBTS_MAX && !all.contains_key(&chunk) {
            return false;
        }
        let doubt = *all.entry(chunk).or_insert(Doubt::Open);
        self.raised.notify_one();
        doubt == Doubt::Open
    }

    fn settle(&self, chunk: ChunkId) {
        self.all
            .lock()
            .insert(chunk, Doubt::Settled(Instant::now()));
    }

    fn note_given(&self, chunk: ChunkId) {
        let mut given = self.given.lock();
        if given.len() >= DOUBTS_MAX {
            given.clear();
        }
        *given.entry(chunk).or_default() += 1;
    }

    /// So often that one more time will not help.
    fn was_given(&self, chunk: ChunkId) -> bool {
        self.given.lock().get(&chunk) >= Some(&GIVEN_MAX)
    }

    fn open(&self) -> Vec<ChunkId> {
        let all = self.all.lock();
        let open = all.iter().filter(|(_, doubt)| **doubt == Doubt::Open);
        open.map(|(chunk, _)| *chunk).collect()
    }
}

/// Looks into all doubts; never ends.
pub(crate) async fn repair_what_is_damaged(engine: &Engine) {
    let doubts = engine.doubts();
    loop {
        for (chain, chunks) in find_damaged(engine).await {
            if let Err(status) = repair(engine, chain, &chunks).await {
                tracing::debug!(%chain, %status, "not repaired yet");
            }
        }
        match doubts.open().is_empty() {
            true => doubts.raised.notified().await,
            false => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What is damaged in chains that this volume serves, of what is in doubt; what is whole is so no more.
async fn find_damaged(engine: &Engine) -> BTreeMap<ChainId, Vec<ChunkId>> {
    let (store, doubts) = (engine.store(), engine.doubts());
    let mut damaged: BTreeMap<ChainId, Vec<ChunkId>> = BTreeMap::new();
    for chunk in doubts.open() {
        let Some(chain) = store.chain_of(chunk) else {
            doubts.settle(chunk);
            continue;
        };
        // Elsewhere it is on the way to being given again.
        if serving_place(engine, chain).is_err() {
            continue;
        }
        match is_whole(store, chunk).await {
            true => doubts.settle(chunk),
            false => damaged.entry(chain).or_default().push(chunk),
        }
    }
    damaged
}

async fn repair(engine: &Engine, chain: ChainId, chunks: &[ChunkId]) -> Result<(), Status> {
    let doubts = engine.doubts();
    let (again, wanted): (Vec<ChunkId>, Vec<ChunkId>) =
        chunks.iter().partition(|chunk| doubts.was_given(**chunk));
    for chunk in again {
        tracing::error!(%chunk, %chain, "a chunk is damaged again and again: is this RAM sound?");
        doubts.settle(chunk);
    }
    let mut silent = BTreeSet::new();
    let mut left = Vec::new();
    for chunk in wanted {
        match heal(engine, chain, chunk, &mut silent).await {
            true => {
                tracing::warn!(%chunk, %chain, "a chunk was damaged, and is made good");
                engine.store().trust(chunk);
                doubts.note_given(chunk);
                doubts.settle(chunk);
            }
            false => left.push(chunk),
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let asked: Vec<(ChunkId, Option<Content>)> = left.iter().map(|chunk| (*chunk, None)).collect();
    let hopeless = have_given_again(engine, chain, &asked).await?;
    for chunk in left {
        match hopeless.contains(&chunk) {
            true => {
                tracing::error!(%chunk, %chain, "a chunk is damaged, and nobody else has it whole");
                doubts.settle(chunk);
            }
            false => {
                tracing::warn!(%chunk, %chain, "a chunk is damaged, and is given again");
                doubts.note_given(chunk);
            }
        }
    }
    Ok(())
}

/// Takes damaged blocks from other members; whether all of the chunk is whole then. Those who do not
/// answer are not asked for more.
async fn heal(
    engine: &Engine,
    chain: ChainId,
    chunk: ChunkId,
    silent: &mut BTreeSet<VolumeId>,
) -> bool {
    for peer in others(engine, chain) {
        if silent.contains(&peer) {
            continue;
        }
        let Ok(place) = serving_place(engine, chain) else {
            return false;
        };
        if let Err(status) = heal_from(engine, peer, place.epoch, chunk).await {
            if status.is_silence() {
                silent.insert(peer);
            }
            tracing::debug!(%chunk, %peer, %status, "not made good");
        }
        if is_whole(engine.store(), chunk).await {
            return true;
        }
    }
    false
}

async fn heal_from(
    engine: &Engine,
    peer: VolumeId,
    epoch: Epoch,
    chunk: ChunkId,
) -> Result<(), Status> {
    let (store, peers) = (engine.store(), engine.peers().ok_or(Status::NotServing)?);
    let (mut first, mut tries) = (0, 0);
    while let Some(looked) = store.look_at(chunk, first) {
        let healed = match looked.damaged {
            0 => Ok(()),
            _ => {
                let ask = FetchBlocks {
                    epoch,
                    copy: looked.copy,
                    first,
                    sums: looked.sums.clone(),
                };
                let theirs = peers.fetch(engine, peer, ask).await;
                theirs.and_then(|theirs| store.heal(&looked, &theirs))
            }
        };
        match healed {
            // It is being changed.
            Err(Status::NotInSync) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(CHANGE_PAUSE).await;
            }
            Err(status) => return Err(status),
            Ok(()) => (first, tries) = (first + looked.sums.len() as u32, 0),
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn serving_place(engine: &Engine, chain: ChainId) -> Result<Place, Status> {
    let place = engine.place(chain);
    let place = place.filter(|place| place.serves && place.is_active);
    place.ok_or(Status::NotServing)
}

/// Leaves the chain to be given these chunks of it, with the content that is named. Gives those of them that
/// are not whole, or not that, where they would come from; for these alone it does not leave.
///
/// An error if that cannot be said, or done, at the moment.
pub(crate) async fn have_given_again(
    engine: &Engine,
    chain: ChainId,
    chunks: &[(ChunkId, Option<Content>)],
) -> Result<BTreeSet<ChunkId>, Status> {
    let place = serving_place(engine, chain)?;
    let epoch = place.epoch;
    let all = || chunks.iter().map(|(chunk, _)| *chunk).collect();
    let giver = match giver(engine, chain) {
        Some(giver) => giver,
        // Somebody is on the way to serving it.
        None if place.members > 1 => return Err(Status::NotServing),
        None => return Ok(all()),
    };
    let mut refused = BTreeSet::new();
    for (chunk, expected) in chunks {
        let check = CheckChunk {
            chain,
            epoch,
            chunk: *chunk,
            expected: *expected,
        };
        match ask(engine, giver, check).await {
            Ok(()) => {}
            Err(Status::Corrupt | Status::NotFound) => drop(refused.insert(*chunk)),
            Err(status) => {
                if status.is_silence() {
                    engine.note_news(chain, epoch, ChainEvent::Suspect(giver));
                }
                return Err(status);
            }
        }
    }
    if refused.len() < chunks.len() {
        for (chunk, _) in chunks.iter().filter(|(chunk, _)| !refused.contains(chunk)) {
            engine.store().distrust(*chunk);
        }
        engine.leave(chain, epoch);
    }
    Ok(refused)
}

/// Who would give this volume the chunks of a chain: the last one that serves.
fn giver(engine: &Engine, chain: ChainId) -> Option<VolumeId> {
    others(engine, chain).pop()
}

/// All others that serve, head first.
fn others(engine: &Engine, chain: ChainId) -> Vec<VolumeId> {
    engine.look(|core| {
        let membership = core.membership();
        let me = membership.volume();
        let row = membership.table().chain(chain);
        let serving = row.into_iter().flat_map(Chain::serving);
        let others = serving.filter(|of| Some(of.volume) != me);
        others.map(|of| of.volume).collect()
    })
}

async fn ask(engine: &Engine, volume: VolumeId, check: CheckChunk) -> Result<(), Status> {
    let peers = engine.peers().ok_or(Status::NotServing)?;
    let carrier = peers.carrier(engine, volume)?;
    let method = Method::PeerBehind;
    rpc::call_peer(&*carrier, method, check, Bytes::new(), DEADLINE).await
}

/// All that is here of the chunk matches its sums.
pub(crate) async fn is_whole(store: &Store, chunk: ChunkId) -> bool {
    let mut cursor = ScrubCursor::at(chunk);
    while let Some(piece) = store.scrub_rest(&mut cursor) {
        if piece.bad_blocks > 0 || piece.is_bad_copy {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

#[cfg(test)]
mod tests {
    use vdfs_proto::DataId;

    use super::*;

    fn chunk(data: u64) -> ChunkId {
        ChunkId {
            data: DataId(data),
            index: 0,
        }
    }

    #[test]
    fn doubts_are_open_until_they_are_settled_and_are_bounded() {
        let doubts = Doubts::default();
        assert!(doubts.raise(chunk(0)) && doubts.raise(chunk(0)));
        assert_eq!(doubts.open(), [chunk(0)]);
        doubts.settle(chunk(0));
        assert!(!doubts.raise(chunk(0)), "it was looked into just now");
        assert!(doubts.open().is_empty());
        for data in 1..DOUBTS_MAX as u64 {
            assert!(doubts.raise(chunk(data)));
        }
        assert!(!doubts.raise(chunk(u64::MAX)), "there are too many");
        assert!(!doubts.was_given(chunk(0)));
        (0..GIVEN_MAX).for_each(|_| doubts.note_given(chunk(0)));
        assert!(doubts.was_given(chunk(0)));
    }
}
