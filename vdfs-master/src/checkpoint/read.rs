//! Reading a checkpoint, block by block, each checked before it is given out.

use std::io;
use std::sync::Arc;

use vdfs_proto::ClusterId;
use vdfs_proto::sums::crc32c;

use super::{
    BLOCK_HEADER_BYTES, CheckpointError, FOOTER_BYTES, FOOTER_MARK, FORMAT_VERSION, HEADER_BYTES,
    Header, MAGIC, block_sum, file_name, read_error,
};
use crate::disk::{Disk, DiskFile, read_full_at};
use crate::limits::CHECKPOINT_BLOCK_BYTES_MAX;

/// Gives the blocks in the order in which they were put. What it gave counts only when
/// [`CheckpointReader::finish`] has found the whole file good.
#[derive(Debug)]
pub struct CheckpointReader {
    disk: Arc<dyn Disk>,
    name: String,
    file: Arc<dyn DiskFile>,
    header: Header,
    offset: u64,
    sums: Vec<u8>,
    end: Option<Result<(), CheckpointError>>,
}

impl CheckpointReader {
    /// Opens the checkpoint of `records` records and checks its header.
    pub fn open(disk: Arc<dyn Disk>, records: u64) -> Result<Self, CheckpointError> {
        let name = file_name(records);
        let file = disk
            .open(&name)
            .map_err(|error| read_error(&*disk, &name, error))?;
        let header = Header {
            cluster: ClusterId(0),
            records,
        };
        let mut reader = CheckpointReader {
            disk,
            name,
            file,
            header,
            offset: 0,
            sums: Vec::new(),
            end: None,
        };
        reader.header = reader.read_header()?;
        Ok(reader)
    }

    pub fn header(&self) -> Header {
        self.header
    }

    /// Whether the whole file is good, the blocks not taken included.
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        self.by_ref().for_each(drop);
        self.end.expect("the blocks were taken to the end")
    }

    fn read_header(&mut self) -> Result<Header, CheckpointError> {
        let bytes: [u8; HEADER_BYTES] = self.take()?;
        if bytes[..8] != *MAGIC || number(&bytes[36..]) != u64::from(crc32c(&bytes[..36])) {
            return Err(self.damaged());
        }
        let version = number(&bytes[8..12]) as u32;
        if version != FORMAT_VERSION {
            return Err(CheckpointError::OtherVersion {
                file: self.disk.path(&self.name),
                version,
            });
        }
        let cluster = u128::from_le_bytes(bytes[12..28].try_into().expect("sixteen bytes"));
        let records = number(&bytes[28..36]);
        if records != self.header.records {
            return Err(self.damaged());
        }
        Ok(Header {
            cluster: ClusterId(cluster),
            records,
        })
    }

    /// The next block; `None` behind the last, when the footer is good.
    fn read_block(&mut self) -> Result<Option<(String, Vec<u8>)>, CheckpointError> {
        let mark: [u8; 4] = self.peek()?;
        if u32::from_le_bytes(mark) == FOOTER_MARK {
            return self.check_footer().map(|()| None);
        }
        let head: [u8; BLOCK_HEADER_BYTES] = self.peek()?;
        let (name_bytes, block_bytes) = (number(&head[..4]), number(&head[4..8]));
        let is_sane = name_bytes <= 255 && block_bytes <= u64::from(CHECKPOINT_BLOCK_BYTES_MAX);
        if !is_sane {
            return Err(self.damaged());
        }
        let at = self.offset + BLOCK_HEADER_BYTES as u64;
        let name = self.read(at, name_bytes as usize)?;
        let block = self.read(at + name_bytes, block_bytes as usize)?;
        let sum = block_sum(&name, &block).to_le_bytes();
        if sum != head[8..] {
            return Err(self.damaged());
        }
        self.sums.extend_from_slice(&sum);
        self.offset = at + name_bytes + block_bytes;
        let name = String::from_utf8(name).map_err(|_| self.damaged())?;
        Ok(Some((name, block)))
    }

    fn check_footer(&mut self) -> Result<(), CheckpointError> {
        let footer: [u8; FOOTER_BYTES] = self.peek()?;
        let blocks = (self.sums.len() / 4) as u64;
        let is_good = number(&footer[4..12]) == blocks
            && number(&footer[12..16]) == u64::from(crc32c(&self.sums))
            && number(&footer[16..]) == u64::from(crc32c(&footer[..16]));
        let end = self.offset + FOOTER_BYTES as u64;
        let len = self.file.length().map_err(|error| self.unreadable(error))?;
        if is_good && len == end {
            Ok(())
        } else {
            Err(self.damaged())
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let bytes = self.peek()?;
        self.offset += N as u64;
        Ok(bytes)
    }

    fn peek<const N: usize>(&self) -> Result<[u8; N], CheckpointError> {
        let bytes = self.read(self.offset, N)?;
        Ok(bytes.try_into().expect("as many as asked for"))
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = vec![0; len];
        let read = read_full_at(&*self.file, &mut bytes, offset);
        match read {
            Ok(read) if read == len => Ok(bytes),
            Ok(_) => Err(self.damaged()),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    /// Damage at the part that begins at the present offset.
    fn damaged(&self) -> CheckpointError {
        CheckpointError::Damaged {
            file: self.disk.path(&self.name),
            offset: self.offset,
        }
    }

    fn unreadable(&self, error: io::Error) -> CheckpointError {
        read_error(&*self.disk, &self.name, error)
    }
}

impl Iterator for CheckpointReader {
    type Item = (String, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.end.is_some() {
            return None;
        }
        match self.read_block() {
            Ok(Some(block)) => Some(block),
            Ok(None) => {
                self.end = Some(Ok(()));
                None
            }
            Err(error) => {
                self.end = Some(Err(error));
                None
            }
        }
    }
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}
