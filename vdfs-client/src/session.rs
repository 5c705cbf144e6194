//! The session's life: which one is current, whether its lease lets it serve, and what follows when
//! it has ended.
//!
//! Invariant: an op belongs to one [`Life`]; when that has ended the op ends with `SessionExpired`
//! and is not sent under the next one, unless it is certain that it was never executed.

mod events;
mod life;
mod recall;
mod renewal;

pub(crate) use events::run_events;
pub(crate) use life::Life;
pub(crate) use renewal::{open_session, reopen};

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;
use vdfs_proto::Status;

use crate::deadline::Deadline;
use vdfs_net::clock::boot_ms;

/// The current life, and its successor in time.
#[derive(Debug)]
pub(crate) struct Session {
    state: RwLock<State>,
    /// A life began, its lease was renewed, or the session was closed for good.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    life: Arc<Life>,
    /// Shut down: no life follows.
    closed: bool,
    /// Another client of the same identity lives on instead.
    replaced: bool,
}

impl Session {
    pub(crate) fn new(life: Arc<Life>) -> Self {
        Session {
            state: RwLock::new(State {
                life,
                closed: false,
                replaced: false,
            }),
            changed: Notify::new(),
        }
    }

    pub(crate) fn current(&self) -> Arc<Life> {
        self.state.read().life.clone()
    }

    /// The current life once its lease holds; waits while the client is suspended.
    pub(crate) async fn serving(&self, deadline: Deadline) -> Result<Arc<Life>, Status> {
        self.wait_for(deadline, |life| life.serves(boot_ms())).await
    }

    /// The life that follows `ended`.
    pub(crate) async fn after(
        &self,
        ended: &Life,
        deadline: Deadline,
    ) -> Result<Arc<Life>, Status> {
        self.wait_for(deadline, |life| life.id != ended.id).await
    }

    async fn wait_for(
        &self,
        deadline: Deadline,
        fits: impl Fn(&Life) -> bool,
    ) -> Result<Arc<Life>, Status> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state.read();
                if state.closed {
                    return Err(Status::ShuttingDown);
                }
                if fits(&state.life) {
                    return Ok(state.life.clone());
                }
            }
            deadline.limit(changed).await?;
        }
    }

    /// The master has answered a request of `life` that was sent at `sent_ms`.
    fn renew(&self, life: &Life, sent_ms: u64) {
        life.renew(sent_ms);
        self.changed.notify_waiters();
    }

    fn begin(&self, life: Arc<Life>) {
        self.state.write().life = life;
        self.changed.notify_waiters();
    }

    /// Ends the current life; whoever waits for another one gets `ShuttingDown`.
    pub(crate) fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        state.life.end();
        drop(state);
        self.changed.notify_waiters();
    }

    /// The same, because another client has taken over.
    fn close_replaced(&self) {
        self.state.write().replaced = true;
        self.close();
    }

    /// Waits until another client has taken over.
    pub(crate) async fn replaced(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.read().replaced {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.read().closed
    }
}
