//! `close(2)`'s flush, `fsync(2)`.

use vdfs_proto::meta::SyncLog;
use vdfs_proto::{HandleId, Ino, Status};

use super::Fs;
use crate::write_behind;

impl Fs {
    /// Writes everything out and commits it; gives back the error of earlier writes, once.
    pub async fn flush(&self, handle: HandleId) -> Result<(), Status> {
        let handle = self.client.files.handle(handle)?;
        if !handle.access.write {
            return Ok(());
        }
        write_behind::flush(&self.client, &handle.file).await?;
        handle.check_errors()
    }

    /// [`Fs::flush`], and the master's log is on its disk.
    pub async fn fsync(&self, handle: HandleId) -> Result<(), Status> {
        let handle = self.client.files.handle(handle)?;
        write_behind::flush(&self.client, &handle.file).await?;
        handle.check_errors()?;
        self.client.query(SyncLog {}).await
    }

    /// Everything that was done to the namespace is on the master's disk.
    pub async fn fsync_dir(&self, _ino: Ino) -> Result<(), Status> {
        self.client.query(SyncLog {}).await
    }
}
