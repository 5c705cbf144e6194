//! Heartbeats of volumes, answered from memory.
//!
//! A lease must not end because the disk of the log is slow or a turn is long. So whoever brings a
//! heartbeat gets its answer here, and the core, which alone decides who is away, is told at the next
//! turn when each volume was heard.
//!
//! Invariant: nobody is declared away who was answered after the core last heard of it. A heartbeat
//! that comes later than a lease after the one before is refused here, and the keeper reads the clock
//! before it takes what was heard: so what the core then finds silent for a lease is refused from
//! that time on, until it registers again.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use vdfs_net::clock;
use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::volume::{Heartbeat, HeartbeatAck};
use vdfs_proto::{Status, VolumeId};

use crate::core::{Grant, Heard};

#[derive(Debug)]
pub(crate) struct Pulse {
    term: u64,
    volumes: Mutex<BTreeMap<VolumeId, Beat>>,
}

/// What is known of one registered volume.
#[derive(Debug)]
struct Beat {
    grant: Grant,
    /// It is to give up a place first: it is not answered, as if it were not heard.
    is_withheld: bool,
    /// What the core has not been told.
    news: Option<Heard>,
}

impl Pulse {
    pub(super) fn new(term: u64) -> Pulse {
        Pulse {
            term,
            volumes: Mutex::default(),
        }
    }

    /// `NotFound` if the volume has to register first, `Busy` if it gets no lease now.
    pub(crate) fn beat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAck, Status> {
        let mut volumes = self.volumes.lock();
        // Under the lock: see the invariant.
        self.beat_at(&mut volumes, heartbeat, clock::boot_ms())
    }

    fn beat_at(
        &self,
        volumes: &mut BTreeMap<VolumeId, Beat>,
        heartbeat: &Heartbeat,
        now_ms: u64,
    ) -> Result<HeartbeatAck, Status> {
        let known = volumes.get_mut(&heartbeat.volume);
        let is_served = |beat: &&mut Beat| {
            let Grant {
                incarnation,
                heard_ms,
            } = beat.grant;
            incarnation == heartbeat.incarnation && heard_ms + VOLUME_LEASE_MS >= now_ms
        };
        let beat = known.filter(is_served).ok_or(Status::NotFound)?;
        if beat.is_withheld {
            return Err(Status::Busy);
        }
        beat.grant.heard_ms = now_ms;
        beat.news = Some(Heard {
            volume: heartbeat.volume,
            heard_ms: now_ms,
            capacity_bytes: heartbeat.capacity_bytes,
            used_bytes: heartbeat.used_bytes,
        });
        Ok(HeartbeatAck {
            term: self.term,
            lease_ms: VOLUME_LEASE_MS,
        })
    }

    /// Heartbeats of the volume are answered for this incarnation alone, or not at all.
    pub(super) fn grant(&self, volume: VolumeId, grant: Option<Grant>) {
        let mut volumes = self.volumes.lock();
        match grant {
            Some(grant) => drop(volumes.insert(volume, Beat::of(grant))),
            None => drop(volumes.remove(&volume)),
        }
    }

    /// Heartbeats of the volume are left unanswered, or are answered again.
    pub(super) fn withhold(&self, volume: VolumeId, is_on: bool) {
        if let Some(beat) = self.volumes.lock().get_mut(&volume) {
            beat.is_withheld = is_on;
        }
    }

    /// What was heard since the last call.
    pub(super) fn take_news(&self) -> Vec<Heard> {
        let mut volumes = self.volumes.lock();
        volumes
            .values_mut()
            .filter_map(|beat| beat.news.take())
            .collect()
    }
}

impl Beat {
    fn of(grant: Grant) -> Self {
        Beat {
            grant,
            is_withheld: false,
            news: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId(1);

    fn beat_at(pulse: &Pulse, incarnation: u64, now_ms: u64) -> Result<(), Status> {
        let heartbeat = Heartbeat {
            volume: VOLUME,
            incarnation,
            capacity_bytes: 10,
            used_bytes: 1,
        };
        let mut volumes = pulse.volumes.lock();
        pulse.beat_at(&mut volumes, &heartbeat, now_ms).map(drop)
    }

    fn registered(heard_ms: u64) -> Pulse {
        let pulse = Pulse::new(1);
        let grant = Grant {
            incarnation: 7,
            heard_ms,
        };
        pulse.grant(VOLUME, Some(grant));
        pulse
    }

    #[test]
    fn beat_is_answered_for_the_registered_incarnation_alone() {
        let pulse = registered(1_000);
        assert_eq!(beat_at(&pulse, 7, 1_100), Ok(()));
        assert_eq!(beat_at(&pulse, 8, 1_100), Err(Status::NotFound));
        pulse.grant(VOLUME, None);
        assert_eq!(beat_at(&pulse, 7, 1_200), Err(Status::NotFound));
    }

    #[test]
    fn beat_later_than_a_lease_is_refused_until_the_volume_registers() {
        let pulse = registered(1_000);
        let last_ms = 1_000 + VOLUME_LEASE_MS;
        assert_eq!(beat_at(&pulse, 7, last_ms), Ok(()));
        let late_ms = last_ms + VOLUME_LEASE_MS + 1;
        assert_eq!(beat_at(&pulse, 7, late_ms), Err(Status::NotFound));
        assert_eq!(beat_at(&pulse, 7, late_ms), Err(Status::NotFound));
    }

    #[test]
    fn beat_that_is_withheld_is_not_heard_and_what_was_heard_before_is_told() {
        let pulse = registered(1_000);
        beat_at(&pulse, 7, 1_100).expect("served");
        pulse.withhold(VOLUME, true);
        assert_eq!(beat_at(&pulse, 7, 1_200), Err(Status::Busy));
        assert_eq!(pulse.take_news()[0].heard_ms, 1_100);
        pulse.withhold(VOLUME, false);
        assert_eq!(beat_at(&pulse, 7, 1_300), Ok(()));
    }

    #[test]
    fn news_are_taken_once_and_the_latest_counts() {
        let pulse = registered(1_000);
        assert!(pulse.take_news().is_empty());
        beat_at(&pulse, 7, 1_100).expect("served");
        beat_at(&pulse, 7, 1_200).expect("served");
        let news = pulse.take_news();
        assert_eq!(news.len(), 1);
        assert_eq!(news[0].heard_ms, 1_200);
        assert!(pulse.take_news().is_empty());
    }
}
