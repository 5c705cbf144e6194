//! What another volume asks of this one as its predecessor in a chain, or as the head that it waits with.

use bytes::Bytes;
use vdfs_proto::limits::CHUNKS_PER_LIST_MAX;
use vdfs_proto::peer::{
    CheckChunk, ChunkList, DropChunk, FetchBlocks, FetchedBlocks, Forward, Forwarded, LearnReplies,
    ListChunks, PutChunk, PutReply,
};
use vdfs_proto::{ChainId, Epoch, Status};

use crate::chain::{Outcome, Place, Refusal};
use crate::node::Node;
use crate::peers::job_of;
use crate::repair;
use crate::store::Piece;

/// The change is made here, and from here on.
pub(crate) async fn follow(
    node: &Node,
    asker: &str,
    forward: Forward,
    payload: Bytes,
) -> Result<Forwarded, Status> {
    node.engine.traffic().note();
    let job = job_of(forward.change, payload);
    let (chain, _) = job.chain();
    let (chunk, epoch) = (job.chunk(), forward.epoch);
    let versions = (forward.base, forward.version);
    let version = match place_behind(node, asker, chain)?.serves {
        true => node.engine.follow(job, epoch, versions).await?,
        false => {
            let mut supplied = node.engine.supplied.lock().await;
            // In an epoch that is not known here yet it may serve, with what it is given in this one.
            check_syncing(node, asker, chain, epoch)?;
            supplied.begin(node.store(), &[(chain, epoch)]);
            // Changed, it would pass for the chain's.
            if node.store().is_distrusted(chunk) {
                return Err(Status::NotInSync);
            }
            let version = node.engine.follow(job, epoch, versions).await?;
            supplied.follows(node.store(), chunk, (chain, epoch));
            version
        }
    };
    Ok(Forwarded { version })
}

pub(crate) async fn learn(node: &Node, asker: &str, lesson: LearnReplies) -> Result<(), Status> {
    let mut supplied = node.engine.supplied.lock().await;
    let (chain, epoch) = (lesson.chain, lesson.epoch);
    check_syncing(node, asker, chain, epoch)?;
    let outcome = |answer: Result<_, Status>| -> Option<Outcome> {
        match answer {
            Ok(version) => Some(Ok(version)),
            Err(status) => Refusal::of(status).map(Err),
        }
    };
    let replies = lesson.replies.into_iter();
    let known = replies.filter_map(|(op, answer)| Some((op, outcome(answer)?)));
    let ends = (lesson.is_first, lesson.is_last);
    if let Some(all) = supplied.learn(node.store(), (chain, epoch), known, ends) {
        node.engine.learn(chain, epoch, all);
    }
    Ok(())
}

pub(crate) async fn list(node: &Node, asker: &str, list: ListChunks) -> Result<ChunkList, Status> {
    if list.after.is_none() {
        let mut supplied = node.engine.supplied.lock().await;
        let mut syncing = Vec::new();
        for (chain, epoch) in &list.chains {
            if check_waiting(node, asker, *chain, *epoch).is_err() {
                check_syncing(node, asker, *chain, *epoch)?;
                syncing.push((*chain, *epoch));
            }
        }
        supplied.begin(node.store(), &syncing);
    }
    let chunks = node.store().trusted_behind(list.after, CHUNKS_PER_LIST_MAX);
    Ok(ChunkList { chunks })
}

pub(crate) async fn put(
    node: &Node,
    asker: &str,
    put: PutChunk,
    bytes: Bytes,
) -> Result<PutReply, Status> {
    let mut supplied = node.engine.supplied.lock().await;
    check_syncing(node, asker, put.copy.chain, put.epoch)?;
    let piece = Piece {
        offset: put.offset,
        sums: put.sums.clone(),
        bytes,
        is_last: put.is_last,
    };
    let is_done = supplied.put(node.store(), &put, &piece)?;
    Ok(PutReply { is_done })
}

pub(crate) async fn drop_chunk(node: &Node, asker: &str, drop: DropChunk) -> Result<(), Status> {
    let mut supplied = node.engine.supplied.lock().await;
    check_syncing(node, asker, drop.chain, drop.epoch)?;
    supplied.drop_chunk(node.store(), drop.chunk, (drop.chain, drop.epoch));
    Ok(())
}

/// For a head that may have worse copies, or a member whose own copy is damaged.
pub(crate) fn fetch(
    node: &Node,
    asker: &str,
    fetch: &FetchBlocks,
) -> Result<(FetchedBlocks, Bytes), Status> {
    let FetchBlocks {
        epoch,
        copy,
        first,
        sums,
    } = fetch;
    check_waiting(node, asker, copy.chain, *epoch)
        .or_else(|_| check_beside(node, asker, copy.chain, *epoch))?;
    let found = node.store().difference(copy, *first, sums)?;
    Ok((FetchedBlocks { sums: found.sums }, found.bytes))
}

/// For a member whose own copy is damaged.
pub(crate) async fn check_chunk(node: &Node, asker: &str, check: CheckChunk) -> Result<(), Status> {
    let CheckChunk {
        chain,
        epoch,
        chunk,
        expected,
    } = check;
    check_beside(node, asker, chain, epoch)?;
    if !repair::is_whole(node.store(), chunk).await {
        node.engine.doubt(chunk, chain);
        return Err(Status::Corrupt);
    }
    let stocked = node.store().stocked(chunk).ok_or(Status::NotFound)?;
    match expected.is_none_or(|expected| expected == stocked.content) {
        true => Ok(()),
        false => Err(Status::NotFound),
    }
}

/// What serves is changed by nothing but changes; and what is of an earlier time here comes first.
fn check_syncing(node: &Node, asker: &str, chain: ChainId, epoch: Epoch) -> Result<(), Status> {
    let place = place_behind(node, asker, chain)?;
    match place.epoch == epoch && !place.serves {
        true => node.engine.look(|core| core.check_settled(chain, epoch)),
        false => Err(Status::StaleEpoch(place.epoch)),
    }
}

/// This volume serves the chain, and the asker is another member.
pub(crate) fn check_beside(
    node: &Node,
    asker: &str,
    chain: ChainId,
    epoch: Epoch,
) -> Result<(), Status> {
    node.engine.look(|core| {
        let membership = core.membership();
        membership.serving_place(chain, epoch)?;
        let table = membership.table();
        let row = table.chain(chain).ok_or(Status::NotServing)?;
        let mut members = row.members.iter().filter_map(|of| table.volume(of.volume));
        match members.any(|volume| volume.node == asker) {
            true => Ok(()),
            false => Err(Status::NotServing),
        }
    })
}

/// What waits is as it was when all had gone.
fn check_waiting(node: &Node, asker: &str, chain: ChainId, epoch: Epoch) -> Result<(), Status> {
    node.engine.look(|core| {
        let head = core.membership().merged_by(chain, epoch)?;
        let head = core.membership().table().volume(head);
        match head.is_some_and(|head| head.node == asker) {
            true => Ok(()),
            false => Err(Status::NotServing),
        }
    })
}

/// This volume's place in a chain, if it is the one behind the asker's.
fn place_behind(node: &Node, asker: &str, chain: ChainId) -> Result<Place, Status> {
    node.engine.look(|core| {
        let place = core.place(chain).ok_or(Status::NotServing)?;
        let table = core.membership().table();
        let before = place.predecessor.and_then(|volume| table.volume(volume));
        match before.is_some_and(|before| before.node == asker) {
            true => Ok(place),
            false => Err(Status::NotServing),
        }
    })
}
