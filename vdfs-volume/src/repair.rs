//! Repair of damaged chunks: a member whose copy does not match its sums gets the chunk again.
//!
//! The way is a sync under the chain's rules, not a copy beside them: if the member that would give the
//! chunk has checked its own, this one leaves the chain for the present epoch, and comes back as one that
//! is syncing. Of a damaged chunk it says then that it does not know what it has, so it is given that one;
//! all others it keeps.
//!
//! Invariants: nobody leaves for a chunk that is damaged elsewhere too, as each may have what the other
//! lacks; only what this volume has found damaged itself counts, whoever had the doubt.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use vdfs_net::rpc;
use vdfs_proto::frame::Method;
use vdfs_proto::peer::CheckChunk;
use vdfs_proto::{ChainId, ChunkId, MemberState, Status, VolumeId};

use crate::engine::Engine;
use crate::store::{ScrubCursor, Store};

/// Before a chunk that could not be looked into, or is to be given, is looked at again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a chunk is beyond doubt once it was looked into.
const SETTLED_FOR: Duration = Duration::from_secs(10);
/// Chunks that are in doubt, or were a moment ago.
const DOUBTS_MAX: usize = 4096;
/// For the other one to check a chunk of the largest size.
const DEADLINE: Duration = Duration::from_secs(5);

/// Chunks that somebody has found damaged here.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    all: Mutex<BTreeMap<ChunkId, Doubt>>,
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
        for chunk in doubts.open() {
            match look_into(engine, chunk).await {
                Ok(()) => doubts.settle(chunk),
                Err(status) => tracing::debug!(%chunk, %status, "not repaired yet"),
            }
        }
        match doubts.open().is_empty() {
            true => doubts.raised.notified().await,
            false => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Ends when the chunk is whole, or nothing can be done; an error if it is to be looked at again.
async fn look_into(engine: &Engine, chunk: ChunkId) -> Result<(), Status> {
    let store = engine.store();
    if !store.is_distrusted(chunk) {
        if is_whole(store, chunk).await {
            return Ok(());
        }
        store.distrust(chunk);
    }
    let Some(chain) = store.chain_of(chunk) else {
        return Ok(());
    };
    let place = engine.place(chain);
    let place = place.filter(|place| place.serves && place.is_active);
    let place = place.ok_or(Status::NotServing)?;
    let Some(giver) = giver(engine, chain) else {
        tracing::error!(%chunk, %chain, "a chunk is damaged, and nobody else has a copy");
        return Ok(());
    };
    let check = CheckChunk {
        chain,
        epoch: place.epoch,
        chunk,
    };
    match ask(engine, giver, check).await {
        Ok(()) => {
            tracing::warn!(%chunk, %chain, %giver, "a chunk is damaged, and is given again");
            engine.leave(chain, place.epoch);
            Err(Status::NotInSync)
        }
        Err(status @ (Status::Corrupt | Status::NotFound)) => {
            tracing::error!(%chunk, %chain, %giver, %status, "a chunk is damaged, there too");
            Ok(())
        }
        Err(status) => Err(status),
    }
}

/// Who would give this volume the chunks of a chain: the last one that serves.
fn giver(engine: &Engine, chain: ChainId) -> Option<VolumeId> {
    engine.look(|core| {
        let membership = core.membership();
        let me = membership.volume()?;
        let mut members = membership.table().chain(chain)?.members.iter().rev();
        let giver = members.find(|of| of.state == MemberState::Serving && of.volume != me);
        giver.map(|giver| giver.volume)
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
    }
}
