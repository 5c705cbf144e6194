//! What the parts of one running volume share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vdfs_proto::Status;

use crate::engine::Engine;
use crate::panics::PanicHook;
use crate::scrub::Scrubs;
use crate::store::Store;

/// One volume: its chunks, and what decides about them.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) engine: Arc<Engine>,
    pub(crate) scrubs: Scrubs,
    stopping: AtomicBool,
}

impl Node {
    pub(crate) fn new(store: Store, panic_hook: PanicHook) -> Arc<Self> {
        Arc::new(Node {
            engine: Engine::new(store),
            scrubs: Scrubs::new(panic_hook),
            stopping: AtomicBool::new(false),
        })
    }

    pub(crate) fn store(&self) -> &Store {
        self.engine.store()
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check_running(&self) -> Result<(), Status> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Status::ShuttingDown);
        }
        Ok(())
    }
}
