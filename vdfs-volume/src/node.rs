//! What the parts of one running volume share.

use std::sync::Arc;

use tokio::sync::watch;
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
    has_ended: watch::Sender<bool>,
}

impl Node {
    pub(crate) fn new(store: Store, panic_hook: PanicHook) -> Arc<Self> {
        Arc::new(Node {
            engine: Engine::new(store),
            scrubs: Scrubs::new(panic_hook),
            has_ended: watch::Sender::new(false),
        })
    }

    pub(crate) fn store(&self) -> &Store {
        self.engine.store()
    }

    pub(crate) fn stop(&self) {
        self.has_ended.send_replace(true);
    }

    pub(crate) fn check_running(&self) -> Result<(), Status> {
        if *self.has_ended.borrow() {
            return Err(Status::ShuttingDown);
        }
        Ok(())
    }

    /// Returns when the volume has ended.
    pub(crate) async fn ended(&self) {
        let mut ended = self.has_ended.subscribe();
        let ended = ended.wait_for(|has_ended| *has_ended).await;
        ended.expect("the sender is this node's");
    }
}
