//! `fallocate(2)` without flags, or with `FALLOC_FL_KEEP_SIZE`.

use std::sync::Arc;

use vdfs_proto::meta::Commit;
use vdfs_proto::{HandleId, Status};

use super::Fs;
use crate::client::Client;
use crate::clock::wall;
use crate::deadline::Deadline;
use crate::files::File;
use crate::write_behind::flush_here;

impl Fs {
    /// Checks that there is room, and lets the file grow to the end of the range unless
    /// `keep_size`. Space is checked, not reserved.
    pub async fn allocate(
        &self,
        handle: HandleId,
        offset: u64,
        len: u64,
        keep_size: bool,
    ) -> Result<(), Status> {
        self.client.check_writable()?;
        let handle = self.client.files.handle(handle)?;
        if !handle.access.write {
            return Err(Status::BadHandle);
        }
        if len == 0 {
            return Err(Status::Invalid);
        }
        let end = offset.checked_add(len).ok_or(Status::FileTooLarge)?;
        if end > self.client.chunk_size.file_bytes_max() {
            return Err(Status::FileTooLarge);
        }
        let file = handle.file.clone();
        self.client.layout(&file, self.client.deadline()).await?;
        let grows_by = end.saturating_sub(offset.max(file.end()));
        if grows_by > self.stat_fs().await?.free_bytes {
            return Err(Status::NoSpace);
        }
        if keep_size || end <= file.end() {
            return Ok(());
        }
        let client = self.client.clone();
        let task = async move { grow(&client, &file, end).await };
        self.client
            .deadline()
            .limit(self.client.spawn(task))
            .await?
    }
}

async fn grow(client: &Arc<Client>, file: &Arc<File>, end: u64) -> Result<(), Status> {
    flush_here(client, file).await;
    let layout = client.layout(file, Deadline::NEVER).await?;
    let commit = Commit {
        ino: file.ino,
        data: layout.data,
        truncations: layout.truncations,
        end,
        holes: true,
        mtime: wall(),
        kill_privileges: false,
    };
    let committed = client.mutate_here(commit.clone()).await?;
    file.note_commit(&commit, &committed);
    Ok(())
}
