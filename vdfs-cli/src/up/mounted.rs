//! The mount, as far as a failing part of the process needs it.

use std::sync::{Arc, OnceLock};

use vdfs_fuse::Detacher;

/// Known to master and volumes from before there is a mount. When one of them panics, the process
/// ends: the mount is detached first, so that nobody is left with a dead directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounted(Arc<OnceLock<Detacher>>);

impl Mounted {
    pub(super) fn set(&self, detacher: Detacher) {
        self.0.set(detacher).expect("an `up` mounts once");
    }

    /// Takes no lock and asks the filesystem nothing.
    pub(super) fn detach(&self) {
        if let Some(detacher) = self.0.get() {
            detacher.detach();
        }
    }
}
