//! `fallocate(2)`: room, zeros and holes.
//!
//! What a volume does to a range goes the way of written bytes: behind what was written there before,
//! awaited by whoever asks a right back, committed when it is done.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use vdfs_proto::data::{SeekTarget, SpaceKind};
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;
use vdfs_proto::meta::Commit;
use vdfs_proto::{HandleId, Status, Timestamp};

use super::{Fs, SpaceChange};
use crate::clock::wall;
use crate::deadline::Deadline;
use crate::files::{File, Lacks, Work};
use crate::limits::{ORDERS_MAX, REPLANS_MAX};
use crate::write_behind::{Reach, ask_size, cut_tail, flush_here, launch};

/// Where to hear of the end of an order.
pub(super) type Ordered = oneshot::Receiver<Result<(), Status>>;

/// What one call does, apart from where.
#[derive(Clone, Copy, Debug)]
struct Call {
    kind: SpaceKind,
    keep_size: bool,
    now: Timestamp,
    kill_privileges: bool,
}

impl Fs {
    /// Changes what a range of a file is, and marks the file as modified. Everything is committed
    /// when it returns.
    ///
    /// With `keep_size`, and always for a punch, the range ends where the file does; room behind the
    /// end is then only checked. `NoSpace` leaves the size as it was, but where the range begins
    /// behind the end: then the file may end where the range begins.
    pub async fn change_space(&self, handle: HandleId, wanted: SpaceChange) -> Result<(), Status> {
        self.client.check_writable()?;
        let handle = self.client.files.handle(handle)?;
        if !handle.access.write {
            return Err(Status::BadHandle);
        }
        let end = self.end_of(wanted)?;
        let call = Call {
            kind: wanted.kind,
            keep_size: wanted.keep_size || wanted.kind == SpaceKind::Punch,
            now: wall(),
            kill_privileges: wanted.kill_privileges,
        };
        let (fs, file) = (self.clone(), handle.file.clone());
        let task = async move {
            flush_here(&fs.client, &file).await;
            ask_size(&fs.client, &file).await;
            fs.client.layout(&file, Deadline::NEVER).await?;
            if wanted.kind != SpaceKind::Punch {
                fs.check_room(&file, wanted.offset, end).await?;
            }
            let turn = file.space_turn.lock().await;
            let outcome = fs.change_range(&file, call, (wanted.offset, end)).await;
            drop(turn);
            flush_here(&fs.client, &file).await;
            outcome
        };
        let deadline = self.client.deadline();
        deadline.limit(self.client.spawn(task)).await??;
        handle.check_errors()
    }

    fn end_of(&self, wanted: SpaceChange) -> Result<u64, Status> {
        if wanted.len == 0 {
            return Err(Status::Invalid);
        }
        let end = wanted.offset.checked_add(wanted.len);
        let fits = |end: &u64| *end <= self.client.chunk_size.file_bytes_max();
        end.filter(fits).ok_or(Status::FileTooLarge)
    }

    /// Refuses at once what can not have room behind the end of the file.
    async fn check_room(&self, file: &File, offset: u64, end: u64) -> Result<(), Status> {
        let grows_by = end.saturating_sub(offset.max(file.end()));
        if grows_by > 0 && grows_by > self.stat_fs().await?.free_bytes {
            return Err(Status::NoSpace);
        }
        Ok(())
    }

    async fn change_range(
        &self,
        file: &Arc<File>,
        call: Call,
        (offset, end): (u64, u64),
    ) -> Result<(), Status> {
        for _ in 0..REPLANS_MAX {
            self.client.layout(file, Deadline::NEVER).await?;
            let end = match call.keep_size {
                true => end.min(file.end()),
                false => end,
            };
            let changed = match call.kind {
                _ if offset >= end => Ok(Vec::new()),
                SpaceKind::Punch => self.punch(file, call, (offset, end)).await,
                SpaceKind::Zero => self.provide(file, call, (offset, end)).await,
                SpaceKind::Allocate => self.allocate(file, call, (offset, end)).await,
            };
            match changed {
                Ok(provided) => {
                    if file.keep_provided(&provided, (call.now, call.kill_privileges)) {
                        return Ok(());
                    }
                }
                // The file has been cut off, or has begun anew.
                Err(Status::StaleLayout) => {}
                Err(status) => {
                    file.drop_provided();
                    return Err(status);
                }
            }
            file.drop_provided();
        }
        Err(Status::StaleLayout)
    }

    /// Gives the ranges that volumes have provided.
    async fn allocate(
        &self,
        file: &Arc<File>,
        call: Call,
        (offset, end): (u64, u64),
    ) -> Result<Vec<(u64, u64)>, Status> {
        let layout = self.client.layout(file, Deadline::NEVER).await?;
        // A file without holes has room under all that it has.
        let first = match layout.holes {
            true => offset,
            false => offset.max(file.committed_end()),
        };
        if first >= end {
            return Ok(Vec::new());
        }
        if end > file.end() {
            // An allocation leaves what is there, so nothing of dead writers may be.
            cut_tail(&self.client, file, call.reach(first)).await?;
        }
        self.provide(file, call, (first, end)).await
    }

    async fn provide(
        &self,
        file: &Arc<File>,
        call: Call,
        range: (u64, u64),
    ) -> Result<Vec<(u64, u64)>, Status> {
        self.order_pieces(file, call, range).await?;
        Ok(vec![range])
    }

    /// Punches what has data, once it is known at the master that the file has holes.
    async fn punch(
        &self,
        file: &Arc<File>,
        call: Call,
        range: (u64, u64),
    ) -> Result<Vec<(u64, u64)>, Status> {
        match self.mark_holes(file, call).await? {
            true => self.punch_data(file, call, range).await?,
            false => self.order_pieces(file, call, range).await?,
        }
        Ok(Vec::new())
    }

    /// Commits that the file has holes; true if it had before.
    async fn mark_holes(&self, file: &Arc<File>, call: Call) -> Result<bool, Status> {
        let mut layout = self.client.layout(file, Deadline::NEVER).await?;
        for _ in 0..REPLANS_MAX {
            if layout.holes {
                return Ok(true);
            }
            let commit = Commit {
                ino: file.ino,
                data: layout.data,
                truncations: layout.truncations,
                end: 0,
                holes: true,
                mtime: call.now,
                kill_privileges: call.kill_privileges,
            };
            match self.client.mutate_here(commit.clone()).await {
                Ok(committed) => {
                    file.note_commit(&commit, &committed);
                    return Ok(false);
                }
                Err(Status::StaleLayout) => {
                    layout = self.client.fresh_layout(file, Deadline::NEVER).await?;
                }
                Err(status) => return Err(status),
            }
        }
        Err(Status::StaleLayout)
    }

    /// A file may have millions of chunks that were never made: those are not asked for one by one.
    async fn punch_data(
        &self,
        file: &Arc<File>,
        call: Call,
        (offset, end): (u64, u64),
    ) -> Result<(), Status> {
        let chunk = u64::from(self.client.chunk_size.bytes());
        let mut orders = Orders::default();
        let mut at = offset;
        while at < end {
            let data = match self.seek_in(file, SeekTarget::Data, (at, end)).await {
                Ok(Some(data)) => data,
                Ok(None) => break,
                Err(status) => return orders.finish(Err(status)).await,
            };
            at = end.min(data - data % chunk + chunk);
            if let Err(status) = self.order(file, call, (data, at), &mut orders).await {
                return orders.finish(Err(status)).await;
            }
        }
        orders.finish(Ok(())).await
    }

    async fn order_pieces(
        &self,
        file: &Arc<File>,
        call: Call,
        (offset, end): (u64, u64),
    ) -> Result<(), Status> {
        let piece_bytes = match call.kind {
            SpaceKind::Punch => u64::MAX,
            SpaceKind::Zero | SpaceKind::Allocate => PAYLOAD_BYTES_MAX as u64,
        };
        let chunk = u64::from(self.client.chunk_size.bytes());
        let mut orders = Orders::default();
        let mut at = offset;
        while at < end {
            let chunk_end = at - at % chunk + chunk;
            let piece_end = end.min(chunk_end).min(at.saturating_add(piece_bytes));
            if let Err(status) = self.order(file, call, (at, piece_end), &mut orders).await {
                return orders.finish(Err(status)).await;
            }
            at = piece_end;
        }
        orders.finish(Ok(())).await
    }

    async fn order(
        &self,
        file: &Arc<File>,
        call: Call,
        (from, to): (u64, u64),
        orders: &mut Orders,
    ) -> Result<(), Status> {
        orders.make_room().await?;
        let work = Work::Space(call.kind);
        let ordered = loop {
            match file.order((from, to - from), work) {
                Ok(ordered) => break ordered,
                Err(Lacks::Gap) if call.keep_size => return Err(Status::StaleLayout),
                Err(lacks) => self.supply(file, lacks, call.reach(from)).await?,
            }
        };
        launch(&self.client, file);
        orders.under_way.push(ordered);
        Ok(())
    }
}

impl Call {
    fn reach(self, end: u64) -> Reach {
        Reach {
            end,
            now: self.now,
            kill_privileges: self.kill_privileges,
        }
    }
}

/// Work of volumes that is under way, and the first failure of it.
#[derive(Debug, Default)]
struct Orders {
    under_way: FuturesUnordered<Ordered>,
    failure: Option<Status>,
}

impl Orders {
    /// Waits until one more may be given.
    async fn make_room(&mut self) -> Result<(), Status> {
        while self.under_way.len() >= ORDERS_MAX {
            self.hear().await;
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// Waits for all of them, also if no more are to follow because of `given`.
    async fn finish(mut self, given: Result<(), Status>) -> Result<(), Status> {
        while !self.under_way.is_empty() {
            self.hear().await;
        }
        given.and(self.failure.map_or(Ok(()), Err))
    }

    async fn hear(&mut self) {
        if let Some(answer) = self.under_way.next().await
            && let Err(status) = outcome(answer)
        {
            self.failure.get_or_insert(status);
        }
    }
}

/// What became of an order; without a word its session has ended.
pub(super) fn outcome(answer: Result<Result<(), Status>, RecvError>) -> Result<(), Status> {
    answer.unwrap_or(Err(Status::SessionExpired))
}
