//! What this client knows of the inodes it has open.
//!
//! Invariant: an inode is in the table as long as one of its handles is, or an open of it is on its
//! way; so a recall finds it.

mod access;
mod dirty;
mod errors;
mod file;
mod handle;

pub(crate) use dirty::{Run, RunBody, RunId, Work};
pub(crate) use file::{AppendBlocked, File, Lacks, Taken};
pub(crate) use handle::Handle;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use vdfs_proto::session::OpenHandle;
use vdfs_proto::{Attr, ChunkSize, HandleId, Ino, Status};

use crate::limits::VERSIONS_MAX;

#[derive(Debug)]
pub(crate) struct Files {
    chunk_size: ChunkSize,
    inodes: RwLock<HashMap<Ino, Entry>>,
    handles: RwLock<HashMap<HandleId, Arc<Handle>>>,
    /// Data versions under which the kernel's pages of closed inodes are good.
    versions: Mutex<LruCache<Ino, u64>>,
    /// Recalls so far, also of inodes that are not here.
    recalls: AtomicU64,
    next_handle: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    file: Arc<File>,
    users: u32,
}

impl Files {
    pub(crate) fn new(chunk_size: ChunkSize) -> Self {
        let versions_max = NonZeroUsize::new(VERSIONS_MAX).expect("not zero");
        Files {
            chunk_size,
            inodes: RwLock::default(),
            handles: RwLock::default(),
            versions: Mutex::new(LruCache::new(versions_max)),
            recalls: AtomicU64::new(0),
            next_handle: AtomicU64::new(1),
        }
    }

    pub(crate) fn new_handle_id(&self) -> HandleId {
        HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// The state of an inode, kept until as many [`Files::leave`]s.
    pub(crate) fn enter(&self, ino: Ino) -> Arc<File> {
        let mut inodes = self.inodes.write();
        let entry = inodes.entry(ino).or_insert_with(|| Entry {
            file: Arc::new(File::new(ino, self.chunk_size, self.forget_version(ino))),
            users: 0,
        });
        entry.users += 1;
        entry.file.clone()
    }

    pub(crate) fn leave(&self, ino: Ino) {
        let mut inodes = self.inodes.write();
        let entry = inodes.get_mut(&ino).expect("entered before");
        entry.users -= 1;
        if entry.users == 0 {
            if let Some(version) = entry.file.known_version() {
                self.versions.lock().put(ino, version);
            }
            inodes.remove(&ino);
        }
    }

    /// Only one handle, or open on its way, uses the inode.
    pub(crate) fn is_last_user(&self, ino: Ino) -> bool {
        let inodes = self.inodes.read();
        inodes.get(&ino).is_some_and(|entry| entry.users == 1)
    }

    fn forget_version(&self, ino: Ino) -> Option<u64> {
        self.versions.lock().pop(&ino)
    }

    pub(crate) fn find(&self, ino: Ino) -> Option<Arc<File>> {
        self.inodes.read().get(&ino).map(|entry| entry.file.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<File>> {
        let inodes = self.inodes.read();
        inodes.values().map(|entry| entry.file.clone()).collect()
    }

    /// The handle holds the entry of its inode from now on.
    pub(crate) fn add_handle(&self, handle: Handle) -> Arc<Handle> {
        let handle = Arc::new(handle);
        if handle.may_map() {
            handle.file.add_mapper();
        }
        let before = self.handles.write().insert(handle.id, handle.clone());
        assert!(before.is_none(), "handle ids are given once");
        handle
    }

    /// Whoever takes the handle out leaves its inode.
    pub(crate) fn take_handle(&self, id: HandleId) -> Option<Arc<Handle>> {
        let handle = self.handles.write().remove(&id)?;
        if handle.may_map() {
            handle.file.remove_mapper();
        }
        Some(handle)
    }

    pub(crate) fn handle(&self, id: HandleId) -> Result<Arc<Handle>, Status> {
        let handle = self.handles.read().get(&id).cloned();
        let handle = handle.ok_or(Status::BadHandle)?;
        handle.check_lost()?;
        Ok(handle)
    }

    /// Whoever uses the handle gets `status` from now on.
    pub(crate) fn lose(&self, id: HandleId, status: Status) {
        if let Some(handle) = self.handles.read().get(&id) {
            handle.lose(status);
        }
    }

    pub(crate) fn is_open(&self, id: HandleId) -> bool {
        self.handles.read().contains_key(&id)
    }

    pub(crate) fn handles(&self) -> Vec<Arc<Handle>> {
        self.handles.read().values().cloned().collect()
    }

    /// What a restarted master is told: handles and append tokens.
    pub(crate) fn holdings(&self) -> (Vec<OpenHandle>, Vec<Ino>) {
        let handles = self.handles.read();
        let open = handles.values().map(|handle| OpenHandle {
            handle: handle.id,
            ino: handle.file.ino,
            access: handle.access,
            is_shared: handle.is_shared,
        });
        let files = self.all();
        let tokens = files.iter().filter(|file| file.has_token());
        (open.collect(), tokens.map(|file| file.ino).collect())
    }

    pub(crate) fn count_recall(&self) {
        self.recalls.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn recalls(&self) -> u64 {
        self.recalls.load(Ordering::SeqCst)
    }

    /// Adds what this client has written and not committed.
    pub(crate) fn overlay(&self, attr: Attr) -> Attr {
        match self.find(attr.ino) {
            Some(file) => file.overlay(attr),
            None => attr,
        }
    }
}
