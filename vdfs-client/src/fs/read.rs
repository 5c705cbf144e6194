//! `read(2)`.

use bytes::Bytes;
use vdfs_proto::{HandleId, Status};

use super::Fs;
use crate::read_ahead;
use crate::write_behind::flush;

impl Fs {
    /// Bytes at `offset`; fewer than `len` only at the end of the file.
    pub async fn read(&self, handle: HandleId, offset: u64, len: u32) -> Result<Bytes, Status> {
        self.client.check_running()?;
        let handle = self.client.files.handle(handle)?;
        let file = &handle.file;
        let deadline = self.client.deadline();
        let wanted = offset.saturating_add(u64::from(len));
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
        read_ahead::read(&self.client, &handle, offset, end, deadline).await
    }
}
