//! Bytes from volumes, verified against their sums.

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use tokio::time::timeout;
use vdfs_net::rpc;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{Read, ReadDone};
use vdfs_proto::sums::crc32c;
use vdfs_proto::{Layout, Status};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::files::File;
use crate::limits::{ATTEMPT_BULK, READ_WAIT, REPLANS_MAX};
use crate::plan::{ReadSpan, plan_read};
use crate::retry::{Attempt, Failure, retry};
use crate::session::Life;
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
        let payload = read_span(client, life, span, deadline).await?;
        return cut(layout, span, payload);
    }
    let reads = spans.iter().map(async |&span| {
        let payload = read_span(client, life, span, deadline).await?;
        cut(layout, span, payload)
    });
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
    span: ReadSpan,
    deadline: Deadline,
) -> Result<Bytes, Status> {
    let mut was_corrupt = false;
    loop {
        let mut attempt = ReadAttempt {
            client,
            span,
            turn: usize::from(was_corrupt),
            version_used: 0,
        };
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

struct ReadAttempt<'a> {
    client: &'a Client,
    span: ReadSpan,
    /// Which of the chain's members is asked.
    turn: usize,
    /// Of the chain table that the last attempt went by.
    version_used: u64,
}

impl Attempt for ReadAttempt<'_> {
    type Reply = Bytes;

    async fn attempt(&mut self) -> Result<Bytes, Status> {
        let volumes = &self.client.volumes;
        self.version_used = volumes.version();
        let route = volumes.reader(self.span.chain, self.turn);
        let route = route.ok_or(Status::NotServing)?;
        self.turn += 1;
        let read = Read {
            chain: self.span.chain,
            epoch: route.epoch,
            chunk: self.span.chunk,
            offset: self.span.offset,
            len: self.span.len,
            len_expected: self.span.len_expected,
        };
        let sent = rpc::call_data(route.carrier.as_ref(), read, Bytes::new(), ATTEMPT_BULK);
        let (done, payload) = sent.await?;
        verify(&done, &payload, self.span.len)?;
        Ok(payload)
    }

    async fn refresh(&mut self) {
        self.client.fetch_table(self.version_used).await;
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
