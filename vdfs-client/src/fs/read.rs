//! `read(2)`.

use bytes::Bytes;
use vdfs_proto::{HandleId, Status};

use super::Fs;
use crate::fetch::fetch;
use crate::files::Handle;
use crate::limits::READ_ATTEMPTS_MAX;
use crate::read_ahead;
use crate::write_behind::flush;

/// Where a read may get its bytes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Also from what was read ahead.
    Ahead,
    Volumes,
}

impl Fs {
    /// Bytes at `offset`; fewer than `len` only at the end of the file.
    pub async fn read(&self, handle: HandleId, offset: u64, len: u32) -> Result<Bytes, Status> {
        self.read_from(handle, offset, len, Source::Ahead).await
    }

    /// [`Fs::read`] that sees what any client has got out to the volumes by now (`O_DIRECT`).
    pub async fn read_direct(
        &self,
        handle: HandleId,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, Status> {
        self.read_from(handle, offset, len, Source::Volumes).await
    }

    /// The kernel may have bytes of this file that a program has written through a shared mapping,
    /// and that nobody else has seen.
    pub fn may_have_mapped(&self, handle: HandleId) -> Result<bool, Status> {
        Ok(self.client.files.handle(handle)?.file.has_mappers())
    }

    async fn read_from(
        &self,
        handle: HandleId,
        offset: u64,
        len: u32,
        from: Source,
    ) -> Result<Bytes, Status> {
        self.client.check_running()?;
        let handle = self.client.files.handle(handle)?;
        let wanted = offset.saturating_add(u64::from(len));
        let mut attempts = 0;
        loop {
            let tellings = handle.file.tellings();
            let bytes = self.read_once(&handle, offset, wanted, from).await?;
            let end = offset + bytes.len() as u64;
            attempts += 1;
            // A kernel that learns of a longer file while its read is under way fills up what the
            // read falls short of with zeros: so the read is to be as new as what it was told.
            let is_stale = end < wanted && handle.file.was_told_longer(tellings, end);
            if !is_stale || attempts >= READ_ATTEMPTS_MAX {
                return Ok(bytes);
            }
        }
    }

    async fn read_once(
        &self,
        handle: &Handle,
        offset: u64,
        wanted: u64,
        from: Source,
    ) -> Result<Bytes, Status> {
        let file = &handle.file;
        if handle.marks_access() {
            file.note_read();
        }
        let deadline = self.client.deadline();
        if file.must_flush_before_read(offset, wanted) {
            flush(&self.client, file).await?;
        }
        self.client.layout(file, deadline).await?;
        if file.must_ask_end(offset, wanted) {
            self.client.fresh_layout(file, deadline).await?;
        }
        let end = wanted.min(file.committed_end());
        if offset >= end {
            return Ok(Bytes::new());
        }
        match from {
            Source::Ahead => read_ahead::read(&self.client, handle, offset, end, deadline).await,
            Source::Volumes => fetch(&self.client, file, offset, end - offset, deadline).await,
        }
    }
}
