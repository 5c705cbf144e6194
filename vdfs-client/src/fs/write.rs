//! `write(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;
use vdfs_proto::meta::{AcquireAppend, Open, SyncLog};
use vdfs_proto::{HandleId, Status, VolumeId};

use super::{Fs, WriteFlags};
use crate::client::{Client, recalled};
use crate::clock::wall;
use crate::deadline::Deadline;
use crate::files::{AppendBlocked, File, Handle, Lacks, Taken};
use crate::shares::Budget;
use crate::write_behind::{
    Reach, ask_size, flush, flush_here, launch, launch_all, make_gap, unheld, watch, write_out,
};

impl Fs {
    /// Takes bytes; returns how many, all of them except for a record to append that is longer than
    /// `PAYLOAD_BYTES_MAX`.
    ///
    /// Errors of earlier writes come back here, once. A plain write is answered when it is taken,
    /// one with `sync` or `append` when it is safe.
    pub async fn write(
        &self,
        handle: HandleId,
        offset: u64,
        bytes: Bytes,
        flags: WriteFlags,
    ) -> Result<u32, Status> {
        self.client.check_writable()?;
        let handle = self.client.files.handle(handle)?;
        if !handle.access.write {
            return Err(Status::BadHandle);
        }
        handle.check_errors()?;
        if bytes.is_empty() {
            return Ok(0);
        }
        if flags.append && !flags.from_page_cache {
            return self.append(handle, bytes, flags).await;
        }
        let len = u32::try_from(bytes.len()).map_err(|_| Status::Invalid)?;
        let end = offset.checked_add(u64::from(len));
        if end.is_none_or(|end| end > self.client.chunk_size.file_bytes_max()) {
            return Err(Status::FileTooLarge);
        }
        self.take(&handle.file, offset, bytes, flags).await?;
        self.write_through(&handle, flags).await?;
        Ok(len)
    }

    pub(super) async fn take(
        &self,
        file: &Arc<File>,
        mut offset: u64,
        mut bytes: Bytes,
        flags: WriteFlags,
    ) -> Result<(), Status> {
        while !bytes.is_empty() {
            // Within a chunk: each goes to one volume.
            let piece = bytes.split_to(self.piece_bytes(offset, bytes.len()));
            let volume = self.client.volume_at(file, offset);
            let deadline = self.client.deadline();
            let taken = Taken {
                budget: budget(&self.client, volume, piece.len(), deadline).await?,
                bytes: &piece,
                now: wall(),
                kill_privileges: flags.kill_privileges,
            };
            self.take_piece(file, offset, taken, flags.from_page_cache)
                .await?;
            offset += piece.len() as u64;
            launch(&self.client, file);
        }
        watch(&self.client, file);
        Ok(())
    }

    fn piece_bytes(&self, offset: u64, len: usize) -> usize {
        let chunk = u64::from(self.client.chunk_size.bytes());
        let left = usize::try_from(chunk - offset % chunk).unwrap_or(usize::MAX);
        len.min(PAYLOAD_BYTES_MAX).min(left)
    }

    /// Takes a write when the file reaches to where it begins. What comes from the page cache lies
    /// below the end that the kernel knows.
    async fn take_piece(
        &self,
        file: &Arc<File>,
        offset: u64,
        mut taken: Taken<'_>,
        from_page_cache: bool,
    ) -> Result<(), Status> {
        while let Err((lacks, back)) = file.take(offset, taken, from_page_cache) {
            let reach = Reach {
                end: offset,
                now: back.now,
                kill_privileges: back.kill_privileges,
            };
            self.supply(file, lacks, reach).await?;
            taken = back;
        }
        Ok(())
    }

    /// Waits for a layout, or lets the file reach to where the range begins.
    pub(super) async fn supply(
        &self,
        file: &Arc<File>,
        lacks: Lacks,
        reach: Reach,
    ) -> Result<(), Status> {
        let deadline = self.client.deadline();
        match lacks {
            Lacks::Layout => {
                deadline.limit(layout_given(file)).await?;
                self.client.layout(file, deadline).await.map(drop)
            }
            Lacks::Gap => {
                let (client, file) = (self.client.clone(), file.clone());
                let task = async move { make_gap(&client, &file, reach).await };
                deadline.limit(self.client.spawn(task)).await?
            }
        }
    }

    /// Waits for what must be out before the answer.
    async fn write_through(&self, handle: &Handle, flags: WriteFlags) -> Result<(), Status> {
        let file = &handle.file;
        if flags.sync || handle.options.sync {
            flush(&self.client, file).await?;
            handle.check_errors()?;
            if handle.options.sync {
                self.client.query(SyncLog {}).await?;
            }
        } else if self.client.is_space_low.load(Ordering::Relaxed) {
            write_out(&self.client, file).await?;
            handle.check_errors()?;
        }
        Ok(())
    }

    async fn append(
        &self,
        handle: Arc<Handle>,
        mut bytes: Bytes,
        flags: WriteFlags,
    ) -> Result<u32, Status> {
        bytes.truncate(PAYLOAD_BYTES_MAX);
        let client = self.client.clone();
        let is_sync = handle.options.sync;
        let task = async move { append(&client, &handle, bytes, flags.kill_privileges).await };
        let deadline = self.client.deadline();
        let len = deadline.limit(self.client.spawn(task)).await??;
        if is_sync {
            self.client.query(SyncLog {}).await?;
        }
        Ok(len)
    }
}

/// Waits until the layout is not being given up.
async fn layout_given(file: &File) {
    loop {
        let progress = file.progress.notified();
        if !file.is_giving_layout() {
            return;
        }
        progress.await;
    }
}

/// A share of the buffer; when there is none, everything that waits is sent.
async fn budget(
    client: &Arc<Client>,
    volume: Option<VolumeId>,
    len: usize,
    deadline: Deadline,
) -> Result<Budget, Status> {
    let len = u32::try_from(len).expect("at most PAYLOAD_BYTES_MAX");
    if let Some(budget) = client.write_budget.try_take(volume, len) {
        return Ok(budget);
    }
    launch_all(client);
    deadline.limit(client.write_budget.take(volume, len)).await
}

/// Writes one record at the end of the file, wherever it is; safe when it returns.
async fn append(
    client: &Arc<Client>,
    handle: &Handle,
    bytes: Bytes,
    kill_privileges: bool,
) -> Result<u32, Status> {
    let file = &handle.file;
    let turn = file.append_turn.lock().await;
    // Where the end is as far as it is known: another volume's share at worst.
    let volume = client.volume_at(file, file.end().saturating_sub(1));
    let mut taken = Taken {
        budget: budget(client, volume, bytes.len(), Deadline::NEVER).await?,
        bytes: &bytes,
        now: wall(),
        kill_privileges,
    };
    if file.has_token() {
        // The token keeps other appenders away, not writers that extend the file.
        ask_size(client, file).await;
    }
    loop {
        taken = match file.take_at_end(taken) {
            Ok(()) => break,
            Err(AppendBlocked::TooLong) => return Err(Status::FileTooLarge),
            Err(AppendBlocked::Held(taken)) => {
                unheld(file).await;
                taken
            }
            Err(AppendBlocked::Rights(taken)) => {
                acquire(client, handle).await?;
                taken
            }
        };
    }
    watch(client, file);
    flush_here(client, file).await;
    file.end_append();
    drop(turn);
    handle.check_errors()?;
    Ok(bytes.len() as u32)
}

/// Gets the append token, unless it is asked back at once.
async fn acquire(client: &Client, handle: &Handle) -> Result<(), Status> {
    let file = &handle.file;
    recalled(file).await;
    let recalls = file.recalls();
    let ask = AcquireAppend {
        ino: file.ino,
        handle: handle.id,
    };
    match client.query_until(ask, Deadline::NEVER).await {
        Ok(token) => file.take_token(token.layout, recalls),
        // A restarted master that has not heard of the handle yet.
        Err(Status::BadHandle) => open_again(client, handle).await?,
        Err(status) => return Err(status),
    }
    Ok(())
}

async fn open_again(client: &Client, handle: &Handle) -> Result<(), Status> {
    let recalls = handle.file.recalls();
    let ask = Open {
        ino: handle.file.ino,
        handle: handle.id,
        access: handle.access,
    };
    let opened = client.query_until(ask, Deadline::NEVER).await?;
    handle.file.install_layout(opened.layout, recalls);
    Ok(())
}
