//! `fallocate(2)` without flags, or with `FALLOC_FL_KEEP_SIZE`.

use std::sync::Arc;

use vdfs_proto::meta::Commit;
use vdfs_proto::{HandleId, Status};

use super::{Allocation, Fs};
use crate::client::Client;
use crate::clock::wall;
use crate::deadline::Deadline;
use crate::files::File;
use crate::write_behind::{Reach, make_gap};

impl Fs {
    /// Checks that there is room, lets the file grow to the end of the range unless it keeps its
    /// size, and marks it as modified. Space is checked, not reserved.
    pub async fn allocate(&self, handle: HandleId, wanted: Allocation) -> Result<(), Status> {
        self.client.check_writable()?;
        let handle = self.client.files.handle(handle)?;
        if !handle.access.write {
            return Err(Status::BadHandle);
        }
        let end = self.end_of(wanted)?;
        let file = handle.file.clone();
        self.client.layout(&file, self.client.deadline()).await?;
        let grows_by = end.saturating_sub(wanted.offset.max(file.end()));
        if grows_by > self.stat_fs().await?.free_bytes {
            return Err(Status::NoSpace);
        }
        let size = (!wanted.keep_size).then_some(end);
        let client = self.client.clone();
        let task =
            async move { modify(&client, &file, size.unwrap_or(0), wanted.kill_privileges).await };
        self.client
            .deadline()
            .limit(self.client.spawn(task))
            .await?
    }

    fn end_of(&self, wanted: Allocation) -> Result<u64, Status> {
        if wanted.len == 0 {
            return Err(Status::Invalid);
        }
        let end = wanted.offset.checked_add(wanted.len);
        let fits = |end: &u64| *end <= self.client.chunk_size.file_bytes_max();
        end.filter(fits).ok_or(Status::FileTooLarge)
    }
}

/// Lets the file reach `end`, behind what was written before, and marks it as modified.
async fn modify(
    client: &Arc<Client>,
    file: &Arc<File>,
    end: u64,
    kill_privileges: bool,
) -> Result<(), Status> {
    let reach = Reach {
        end,
        now: wall(),
        kill_privileges,
    };
    make_gap(client, file, reach).await?;
    let layout = client.layout(file, Deadline::NEVER).await?;
    let commit = Commit {
        ino: file.ino,
        data: layout.data,
        truncations: layout.truncations,
        end,
        holes: end > layout.size,
        mtime: reach.now,
        kill_privileges,
    };
    let committed = client.mutate_here(commit.clone()).await?;
    file.note_commit(&commit, &committed);
    Ok(())
}
