//! Op ids of one session.
//!
//! Invariant: a slot names its next op only after a definite answer to the one before. A claim that
//! is dropped without one retires its slot for the rest of the session.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vdfs_proto::{OpId, SessionId};

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u16,
    /// Of the last op that was answered; 0 before the first.
    seq: u64,
}

/// The slots of one session in one space: the master's, or that of all volumes together. One space
/// for all volumes keeps (session, slot) unique at each, also for writes that a chain forwards.
pub(crate) struct Slots {
    session: SessionId,
    /// A stack: few slots are used while few ops are in flight, and few replies are stored.
    free: Mutex<Vec<Slot>>,
    available: Arc<Semaphore>,
}

impl Slots {
    pub(crate) fn new(session: SessionId, count: u16) -> Arc<Self> {
        let free = (0..count)
            .rev()
            .map(|number| Slot { number, seq: 0 })
            .collect();
        Arc::new(Slots {
            session,
            free: Mutex::new(free),
            available: Arc::new(Semaphore::new(usize::from(count))),
        })
    }

    /// Waits for a free slot.
    pub(crate) async fn claim(self: &Arc<Self>) -> Claim {
        let permit = self.available.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let slot = self.free.lock().pop();
        let mut slot = slot.expect("there are as many permits as free slots");
        slot.seq += 1;
        Claim {
            slots: self.clone(),
            slot,
            permit: Some(permit),
        }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Slots({}, {} free)",
            self.session,
            self.free.lock().len()
        )
    }
}

/// One slot, for one op.
#[derive(Debug)]
pub(crate) struct Claim {
    slots: Arc<Slots>,
    slot: Slot,
    /// `None` once the slot has gone back.
    permit: Option<OwnedSemaphorePermit>,
}

impl Claim {
    pub(crate) fn op(&self) -> OpId {
        OpId {
            session: self.slots.session,
            slot: self.slot.number,
            seq: self.slot.seq,
        }
    }

    /// A definite answer came: the slot may be used again.
    pub(crate) fn settle(mut self) {
        self.slots.free.lock().push(self.slot);
        drop(self.permit.take());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn slot_is_used_again_with_the_next_seq_after_an_answer() {
        let slots = Slots::new(SessionId(7), 2);
        let first = slots.claim().now_or_never().expect("a free slot");
        assert_eq!((first.op().slot, first.op().seq), (0, 1));
        first.settle();
        let second = slots.claim().now_or_never().expect("a free slot");
        assert_eq!((second.op().slot, second.op().seq), (0, 2));
    }

    #[test]
    fn slot_without_an_answer_is_retired() {
        let slots = Slots::new(SessionId(7), 2);
        drop(slots.claim().now_or_never().expect("a free slot"));
        let other = slots.claim().now_or_never().expect("a free slot");
        assert_eq!((other.op().slot, other.op().seq), (1, 1));
        assert!(slots.claim().now_or_never().is_none());
    }
}
