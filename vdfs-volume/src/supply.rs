//! Gives a successor that is syncing what it lacks: compares what both have, copies what differs, has
//! it drop what the chain does not have, and tells the master when it is in step.
//!
//! A chunk that nobody changes is copied from under those who use it; if it is changed meanwhile, it is
//! begun again. One that is being changed is given by whoever passes the change on: closed, so that it
//! cannot move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::OptionFuture;
use futures::{TryStreamExt, stream};
use vdfs_net::carrier::Carrier;
use vdfs_net::rpc;
use vdfs_proto::frame::Method;
use vdfs_proto::limits::{CHUNKS_PER_LIST_MAX, REPLIES_PER_LESSON_MAX};
use vdfs_proto::operation::Operation;
use vdfs_proto::peer::{
    ChunkCopy, DropChunk, LearnReplies, ListChunks, PeerReply, PeerRequest, PutChunk,
};
use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{ChainId, ChunkId, Epoch, OpId, Status, VolumeId};

use crate::chain::Refusal;
use crate::engine::Engine;
use crate::limits::PIECES_AT_ONCE;
use crate::pace::Pace;
use crate::store::Piece;

const DEADLINE: Duration = Duration::from_secs(10);
/// Before a successor that could not be supplied is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Before a chunk that is being changed is looked at again.
const CLOSED_PAUSE: Duration = Duration::from_millis(10);

/// In which a successor is supplied, each in its epoch.
pub(crate) type Chains = BTreeMap<ChainId, Epoch>;

/// Supplies one volume in these chains. However it ends, it is begun again while one of them needs it.
pub(crate) async fn supply(engine: &Arc<Engine>, peer: VolumeId, chains: &Chains) {
    match try_supply(engine, peer, chains).await {
        Ok(()) => note_in_sync(engine, peer, chains),
        Err(status) => {
            tracing::debug!(%peer, %status, "not supplied yet");
            if status == Status::NoSpace {
                for (chain, epoch) in chains {
                    engine.note_news(*chain, *epoch, ChainEvent::Suspect(peer));
                }
            }
        }
    }
    // The master takes a moment to say that it has heard.
    tokio::time::sleep(PAUSE).await;
}

/// One that has nothing where a bad copy is here would show zeros: it does not come to serve.
fn note_in_sync(engine: &Engine, peer: VolumeId, chains: &Chains) {
    let bad = engine.store().chains_with_bad_copies();
    let is_sound = |chain: &ChainId| !bad.contains(&Some(*chain)) && !bad.contains(&None);
    for (chain, epoch) in chains.iter().filter(|(chain, _)| is_sound(chain)) {
        engine.note_news(*chain, *epoch, ChainEvent::InSync(peer));
    }
}

async fn try_supply(engine: &Arc<Engine>, peer: VolumeId, chains: &Chains) -> Result<(), Status> {
    let receiver = Receiver::new(engine, peer)?;
    wait_for_earlier_changes(engine, chains).await;
    let mut theirs = list(&*receiver.carrier, chains, DEADLINE).await?;
    let mut after = None;
    loop {
        let own = engine.store().copies_behind(after, CHUNKS_PER_LIST_MAX);
        let Some(last) = own.last() else { break };
        after = Some(last.chunk);
        let of_chains = own
            .into_iter()
            .filter(|copy| chains.contains_key(&copy.chain));
        let lacking = of_chains.filter(|copy| !has(theirs.remove(&copy.chunk), copy));
        give_all(&receiver, lacking.collect(), chains).await?;
    }
    for copy in theirs.into_values() {
        if !engine.store().may_have(copy.chunk) {
            let place = (copy.chain, chains[&copy.chain]);
            receiver.drop_chunk(copy.chunk, place).await?;
        }
    }
    for (chain, epoch) in chains {
        receiver.teach(*chain, *epoch).await?;
    }
    Ok(())
}

/// What was under way when these epochs began may end without the one that is syncing.
pub(crate) async fn wait_for_earlier_changes(engine: &Engine, chains: &Chains) {
    let underway = |chain: &ChainId| -> Vec<OpId> { engine.look(|core| core.underway(*chain)) };
    let mut before: Vec<(ChainId, OpId)> = chains
        .keys()
        .flat_map(|chain| underway(chain).into_iter().map(|op| (*chain, op)))
        .collect();
    while !before.is_empty() {
        tokio::time::sleep(CLOSED_PAUSE).await;
        before.retain(|(chain, op)| underway(chain).contains(op));
    }
}

/// A version whose op nobody knows may be of other bytes.
fn has(theirs: Option<ChunkCopy>, own: &ChunkCopy) -> bool {
    theirs.is_some_and(|theirs| theirs == *own && own.op.is_some())
}

/// What another volume has of these chains.
pub(crate) async fn list(
    carrier: &dyn Carrier,
    chains: &Chains,
    deadline: Duration,
) -> Result<BTreeMap<ChunkId, ChunkCopy>, Status> {
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let asked = chains.iter().map(|(chain, epoch)| (*chain, *epoch));
        let ask = ListChunks {
            chains: asked.collect(),
            after,
        };
        let listed = rpc::call_peer(carrier, Method::PeerBehind, ask, Bytes::new(), deadline);
        let listed = listed.await?.chunks;
        let Some(last) = listed.last() else {
            return Ok(all);
        };
        after = Some(last.chunk);
        let is_wanted = |copy: &ChunkCopy| chains.contains_key(&copy.chain);
        let wanted = listed.into_iter().filter(is_wanted);
        all.extend(wanted.map(|copy| (copy.chunk, copy)));
    }
}

async fn give_all(
    receiver: &Receiver<'_>,
    copies: Vec<ChunkCopy>,
    chains: &Chains,
) -> Result<(), Status> {
    let pace = &Pace::default();
    let given = copies.into_iter().map(|copy| {
        let place = (copy.chain, chains[&copy.chain]);
        Ok(async move { receiver.give(copy.chunk, place, pace).await })
    });
    let all = stream::iter(given).try_buffer_unordered(PIECES_AT_ONCE);
    all.try_collect().await
}

/// The successor.
pub(crate) struct Receiver<'a> {
    engine: &'a Arc<Engine>,
    carrier: Arc<dyn Carrier>,
}

impl<'a> Receiver<'a> {
    pub(crate) fn new(engine: &'a Arc<Engine>, peer: VolumeId) -> Result<Self, Status> {
        let peers = engine.peers().ok_or(Status::NotServing)?;
        let carrier = peers.carrier(engine, peer)?;
        Ok(Receiver { engine, carrier })
    }

    /// Tells it what ops of a chain were answered.
    async fn teach(&self, chain: ChainId, epoch: Epoch) -> Result<(), Status> {
        let answered = self.engine.look(|core| core.replies_of(chain));
        let answered = answered.into_iter();
        let mut rest: Vec<_> = answered
            .map(|(op, outcome)| (op, outcome.map_err(Refusal::status)))
            .collect();
        let mut is_first = true;
        loop {
            let behind = rest.split_off(rest.len().min(REPLIES_PER_LESSON_MAX));
            let is_last = behind.is_empty();
            let lesson = LearnReplies {
                chain,
                epoch,
                replies: std::mem::replace(&mut rest, behind),
                is_first,
                is_last,
            };
            is_first = false;
            self.call(lesson, Bytes::new()).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Gives a chunk as it is, when nobody changes it.
    async fn give(
        &self,
        chunk: ChunkId,
        place: (ChainId, Epoch),
        pace: &Pace,
    ) -> Result<(), Status> {
        loop {
            self.check(place)?;
            let is_closed = self.engine.look(|core| core.is_closed(chunk));
            let given = match is_closed {
                true => Err(Status::NotInSync),
                false => self.give_pieces(chunk, place, Some(pace)).await,
            };
            match given {
                Err(Status::NotInSync) => tokio::time::sleep(CLOSED_PAUSE).await,
                other => return other,
            }
        }
    }

    /// The successor is still to be supplied under this epoch.
    fn check(&self, (chain, epoch): (ChainId, Epoch)) -> Result<(), Status> {
        let place = self.engine.place(chain).ok_or(Status::NotServing)?;
        match place.epoch == epoch {
            true => Ok(()),
            false => Err(Status::StaleEpoch(place.epoch)),
        }
    }

    /// Gives a chunk that is closed: somebody waits for it.
    pub(crate) async fn give_closed(
        &self,
        chunk: ChunkId,
        place: (ChainId, Epoch),
    ) -> Result<(), Status> {
        self.give_pieces(chunk, place, None).await
    }

    /// Gives a chunk that stays as it is meanwhile; `NotInSync` if it did not.
    async fn give_pieces(
        &self,
        chunk: ChunkId,
        place: (ChainId, Epoch),
        pace: Option<&Pace>,
    ) -> Result<(), Status> {
        let Some(copy) = self.engine.store().copy_of(chunk) else {
            return self.drop_chunk(chunk, place).await;
        };
        let stream = next_stream();
        let mut offset = 0;
        loop {
            let turn = pace.map(|pace| pace.turn(self.engine.traffic()));
            let _turn = OptionFuture::from(turn).await;
            let piece = self.engine.store().piece(&copy, offset)?;
            let at = self.engine.traffic().take_for_copy(piece.bytes.len());
            if let Some(at) = at.filter(|_| pace.is_some()) {
                tokio::time::sleep_until(at.into()).await;
            }
            let is_first = offset == 0;
            offset = piece.offset + piece.bytes.len() as u32;
            let is_last = piece.is_last;
            let (_, epoch) = place;
            let put = put(copy, epoch, (stream, is_first), &piece);
            if self.call(put, piece.bytes).await?.is_done || is_last {
                return Ok(());
            }
        }
    }

    async fn drop_chunk(
        &self,
        chunk: ChunkId,
        (chain, epoch): (ChainId, Epoch),
    ) -> Result<(), Status> {
        let drop = DropChunk {
            chain,
            epoch,
            chunk,
        };
        self.call(drop, Bytes::new()).await
    }

    async fn call<O>(&self, operation: O, payload: Bytes) -> Result<O::Reply, Status>
    where
        O: Operation<Request = PeerRequest, Envelope = PeerReply>,
    {
        // It waits for nobody.
        let method = Method::PeerBehind;
        rpc::call_peer(&*self.carrier, method, operation, payload, DEADLINE).await
    }
}

fn put(copy: ChunkCopy, epoch: Epoch, (stream, is_first): (u64, bool), piece: &Piece) -> PutChunk {
    PutChunk {
        epoch,
        copy,
        stream,
        offset: piece.offset,
        sums: piece.sums.clone(),
        is_first,
        is_last: piece.is_last,
    }
}

/// Different from all streams of other volumes, and of other lives of this one.
fn next_stream() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static FIRST: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let first = *FIRST.get_or_init(rand::random);
    first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
}
