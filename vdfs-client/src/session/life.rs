//! One session id, from its opening to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use vdfs_proto::limits::{DATA_SLOTS_PER_SESSION, META_SLOTS_PER_SESSION};
use vdfs_proto::{SessionId, Status};

use crate::limits::{LEASE_MARGIN_MS, VOLUME_SLOTS_MAX};
use crate::shares::VolumeShares;
use crate::slots::Slots;

#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) id: SessionId,
    /// Op ids for the master.
    pub(crate) meta_slots: Arc<Slots>,
    /// Op ids for all volumes.
    pub(crate) data_slots: Arc<Slots>,
    /// How many of them one volume may have.
    pub(crate) volume_slots: VolumeShares,
    lease_ms: u64,
    /// `CLOCK_BOOTTIME`, counted from when the renewing request was sent.
    lease_until_ms: AtomicU64,
    ended: watch::Sender<bool>,
}

impl Life {
    pub(crate) fn new(id: SessionId, lease_ms: u64, sent_ms: u64) -> Self {
        Life {
            id,
            meta_slots: Slots::new(id, META_SLOTS_PER_SESSION),
            data_slots: Slots::new(id, DATA_SLOTS_PER_SESSION),
            volume_slots: VolumeShares::new(VOLUME_SLOTS_MAX),
            lease_ms,
            lease_until_ms: AtomicU64::new(sent_ms + lease_ms),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn renew(&self, sent_ms: u64) {
        self.lease_until_ms
            .fetch_max(sent_ms + self.lease_ms, Ordering::Relaxed);
    }

    /// The lease holds: the master has not given our rights to others.
    pub(crate) fn serves(&self, now_ms: u64) -> bool {
        let until = self.lease_until_ms.load(Ordering::Relaxed);
        !self.has_ended() && now_ms + LEASE_MARGIN_MS < until
    }

    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// The output of `future`, or `SessionExpired` if the life ends first.
    pub(crate) async fn unless_ended<F: Future>(&self, future: F) -> Result<F::Output, Status> {
        if self.has_ended() {
            return Err(Status::SessionExpired);
        }
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.wait_for_end() => Err(Status::SessionExpired),
        }
    }

    async fn wait_for_end(&self) {
        let mut ended = self.ended.subscribe();
        let waited = ended.wait_for(|ended| *ended).await;
        assert!(waited.is_ok(), "the sender lives as long as the life");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_suspends_before_its_lease_is_over_and_goes_on_when_renewed() {
        let life = Life::new(SessionId(1), 10_000, 1_000);
        assert!(life.serves(10_000));
        assert!(!life.serves(11_000 - LEASE_MARGIN_MS));
        life.renew(5_000);
        assert!(life.serves(11_000));
        life.end();
        assert!(!life.serves(5_000));
    }
}
