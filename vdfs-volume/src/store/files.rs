//! The chunk files: names, creation, and a bounded cache of open ones.
//!
//! `chunks/XX/DDDDDDDDDDDDDDDD.IIIIIIII`: data id and index in hexadecimal, in one of 64
//! directories by the data id, so that creations rarely meet on one directory's lock.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use vdfs_proto::{ChunkId, DataId};

use super::budget::NoSpace;
use super::memory::must;
use crate::limits::OPEN_FILES_MAX;

pub(super) const DIRECTORIES: u64 = 64;

#[derive(Debug)]
pub(super) struct ChunkFiles {
    root: PathBuf,
    /// Others may take the room of this tmpfs, so pages are allocated before a change begins.
    is_shared: bool,
    open: Mutex<LruCache<ChunkId, Arc<File>>>,
}

/// A chunk file as the scan at start finds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundFile {
    pub(super) chunk: ChunkId,
    /// Its size, in bytes.
    pub(super) len: u64,
    /// What it takes of the RAM, in bytes.
    pub(super) allocated: u64,
}

impl ChunkFiles {
    pub(super) fn open(root: PathBuf, is_shared: bool) -> io::Result<Self> {
        for number in 0..DIRECTORIES {
            std::fs::create_dir_all(root.join(format!("{number:02x}")))?;
        }
        let files_max = NonZeroUsize::new(OPEN_FILES_MAX).expect("not 0");
        Ok(ChunkFiles {
            root,
            is_shared,
            open: Mutex::new(LruCache::new(files_max)),
        })
    }

    fn path(&self, chunk: ChunkId) -> PathBuf {
        let directory = format!("{:02x}", chunk.data.0 % DIRECTORIES);
        let name = format!("{:016x}.{:08x}", chunk.data.0, chunk.index);
        self.root.join(directory).join(name)
    }

    /// The file of a chunk that has one. Called with the chunk's lock held, so that no file is
    /// opened again after it was removed.
    pub(super) fn get(&self, chunk: ChunkId) -> Arc<File> {
        if let Some(file) = self.open.lock().get(&chunk) {
            return file.clone();
        }
        let opened = open_options().open(self.path(chunk));
        self.keep(chunk, must("open a chunk", opened))
    }

    pub(super) fn create(&self, chunk: ChunkId) -> Arc<File> {
        let created = open_options().create(true).open(self.path(chunk));
        self.keep(chunk, must("create a chunk", created))
    }

    fn keep(&self, chunk: ChunkId, file: File) -> Arc<File> {
        let file = Arc::new(file);
        self.open.lock().put(chunk, file.clone());
        file
    }

    /// Makes sure that writing these bytes needs no page that is not there.
    pub(super) fn secure(&self, file: &File, offset: u32, len: u32) -> Result<(), NoSpace> {
        match self.is_shared {
            true => provide_pages(file, offset, len),
            false => Ok(()),
        }
    }

    /// Drops the name, if there is one.
    pub(super) fn remove(&self, chunk: ChunkId) {
        self.open.lock().pop(&chunk);
        match std::fs::remove_file(self.path(chunk)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => must("remove a chunk", result),
        }
    }

    pub(super) fn exists(&self, chunk: ChunkId) -> bool {
        self.path(chunk).exists()
    }

    /// All chunk files.
    pub(super) fn scan(&self) -> io::Result<Vec<FoundFile>> {
        let mut found = Vec::new();
        for number in 0..DIRECTORIES {
            let directory = self.root.join(format!("{number:02x}"));
            for entry in std::fs::read_dir(directory)? {
                found.extend(found_file(&entry?)?);
            }
        }
        Ok(found)
    }
}

/// What the file takes of the RAM, in bytes.
pub(super) fn allocated(file: &File) -> u64 {
    must("measure a chunk", file.metadata()).blocks() * 512
}

/// Puts a page of zeros under each block of the range that has none. The file keeps its length, so
/// that one that is new and has no record yet does not look as if it had bytes.
pub(super) fn provide_pages(file: &File, offset: u32, len: u32) -> Result<(), NoSpace> {
    let flags = FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, u64::from(offset), u64::from(len)).map_err(|_| NoSpace)
}

fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// `None` for a file that is no chunk.
fn found_file(entry: &std::fs::DirEntry) -> io::Result<Option<FoundFile>> {
    let Some(chunk) = parse_name(Path::new(&entry.file_name())) else {
        return Ok(None);
    };
    let meta = entry.metadata()?;
    Ok(Some(FoundFile {
        chunk,
        len: meta.len(),
        allocated: meta.blocks() * 512,
    }))
}

fn parse_name(name: &Path) -> Option<ChunkId> {
    let (data, index) = name.to_str()?.split_once('.')?;
    Some(ChunkId {
        data: DataId(u64::from_str_radix(data, 16).ok()?),
        index: u32::from_str_radix(index, 16).ok()?,
    })
}
