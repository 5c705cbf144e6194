//! The file `store`: which store this is.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | `VDFSSTOR` |
//! | 8..12 | format | of all files of the store |
//! | 12..16 | chunk size | in bytes; 0 until a master has told it |
//! | 16..32 | store id | |
//! | 32..36 | CRC32C | of bytes 0..32 |
//!
//! Written beside and renamed, last of all when a store is made: a store without it has no chunks.

use std::fs;
use std::io;
use std::path::Path;

use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChunkSize, StoreId};

use super::StoreError;

const MAGIC: &[u8; 8] = b"VDFSSTOR";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 36;
const NAME: &str = "store";
const NEW_NAME: &str = "store.new";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: StoreId,
    pub(super) chunk_size: Option<ChunkSize>,
}

impl Header {
    /// `None` if there is no store yet.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => decode(&bytes)
                .map(Some)
                .map_err(|why| StoreError::Damaged { path, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        let new = directory.join(NEW_NAME);
        let written = fs::write(&new, self.encode());
        written
            .and_then(|()| fs::rename(&new, directory.join(NAME)))
            .map_err(|source| StoreError::Io { path: new, source })
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut wire = [0; HEADER_BYTES];
        wire[0..8].copy_from_slice(MAGIC);
        wire[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        let chunk_bytes = self.chunk_size.map_or(0, ChunkSize::bytes);
        wire[12..16].copy_from_slice(&chunk_bytes.to_le_bytes());
        wire[16..32].copy_from_slice(&self.id.0.to_le_bytes());
        let crc = crc32c(&wire[..32]);
        wire[32..].copy_from_slice(&crc.to_le_bytes());
        wire
    }
}

fn decode(bytes: &[u8]) -> Result<Header, &'static str> {
    let wire: &[u8; HEADER_BYTES] = bytes.try_into().map_err(|_| "it has another length")?;
    if &wire[0..8] != MAGIC {
        return Err("it is no store of VDFS");
    }
    if crc32c(&wire[..32]).to_le_bytes() != wire[32..] {
        return Err("its checksum is wrong");
    }
    if wire[8..12] != FORMAT.to_le_bytes() {
        return Err("it was made by another version");
    }
    let chunk_bytes = u32::from_le_bytes(wire[12..16].try_into().expect("4 bytes"));
    let chunk_size = match chunk_bytes {
        0 => None,
        bytes => Some(ChunkSize::new(u64::from(bytes)).map_err(|_| "its chunk size is wrong")?),
    };
    let id = u128::from_le_bytes(wire[16..32].try_into().expect("16 bytes"));
    Ok(Header {
        id: StoreId(id),
        chunk_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_read_gives_what_was_written_and_refuses_any_flipped_bit() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(Header::read(directory.path()).expect("none"), None);
        for chunk_size in [None, Some(ChunkSize::DEFAULT)] {
            let header = Header {
                id: StoreId(u128::MAX / 3),
                chunk_size,
            };
            header.write(directory.path()).expect("written");
            assert_eq!(Header::read(directory.path()).expect("read"), Some(header));
            for bit in 0..HEADER_BYTES * 8 {
                let mut wire = header.encode();
                wire[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&wire).is_err(), "bit {bit}");
            }
        }
    }
}
