//! Writing a checkpoint, block by block.

use std::sync::Arc;

use vdfs_proto::sums::crc32c;

use super::{
    CheckpointError, FOOTER_BYTES, FOOTER_MARK, Header, TEMPORARY, block_sum, file_name,
    write_error,
};
use crate::disk::{Disk, DiskFile, write_all_at};
use crate::limits::CHECKPOINT_BLOCK_BYTES_MAX;

/// A checkpoint in the making, under a temporary name. Dropped unfinished it leaves that file, which
/// the next one overwrites.
#[derive(Debug)]
pub struct CheckpointWriter<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    header: Header,
    offset: u64,
    /// The blocks' sums.
    sums: Vec<u8>,
}

impl<'a> CheckpointWriter<'a> {
    pub fn create(disk: &'a dyn Disk, header: Header) -> Result<Self, CheckpointError> {
        let file = disk
            .create(TEMPORARY)
            .map_err(|error| write_error(disk, TEMPORARY, error))?;
        let mut writer = CheckpointWriter {
            disk,
            file,
            header,
            offset: 0,
            sums: Vec::new(),
        };
        writer.write(&header.encode())?;
        Ok(writer)
    }

    /// Adds one block of a section. Panics if it is longer than `CHECKPOINT_BLOCK_BYTES_MAX`.
    pub fn put(&mut self, name: &str, block: &[u8]) -> Result<(), CheckpointError> {
        assert!(
            block.len() <= CHECKPOINT_BLOCK_BYTES_MAX as usize,
            "sections are cut into blocks"
        );
        let sum = block_sum(name.as_bytes(), block);
        let mut head = Vec::with_capacity(super::BLOCK_HEADER_BYTES + name.len());
        head.extend_from_slice(&(name.len() as u32).to_le_bytes());
        head.extend_from_slice(&(block.len() as u32).to_le_bytes());
        head.extend_from_slice(&sum.to_le_bytes());
        head.extend_from_slice(name.as_bytes());
        self.write(&head)?;
        self.write(block)?;
        self.sums.extend_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    /// Writes the footer and makes the file durable.
    pub fn finish(mut self) -> Result<FinishedCheckpoint<'a>, CheckpointError> {
        let mut footer = [0; FOOTER_BYTES];
        let blocks = (self.sums.len() / 4) as u64;
        footer[..4].copy_from_slice(&FOOTER_MARK.to_le_bytes());
        footer[4..12].copy_from_slice(&blocks.to_le_bytes());
        footer[12..16].copy_from_slice(&crc32c(&self.sums).to_le_bytes());
        let sum = crc32c(&footer[..16]);
        footer[16..].copy_from_slice(&sum.to_le_bytes());
        self.write(&footer)?;
        self.file
            .sync()
            .map_err(|error| write_error(self.disk, TEMPORARY, error))?;
        Ok(FinishedCheckpoint {
            disk: self.disk,
            header: self.header,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        write_all_at(&*self.file, bytes, self.offset)
            .map_err(|error| write_error(self.disk, TEMPORARY, error))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// A checkpoint that is whole on the disk and does not count yet.
#[derive(Debug)]
pub struct FinishedCheckpoint<'a> {
    disk: &'a dyn Disk,
    header: Header,
}

impl FinishedCheckpoint<'_> {
    /// Makes it count. The caller has seen to it that the log on the disk reaches it.
    pub fn publish(self) -> Result<(), CheckpointError> {
        let name = file_name(self.header.records);
        let renamed = self.disk.rename(TEMPORARY, &name);
        renamed.map_err(|error| write_error(self.disk, &name, error))?;
        self.disk.sync_names().map_err(CheckpointError::SyncNames)
    }
}
