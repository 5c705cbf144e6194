//! Which directory the kernel has last been told that a name is.
//!
//! rmdir(2), and a rename over a directory, reach us as a name, and the kernel takes the directory
//! that it has looked up under that name for dead afterwards. If another mount has put another one
//! there meanwhile, that one must stay: the master is told which one was found, and a difference is
//! `ESTALE`, after which the kernel looks again and repeats the call (`retry_estale` in Linux).
//!
//! What is not remembered is removed by its name alone.

use lru::LruCache;
use parking_lot::Mutex;
use vdfs_proto::{Attr, FileKind, FileName, Ino};

use crate::limits::FOUND_DIRECTORIES_MAX;

#[derive(Debug)]
pub(crate) struct FoundDirectories(Mutex<LruCache<(Ino, FileName), Ino>>);

impl Default for FoundDirectories {
    fn default() -> Self {
        FoundDirectories(Mutex::new(LruCache::new(FOUND_DIRECTORIES_MAX)))
    }
}

impl FoundDirectories {
    /// The kernel is about to be told what `name` is. Of anything but a directory it needs no word.
    pub(crate) fn note(&self, parent: Ino, name: FileName, attr: &Attr) {
        if attr.kind == FileKind::Directory {
            self.0.lock().put((parent, name), attr.ino);
        }
    }

    pub(crate) fn find(&self, parent: Ino, name: &FileName) -> Option<Ino> {
        self.0.lock().peek(&(parent, name.clone())).copied()
    }
}
