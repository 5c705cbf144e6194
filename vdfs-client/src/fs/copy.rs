//! `copy_file_range(2)`. What lies on one volume it copies by itself; the rest goes through this
//! client. Holes are copied as zeros.

use std::collections::VecDeque;
use std::sync::Arc;

use vdfs_proto::Status;

use super::space::{Ordered, outcome};
use super::{CopyRange, Fs, WriteFlags};
use crate::clock::wall;
use crate::deadline::Deadline;
use crate::fetch::fetch;
use crate::files::{File, Work};
use crate::limits::{COPY_RANGE_BYTES_MAX, ORDERS_MAX, REPLANS_MAX};
use crate::plan::{CopyFrom, CopySpan, plan_copy};
use crate::write_behind::{Reach, flush_here, launch};

impl Fs {
    /// Copies bytes of one open file to another, or within one; returns how many, fewer than asked
    /// where the source ends, after `COPY_RANGE_BYTES_MAX`, or where an error came in between. All of
    /// them are committed.
    ///
    /// `BadHandle` if the target is open for appending; `Invalid` if the ranges overlap.
    pub async fn copy_range(&self, wanted: CopyRange) -> Result<u64, Status> {
        self.client.check_writable()?;
        let source = self.client.files.handle(wanted.source)?;
        let target = self.client.files.handle(wanted.target)?;
        if !source.access.read || !target.access.write || target.options.append {
            return Err(Status::BadHandle);
        }
        let end = wanted.target_offset.checked_add(wanted.len);
        if end.is_none_or(|end| end > self.client.chunk_size.file_bytes_max()) {
            return Err(Status::FileTooLarge);
        }
        let mut copying = Copying {
            fs: self.clone(),
            source: source.file.clone(),
            target: target.file.clone(),
            kill_privileges: wanted.kill_privileges,
            under_way: VecDeque::new(),
            done: Done::default(),
        };
        let task = async move { copying.run(&wanted).await };
        let deadline = self.client.deadline();
        let copied = deadline.limit(self.client.spawn(task)).await??;
        target.check_errors()?;
        Ok(copied)
    }
}

/// One call.
#[derive(Debug)]
struct Copying {
    fs: Fs,
    source: Arc<File>,
    target: Arc<File>,
    kill_privileges: bool,
    /// In order; those without an order have gone through this client.
    under_way: VecDeque<(CopySpan, Option<Ordered>)>,
    done: Done,
}

/// What is copied, without a gap.
#[derive(Debug, Default)]
struct Done {
    bytes: u64,
    /// What volumes have copied by themselves of it, as ranges of the target.
    provided: Vec<(u64, u64)>,
    /// The source has ended early.
    is_over: bool,
}

impl Copying {
    async fn run(&mut self, wanted: &CopyRange) -> Result<u64, Status> {
        let client = self.fs.client.clone();
        flush_here(&client, &self.source).await;
        for _ in 0..REPLANS_MAX {
            client.fresh_layout(&self.source, Deadline::NEVER).await?;
            client.layout(&self.target, Deadline::NEVER).await?;
            let (offsets, len) = self.cut(wanted)?;
            let target = self.target.clone();
            let turn = target.space_turn.lock().await;
            let copied = self
                .copy_all(plan_copy(client.chunk_size, offsets, len))
                .await;
            for (_, ordered) in self.under_way.drain(..) {
                // Behind a failure: it only has to end.
                if let Some(ordered) = ordered {
                    drop(ordered.await);
                }
            }
            let is_kept = self.keep();
            drop(turn);
            flush_here(&client, &self.target).await;
            match copied {
                Err(status) if self.done.bytes == 0 => return Err(status),
                Ok(()) | Err(_) if is_kept => return Ok(self.done.bytes),
                Ok(()) | Err(_) => self.done = Done::default(),
            }
        }
        Err(Status::StaleLayout)
    }

    /// What there is to copy now: offsets in source and target, and the length.
    fn cut(&self, wanted: &CopyRange) -> Result<((u64, u64), u64), Status> {
        let end = self.source.committed_end();
        let len = wanted.len.min(end.saturating_sub(wanted.source_offset));
        let distance = wanted.source_offset.abs_diff(wanted.target_offset);
        if self.source.ino == self.target.ino && distance < len {
            return Err(Status::Invalid);
        }
        let offsets = (wanted.source_offset, wanted.target_offset);
        Ok((offsets, len.min(COPY_RANGE_BYTES_MAX)))
    }

    /// Has what volumes have copied count as written; false if they have to do it again, under other
    /// rights.
    fn keep(&self) -> bool {
        let stamp = (wall(), self.kill_privileges);
        let is_kept = self.done.bytes == 0 || self.target.keep_provided(&self.done.provided, stamp);
        self.target.drop_provided();
        is_kept
    }

    async fn copy_all(&mut self, spans: impl Iterator<Item = CopySpan>) -> Result<(), Status> {
        for span in spans {
            if self.under_way.len() == ORDERS_MAX {
                self.hear().await?;
            }
            if self.done.is_over {
                break;
            }
            self.begin(span).await?;
        }
        while !self.under_way.is_empty() {
            self.hear().await?;
        }
        Ok(())
    }

    async fn begin(&mut self, span: CopySpan) -> Result<(), Status> {
        let Some(from) = self.within_a_volume(span).await? else {
            let carried = self.carry(span).await?;
            self.done.is_over = carried < span.len;
            let carried = CopySpan {
                len: carried,
                ..span
            };
            self.under_way.push_back((carried, None));
            return Ok(());
        };
        let reach = Reach {
            end: span.to,
            now: wall(),
            kill_privileges: self.kill_privileges,
        };
        let ordered = loop {
            match self.target.order((span.to, span.len), Work::Copy(from)) {
                Ok(ordered) => break ordered,
                Err(lacks) => self.fs.supply(&self.target, lacks, reach).await?,
            }
        };
        launch(&self.fs.client, &self.target);
        self.under_way.push_back((span, Some(ordered)));
        Ok(())
    }

    /// The source of the piece, if it lies on the volume that the piece goes to, and to no other one:
    /// only such a volume copies by itself.
    async fn within_a_volume(&self, span: CopySpan) -> Result<Option<CopyFrom>, Status> {
        let client = &self.fs.client;
        let layout = client.layout(&self.source, Deadline::NEVER).await?;
        let from = span.source(&layout, client.chunk_size);
        let source = client.volumes.head_volume(from.chain);
        let target = client.chain_at(&self.target, span.to);
        let target = target.and_then(|chain| client.volumes.lone_member(chain));
        let is_same = source.is_some() && source == target;
        Ok(is_same.then_some(from))
    }

    /// Hears of the oldest piece.
    async fn hear(&mut self) -> Result<(), Status> {
        let (span, ordered) = self.under_way.pop_front().expect("there is one");
        let Some(ordered) = ordered else {
            self.done.bytes += span.len;
            return Ok(());
        };
        match outcome(ordered.await) {
            Ok(()) => {
                self.done.bytes += span.len;
                self.done.provided.push((span.to, span.to + span.len));
            }
            // The volume does not say on which side: a read of the source and a write do. Or the
            // chain has got another member meanwhile.
            Err(
                Status::DataLost
                | Status::Corrupt
                | Status::Gone
                | Status::StaleLayout
                | Status::NotSupported,
            ) => {
                let carried = self.carry(span).await?;
                self.done.is_over |= carried < span.len;
                self.done.bytes += carried;
            }
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// Copies a piece by reading and writing; gives the bytes that there were.
    async fn carry(&self, span: CopySpan) -> Result<u64, Status> {
        let client = &self.fs.client;
        let read = fetch(client, &self.source, span.from, span.len, Deadline::NEVER);
        let bytes = read.await?;
        let carried = bytes.len() as u64;
        if carried > 0 {
            let flags = WriteFlags {
                kill_privileges: self.kill_privileges,
                ..WriteFlags::default()
            };
            self.fs.take(&self.target, span.to, bytes, flags).await?;
        }
        Ok(carried)
    }
}
