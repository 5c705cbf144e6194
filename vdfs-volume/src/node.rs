//! What the parts of one running volume share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use vdfs_net::clock::boot_ms;
use vdfs_proto::{SessionId, Status};

use crate::lease::Lease;
use crate::membership::{Membership, Place};
use crate::panics::PanicHook;
use crate::scrub::Scrubs;
use crate::store::{Store, Terms};

/// One volume: its chunks, and what the master has told it.
///
/// Lock order: the membership, then whatever the store locks. A request holds the membership for
/// reading as long as it works, so a fence or a table that was installed has no request of before
/// left beside it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) membership: RwLock<Membership>,
    pub(crate) lease: Lease,
    pub(crate) scrubs: Scrubs,
    stopping: AtomicBool,
}

impl Node {
    pub(crate) fn new(store: Store, panic_hook: PanicHook) -> Arc<Self> {
        let membership = RwLock::new(Membership::new(store.id()));
        Arc::new(Node {
            store,
            membership,
            lease: Lease::default(),
            scrubs: Scrubs::new(panic_hook),
            stopping: AtomicBool::new(false),
        })
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

    /// The terms of a client's write in the given place.
    pub(crate) fn write_terms(&self, me: &Membership, place: Place, session: SessionId) -> Terms {
        let has_lease = self.lease.holds(boot_ms());
        let lease = if has_lease {
            Ok(())
        } else {
            Err(Status::NotServing)
        };
        let admission = me.admit(session).and(lease);
        Terms {
            lost_below: place.lost_below,
            admission,
        }
    }
}
