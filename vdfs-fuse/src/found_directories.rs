//! Which directory a caller has last found under a name.
//!
//! rmdir(2), and a rename over a directory, reach us as a name, and the kernel takes the directory
//! that it has looked up under that name for dead afterwards, for as long as it remembers it. If
//! another mount has moved it away meanwhile, it is alive elsewhere: the master is told which one was
//! found, and a difference is `ESTALE`, after which the kernel looks again and repeats the call
//! (`retry_estale` in Linux).
//!
//! The thread that removes is the one that has looked the name up just before, under the lock of the
//! directory. Others on the same machine may look meanwhile, and find what is there by then; so each
//! thread has a memory of its own.
//!
//! What is not remembered is removed by its name alone.

use fuser::Request;
use lru::LruCache;
use parking_lot::Mutex;
use vdfs_proto::{Attr, FileKind, FileName, Ino};

use crate::limits::FOUND_DIRECTORIES_MAX;

#[derive(Debug)]
pub(crate) struct FoundDirectories(Mutex<LruCache<Looked, Ino>>);

/// A caller's look at a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Looked {
    /// Thread id as the request has it; 0 for all that the mount's namespace does not know.
    caller: u32,
    pub(crate) parent: Ino,
    pub(crate) name: FileName,
}

impl Looked {
    pub(crate) fn by(request: &Request, parent: Ino, name: FileName) -> Looked {
        Looked {
            caller: request.pid(),
            parent,
            name,
        }
    }
}

impl Default for FoundDirectories {
    fn default() -> Self {
        FoundDirectories(Mutex::new(LruCache::new(FOUND_DIRECTORIES_MAX)))
    }
}

impl FoundDirectories {
    /// The kernel is about to be told what is there. Of anything but a directory it needs no word.
    pub(crate) fn note(&self, looked: Looked, found: Option<&Attr>) {
        let mut directories = self.0.lock();
        match found {
            Some(attr) if attr.kind == FileKind::Directory => {
                directories.put(looked, attr.ino);
            }
            _ => {
                directories.pop(&looked);
            }
        }
    }

    pub(crate) fn find(&self, looked: &Looked) -> Option<Ino> {
        self.0.lock().peek(looked).copied()
    }
}
