//! One open file description.

use std::sync::Arc;

use parking_lot::Mutex;
use vdfs_proto::meta::Access;
use vdfs_proto::{HandleId, Status};

use super::File;
use crate::fs::OpenOptions;
use crate::read_ahead::ReadAhead;

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: HandleId,
    pub(crate) file: Arc<File>,
    pub(crate) access: Access,
    pub(crate) options: OpenOptions,
    /// Another client had the file open for writing when this was opened.
    pub(crate) is_shared: bool,
    pub(crate) read_ahead: Mutex<ReadAhead>,
    /// Mark of the last sticky error that it was told.
    errors_seen: Mutex<u64>,
    /// It could not be opened again under a new session.
    lost: Mutex<Option<Status>>,
}

impl Handle {
    pub(crate) fn new(
        id: HandleId,
        file: Arc<File>,
        options: OpenOptions,
        is_shared: bool,
    ) -> Self {
        Handle {
            id,
            access: options.access(),
            options,
            is_shared,
            read_ahead: Mutex::default(),
            errors_seen: Mutex::new(file.error_mark()),
            lost: Mutex::new(None),
            file,
        }
    }

    /// The kernel may have pages that were written through a mapping of this.
    pub(crate) fn may_map(&self) -> bool {
        let options = self.options;
        // Appenders, too, go past the page cache.
        options.read && options.write && !options.append && !self.is_shared
    }

    /// What is read here moves the access time.
    pub(crate) fn marks_access(&self) -> bool {
        self.access.read && !self.options.no_atime
    }

    /// The sticky error, once; only writers are told.
    pub(crate) fn check_errors(&self) -> Result<(), Status> {
        if !self.access.write {
            return Ok(());
        }
        self.file.check_error(&mut self.errors_seen.lock())
    }

    pub(crate) fn lose(&self, status: Status) {
        *self.lost.lock() = Some(status);
    }

    pub(crate) fn check_lost(&self) -> Result<(), Status> {
        self.lost.lock().map_or(Ok(()), Err)
    }
}
