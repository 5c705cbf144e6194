//! `lseek(2)` to data and to holes, and how much room a file takes: what the volumes know.

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{CountBlocks, FilePart, Seek, SeekTarget};
use vdfs_proto::meta::GetLayout;
use vdfs_proto::{Attr, FileKind, HandleId, Status};

use super::Fs;
use crate::deadline::Deadline;
use crate::files::File;
use crate::limits::COUNT_WAIT;
use crate::parts::ask_parts;
use crate::write_behind::flush;

impl Fs {
    /// The first offset from `offset` on that is data, or a hole; the end of the file is a hole.
    /// `NoSuchOffset` if there is none. What this client has written is out before.
    pub async fn seek(
        &self,
        handle: HandleId,
        offset: u64,
        target: SeekTarget,
    ) -> Result<u64, Status> {
        self.client.check_running()?;
        let handle = self.client.files.handle(handle)?;
        let file = &handle.file;
        flush(&self.client, file).await?;
        let deadline = self.client.deadline();
        self.client.fresh_layout(file, deadline).await?;
        let size = file.committed_end();
        if offset >= size {
            return Err(Status::NoSuchOffset);
        }
        let found = deadline.limit(self.seek_in(file, target, (offset, size)));
        match (target, found.await??) {
            (_, Some(found)) => Ok(found),
            (SeekTarget::Data, None) => Err(Status::NoSuchOffset),
            (SeekTarget::Hole, None) => Ok(size),
        }
    }

    /// The first offset in `from..to`, which lies within the file and is not empty.
    pub(super) async fn seek_in(
        &self,
        file: &File,
        target: SeekTarget,
        (from, to): (u64, u64),
    ) -> Result<Option<u64>, Status> {
        let layout = self.client.layout(file, Deadline::NEVER).await?;
        if !layout.holes {
            return Ok((target == SeekTarget::Data).then_some(from));
        }
        let question = |part| Seek {
            part,
            target,
            from,
            to,
        };
        let answers = ask_parts(&self.client, &layout, (from, to), question, Deadline::NEVER);
        let found = answers.await?.into_iter().filter_map(|sought| sought.at);
        match found.min() {
            Some(at) if !(from..to).contains(&at) => Err(Status::Malformed),
            found => Ok(found),
        }
    }

    /// Bytes written through mappings may wait in the kernel's pages over what volumes take for a
    /// hole.
    pub fn may_have_dirty_pages(&self, handle: HandleId) -> bool {
        let Ok(handle) = self.client.files.handle(handle) else {
            return false;
        };
        let has_holes = handle.file.layout().is_none_or(|layout| layout.holes);
        has_holes && handle.file.has_mappers()
    }

    /// Bytes of room that the file takes, in whole blocks. Of a file without holes all that it has;
    /// otherwise its volumes are asked, for a bounded time, after which it is the same.
    pub async fn allocated_bytes(&self, attr: &Attr) -> u64 {
        if attr.kind != FileKind::Regular {
            return 0;
        }
        let most = attr.size.next_multiple_of(u64::from(BLOCK_BYTES));
        if !attr.has_holes || attr.size == 0 {
            return most;
        }
        match self.count(attr).await {
            // Bytes that overwrite others count twice until they are out.
            Ok(bytes) => bytes.min(most),
            Err(status) => {
                tracing::debug!(ino = %attr.ino, %status, "blocks are not counted");
                most
            }
        }
    }

    async fn count(&self, attr: &Attr) -> Result<u64, Status> {
        let deadline = Deadline::after(Some(COUNT_WAIT));
        let open = self.client.files.find(attr.ino);
        let dirty = open.as_ref().map_or(0, |file| file.dirty_bytes());
        let layout = match open.and_then(|file| file.layout()) {
            Some(layout) => layout,
            None => {
                let ask = GetLayout { ino: attr.ino };
                self.client.query_until(ask, deadline).await?
            }
        };
        let question = |part: FilePart| CountBlocks { part };
        let range = (0, attr.size);
        let counts = ask_parts(&self.client, &layout, range, question, deadline).await?;
        let blocks: u64 = counts.iter().map(|count| count.blocks).sum();
        Ok(blocks * u64::from(BLOCK_BYTES) + dirty)
    }
}
