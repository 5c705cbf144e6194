//! Bytes from volumes, verified against their sums.
//!
//! Any member of a chain that serves may be asked. Invariant: bytes are lost only when all of them say
//! so.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{Doubt, Read, ReadDone};
use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChunkId, Layout, RetryClass, Status};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::files::File;
use crate::limits::{READ_SILENCE, READ_WAIT, REPLANS_MAX};
use crate::plan::{ReadSpan, plan_read};
use crate::retry::{Attempt, Failure, next, retry};
use crate::session::Life;
use crate::volumes::{Route, Snapshot};
use vdfs_net::clock::boot_ms;

/// `len` bytes at `offset`; fewer where the file ends, also if it was truncated meanwhile.
pub(crate) async fn fetch(
    client: &Client,
    file: &File,
    offset: u64,
    len: u64,
    deadline: Deadline,
) -> Result<Bytes, Status> {
    let mut replans = 0;
    loop {
        let life = client.session.serving(deadline).await?;
        let layout = client.layout(file, deadline).await?;
        let len = file.committed_end().saturating_sub(offset).min(len);
        let status = match fetch_once(client, &life, &layout, (offset, len), deadline).await {
            Ok(bytes) => return Ok(bytes),
            Err(status) => status,
        };
        let may_replan = matches!(
            status,
            Status::Gone | Status::DataLost | Status::StaleLayout | Status::SessionExpired
        );
        if !may_replan || replans == REPLANS_MAX {
            return Err(status);
        }
        replans += 1;
        if status == Status::SessionExpired {
            client.session.after(&life, deadline).await?;
            continue;
        }
        let fresh = client.fresh_layout(file, deadline).await?;
        if fresh == layout {
            return Err(Status::DataLost);
        }
    }
}

async fn fetch_once(
    client: &Client,
    life: &Life,
    layout: &Layout,
    (offset, len): (u64, u64),
    deadline: Deadline,
) -> Result<Bytes, Status> {
    let spans = plan_read(layout, client.chunk_size, offset, len);
    if let [span] = spans[..] {
        return read_span(client, life, layout, span, deadline).await;
    }
    let reads = spans
        .iter()
        .map(|&span| read_span(client, life, layout, span, deadline));
    let parts = try_join_all(reads).await?;
    let mut whole = BytesMut::with_capacity(len as usize);
    for part in parts {
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

/// The bytes that were asked for; what the chunk lacks is zeros in a hole and a loss elsewhere.
fn cut(layout: &Layout, span: ReadSpan, payload: Bytes) -> Result<Bytes, Status> {
    let (skip, take) = (span.skip as usize, span.take as usize);
    if payload.len() >= skip + take {
        return Ok(payload.slice(skip..skip + take));
    }
    if !layout.holes {
        return Err(Status::DataLost);
    }
    let mut filled = BytesMut::with_capacity(take);
    filled.extend_from_slice(payload.get(skip..).unwrap_or_default());
    filled.resize(take, 0);
    Ok(filled.freeze())
}

async fn read_span(
    client: &Client,
    life: &Life,
    layout: &Layout,
    span: ReadSpan,
    deadline: Deadline,
) -> Result<Bytes, Status> {
    let mut was_corrupt = false;
    let mut attempt = ReadAttempt {
        client,
        layout,
        span,
        turn: first_turn(life, span.chunk),
        table: client.volumes.snapshot(),
    };
    loop {
        match timeout(READ_WAIT, retry(&mut attempt, life, deadline)).await {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(Failure { status, .. })) if status == Status::Corrupt && !was_corrupt => {
                was_corrupt = true;
            }
            Ok(Err(failure)) => return Err(failure.status),
            // Nobody serves the chain though the master is there. Without it everybody waits.
            Err(_) if life.serves(boot_ms()) => return Err(Status::DeadlineExceeded),
            Err(_) => {}
        }
    }
}

/// Whom to ask first: chunks, and clients, are spread over the members of a chain.
fn first_turn(life: &Life, chunk: ChunkId) -> usize {
    let mut hasher = DefaultHasher::new();
    (life.id, chunk).hash(&mut hasher);
    hasher.finish() as usize
}

struct ReadAttempt<'a> {
    client: &'a Client,
    layout: &'a Layout,
    span: ReadSpan,
    /// Which of the chain's members is asked first.
    turn: usize,
    /// What the last attempt went by.
    table: Snapshot,
}

impl Attempt for ReadAttempt<'_> {
    type Reply = Bytes;

    /// Asks one member after the other, the next one when one has failed or all say nothing. It fails
    /// with the most promising of what they have said: a loss is believed if all have told of one.
    async fn attempt(&mut self) -> Result<Bytes, Status> {
        self.table = self.client.volumes.snapshot();
        let readers = self.table.readers(self.span.chain, self.turn);
        let mut others = readers.into_iter();
        self.turn = self.turn.wrapping_add(1);
        let this = &*self;
        let mut asked = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            asked.extend(others.next().map(|route| this.ask(route)));
            let heard = match others.len() {
                0 => Ok(asked.next().await),
                // Whoever was silent may still be the first to answer.
                _ => timeout(READ_SILENCE, asked.next()).await,
            };
            match heard {
                Ok(Some(Err(status))) if is_of_one_member(status) => failures.push(status),
                Ok(Some(answer)) => return answer,
                Ok(None) => break,
                Err(_silence) => {}
            }
        }
        let most_promising = failures.into_iter().max_by_key(|&status| next(status));
        Err(most_promising.unwrap_or(Status::NotServing))
    }

    async fn refresh(&mut self) {
        self.client.fetch_table(self.table.version()).await;
    }

    async fn outdated(&self) {
        let volumes = &self.client.volumes;
        volumes.other_than(&self.table, self.span.chain).await;
    }
}

impl ReadAttempt<'_> {
    async fn ask(&self, route: Route) -> Result<Bytes, Status> {
        let read = Read {
            chain: self.span.chain,
            epoch: route.epoch,
            chunk: self.span.chunk,
            offset: self.span.offset,
            len: self.span.len,
            len_expected: self.span.len_expected,
        };
        let asked = self.client.volumes.ask(&route, read, Bytes::new());
        let (done, payload) = asked.await?;
        let verified = verify(&done, &payload, self.span.len);
        if verified == Err(Status::Corrupt) && self.tell_of_damage(&route).await {
            return Err(Status::Busy);
        }
        verified?;
        cut(self.layout, self.span, payload)
    }

    /// Whether it may be good in a moment. Whether or not the volume hears of it, another one is asked.
    async fn tell_of_damage(&self, route: &Route) -> bool {
        let doubt = Doubt {
            chain: self.span.chain,
            chunk: self.span.chunk,
        };
        let told = self.client.volumes.ask(route, doubt, Bytes::new()).await;
        match told {
            Ok((doubted, _)) => doubted.is_open,
            Err(status) => {
                tracing::debug!(%status, "a volume was not told that it has a damaged chunk");
                false
            }
        }
    }
}

/// Whether another member of the chain may say something else.
fn is_of_one_member(status: Status) -> bool {
    match status.retry_class() {
        RetryClass::OtherReplica | RetryClass::SamePeer | RetryClass::Reconnect => true,
        RetryClass::RefreshTable => matches!(status, Status::NotServing | Status::NotInSync),
        RetryClass::Never => matches!(
            status,
            Status::DeadlineExceeded | Status::Internal | Status::Malformed
        ),
    }
}

/// Every block of the payload has the sum that was stored with it.
fn verify(done: &ReadDone, payload: &Bytes, len: u32) -> Result<(), Status> {
    if payload.len() > len as usize {
        return Err(Status::Malformed);
    }
    let blocks = payload.chunks(BLOCK_BYTES as usize);
    if blocks.len() != done.sums.len() {
        return Err(Status::Malformed);
    }
    let good = blocks
        .zip(&done.sums)
        .all(|(block, &sum)| crc32c(block) == sum);
    if !good {
        tracing::warn!(len = payload.len(), "bytes do not match their sums");
        return Err(Status::Corrupt);
    }
    Ok(())
}
