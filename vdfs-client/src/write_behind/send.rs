//! One run to the head of its chain.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use vdfs_proto::data::{
    ChangeSpace, CopyBytes, CopySource, DataReply, DataRequest, SpaceKind, Write, Written,
};
use vdfs_proto::meta::StatFs;
use vdfs_proto::operation::Operation;
use vdfs_proto::sums::piece_sums;
use vdfs_proto::{Layout, OpId, Status};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::files::{File, Run, RunBody, Work};
use crate::limits::{BACKOFF_MAX, NO_SPACE_WAIT, REPLANS_MAX};
use crate::plan::{CopyFrom, WriteSpan, plan_write};
use crate::retry::{Attempt, Failure, retry};
use crate::session::Life;
use crate::slots::Claim;
use crate::volumes::{Route, Snapshot};

/// Sends a run and lands it.
pub(super) async fn send_run(client: Arc<Client>, file: Arc<File>, life: Arc<Life>, run: Run) {
    let outcome = write_run(&client, &file, &life, &run).await;
    note_space(&client, &outcome);
    let (offset, len) = (run.offset, run.len);
    tracing::debug!(ino = %file.ino, off = offset, len, is_ok = outcome.is_ok(), "landed");
    let counts = file.land(&run, outcome.map(drop));
    match (run.body, outcome) {
        (RunBody::Write { .. }, Err(status)) if counts => {
            tracing::warn!(ino = %file.ino, off = offset, len, %status, "written bytes are dropped");
            let kernel = &client.config.kernel_cache;
            kernel.invalidate_data(file.ino, offset, len);
        }
        (RunBody::Write { .. }, _) => {}
        (RunBody::Order(order), outcome) => order.answer(outcome.map(drop)),
    }
}

fn note_space(client: &Client, outcome: &Result<Written, Status>) {
    let is_low = match outcome {
        Ok(written) => written.low_space,
        Err(Status::NoSpace) => true,
        Err(_) => return,
    };
    client.is_space_low.store(is_low, Ordering::Relaxed);
}

/// Sends until the answer is final.
async fn write_run(
    client: &Client,
    file: &File,
    life: &Arc<Life>,
    run: &Run,
) -> Result<Written, Status> {
    let mut room = RoomWait::new();
    let mut replans = 0;
    loop {
        let layout = life
            .unless_ended(client.layout(file, Deadline::NEVER))
            .await??;
        if run.work() == Some(Work::Space(SpaceKind::Punch)) && !layout.holes {
            // The file has begun anew since its holes were committed.
            return Err(Status::StaleLayout);
        }
        let failure = match write_once(client, life, &layout, run).await {
            Ok(written) => return Ok(written),
            Err(failure) => failure,
        };
        match failure.status {
            Status::NoSpace if !room.is_over() => {
                life.unless_ended(room.wait(client)).await?;
            }
            Status::Corrupt if replans == 0 => replans += 1,
            Status::DataLost | Status::StaleLayout if replans < REPLANS_MAX => {
                replans += 1;
                let fresh = client.fresh_layout(file, Deadline::NEVER);
                if life.unless_ended(fresh).await?? == layout {
                    return Err(failure.status);
                }
            }
            Status::Fenced => return Err(Status::SessionExpired),
            status => return Err(status),
        }
    }
}

/// The wait for room that reaps may make.
struct RoomWait {
    begun: Instant,
    /// No reap was under way before the last attempt.
    none_comes: bool,
}

impl RoomWait {
    fn new() -> Self {
        RoomWait {
            begun: Instant::now(),
            none_comes: false,
        }
    }

    fn is_over(&self) -> bool {
        self.none_comes || self.begun.elapsed() >= NO_SPACE_WAIT
    }

    /// The pause comes before the question: the close that lets a file go may be on its way.
    async fn wait(&mut self, client: &Client) {
        tokio::time::sleep(BACKOFF_MAX).await;
        let stats = client.query_until(StatFs {}, Deadline::NEVER).await;
        self.none_comes = stats.is_ok_and(|stats| !stats.is_reaping);
    }
}

/// One op: sent, with the same op id, until a volume has answered it.
async fn write_once(
    client: &Client,
    life: &Arc<Life>,
    layout: &Layout,
    run: &Run,
) -> Result<Written, Failure> {
    let span = plan_write(layout, client.chunk_size, run.offset, run.len);
    let not_sent = |status| Failure {
        status,
        in_doubt: false,
    };
    let serving = client.session.serving(Deadline::NEVER);
    let now = life.unless_ended(serving).await;
    now.and_then(|life| life).map_err(not_sent)?;
    let claim = life.unless_ended(claim_slot(client, life, span)).await;
    let (_turn, claim) = claim.map_err(not_sent)?;
    let mut attempt = WriteAttempt {
        client,
        span,
        op: claim.op(),
        run,
        sums: run_sums(span, run),
        table: client.volumes.snapshot(),
    };
    let outcome = retry(&mut attempt, life, Deadline::NEVER).await;
    if !life.has_ended() {
        claim.settle();
    }
    outcome
}

/// A slot, and before it a turn among those of the same volume.
async fn claim_slot(
    client: &Client,
    life: &Life,
    span: WriteSpan,
) -> (Option<OwnedSemaphorePermit>, Claim) {
    let turn = match client.volumes.head_volume(span.chain) {
        Some(volume) => life.volume_slots.of(volume).acquire_owned().await.ok(),
        None => None,
    };
    (turn, life.data_slots.claim().await)
}

struct WriteAttempt<'a> {
    client: &'a Client,
    span: WriteSpan,
    op: OpId,
    run: &'a Run,
    sums: Vec<u32>,
    /// What the last attempt went by.
    table: Snapshot,
}

impl Attempt for WriteAttempt<'_> {
    type Reply = Written;

    async fn attempt(&mut self) -> Result<Written, Status> {
        let volumes = &self.client.volumes;
        self.table = volumes.snapshot();
        let ways = volumes.ways_in(&self.table, self.span.chain);
        let route = ways.into_iter().next().ok_or(Status::NotServing)?;
        let answer = match &self.run.body {
            RunBody::Write { bytes, .. } => self.write(&route, bytes.clone()).await,
            RunBody::Order(order) => match order.work {
                Work::Space(kind) => self.change_space(&route, kind).await,
                Work::Copy(from) => self.copy(&route, from).await,
            },
        };
        volumes.note_answer(&route, &answer);
        answer
    }

    async fn refresh(&mut self) {
        self.client.fetch_table(self.table.version()).await;
    }

    async fn outdated(&self) {
        let volumes = &self.client.volumes;
        volumes.other_than(&self.table, self.span.chain).await;
    }
}

impl WriteAttempt<'_> {
    async fn write(&self, route: &Route, payload: Bytes) -> Result<Written, Status> {
        let write = Write {
            chain: self.span.chain,
            epoch: route.epoch,
            chunk: self.span.chunk,
            op: self.op,
            offset: self.span.offset,
            len_expected: self.span.len_expected,
            sums: self.sums.clone(),
        };
        self.send(route, write, payload).await
    }

    async fn change_space(&self, route: &Route, kind: SpaceKind) -> Result<Written, Status> {
        let change = ChangeSpace {
            chain: self.span.chain,
            epoch: route.epoch,
            chunk: self.span.chunk,
            op: self.op,
            kind,
            offset: self.span.offset,
            len: self.len(),
            len_expected: self.span.len_expected,
        };
        self.send(route, change, Bytes::new()).await
    }

    async fn copy(&self, route: &Route, from: CopyFrom) -> Result<Written, Status> {
        let source = self.table.head(from.chain)?;
        if source.volume != route.volume {
            // They were on one volume when this was planned.
            return Err(Status::StaleLayout);
        }
        let copy = CopyBytes {
            chain: self.span.chain,
            epoch: route.epoch,
            chunk: self.span.chunk,
            op: self.op,
            offset: self.span.offset,
            len: self.len(),
            len_expected: self.span.len_expected,
            source: CopySource {
                chain: from.chain,
                epoch: source.epoch,
                chunk: from.chunk,
                offset: from.offset,
                len_expected: from.len_expected,
            },
        };
        self.send(route, copy, Bytes::new()).await
    }

    async fn send<O>(&self, route: &Route, operation: O, payload: Bytes) -> Result<Written, Status>
    where
        O: Operation<Request = DataRequest, Envelope = DataReply, Reply = Written>,
    {
        let asked = self.client.volumes.ask(route, operation, payload);
        asked.await.map(|(written, _)| written)
    }

    fn len(&self) -> u32 {
        u32::try_from(self.run.len).expect("a run lies within one chunk")
    }
}

/// Of a write's bytes; nothing for an order.
fn run_sums(span: WriteSpan, run: &Run) -> Vec<u32> {
    match &run.body {
        RunBody::Write { bytes, .. } => piece_sums(span.offset, bytes),
        RunBody::Order(_) => Vec::new(),
    }
}
