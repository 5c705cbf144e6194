//! Heartbeats of volumes, answered from memory.
//!
//! A lease must not end because the disk of the log is slow or a turn is long. So whoever brings a
//! heartbeat gets its answer here, and the core, which alone decides who is away, is told at the next
//! turn when each volume was heard.
//!
//! Invariant: nobody is declared away who was answered after the core last heard of it. A heartbeat
//! that comes later than a lease after the one before is refused here, and whoever steps the core reads
//! the clock before it takes what was heard: so what the core then finds silent for a lease is refused
//! from that time on, until it registers again.

use std::collections::BTreeMap;

use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::volume::{Heartbeat, HeartbeatAck};
use vdfs_proto::{Status, VolumeId};

use crate::core::{Grant, Heard};

#[derive(Clone, Debug)]
pub struct Pulse {
    term: u64,
    volumes: BTreeMap<VolumeId, Beat>,
}

/// What is known of one registered volume.
#[derive(Clone, Debug)]
struct Beat {
    grant: Grant,
    /// It is to give up a place first: it is not answered, as if it were not heard.
    is_withheld: bool,
    /// What the core has not been told.
    news: Option<Heard>,
}

impl Pulse {
    pub fn new(term: u64) -> Pulse {
        Pulse {
            term,
            volumes: BTreeMap::new(),
        }
    }

    /// Answers a heartbeat that comes at `now_ms` of CLOCK_BOOTTIME. `NotFound` if the volume has to
    /// register first, `Busy` if it gets no lease now.
    pub fn beat(&mut self, heartbeat: &Heartbeat, now_ms: u64) -> Result<HeartbeatAck, Status> {
        let known = self.volumes.get_mut(&heartbeat.volume);
        let is_served = |beat: &&mut Beat| {
            let Grant {
                registration,
                heard_ms,
            } = beat.grant;
            registration == heartbeat.registration && heard_ms + VOLUME_LEASE_MS >= now_ms
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

    /// Heartbeats of the volume are answered for this registration alone, or not at all.
    pub fn grant(&mut self, volume: VolumeId, grant: Option<Grant>) {
        match grant {
            Some(grant) => drop(self.volumes.insert(volume, Beat::of(grant))),
            None => drop(self.volumes.remove(&volume)),
        }
    }

    /// Heartbeats of the volume are left unanswered, or are answered again.
    pub fn withhold(&mut self, volume: VolumeId, is_on: bool) {
        if let Some(beat) = self.volumes.get_mut(&volume) {
            beat.is_withheld = is_on;
        }
    }

    /// What was heard since the last call.
    pub fn take_news(&mut self) -> Vec<Heard> {
        let volumes = self.volumes.values_mut();
        volumes.filter_map(|beat| beat.news.take()).collect()
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

    fn beat_at(pulse: &mut Pulse, registration: u64, now_ms: u64) -> Result<(), Status> {
        let heartbeat = Heartbeat {
            volume: VOLUME,
            registration,
            capacity_bytes: 10,
            used_bytes: 1,
        };
        pulse.beat(&heartbeat, now_ms).map(drop)
    }

    fn registered(heard_ms: u64) -> Pulse {
        let mut pulse = Pulse::new(1);
        let grant = Grant {
            registration: 7,
            heard_ms,
        };
        pulse.grant(VOLUME, Some(grant));
        pulse
    }

    #[test]
    fn beat_is_answered_for_the_last_registration_alone() {
        let mut pulse = registered(1_000);
        assert_eq!(beat_at(&mut pulse, 7, 1_100), Ok(()));
        assert_eq!(beat_at(&mut pulse, 8, 1_100), Err(Status::NotFound));
        pulse.grant(VOLUME, None);
        assert_eq!(beat_at(&mut pulse, 7, 1_200), Err(Status::NotFound));
    }

    #[test]
    fn beat_later_than_a_lease_is_refused_until_the_volume_registers() {
        let mut pulse = registered(1_000);
        let last_ms = 1_000 + VOLUME_LEASE_MS;
        assert_eq!(beat_at(&mut pulse, 7, last_ms), Ok(()));
        let late_ms = last_ms + VOLUME_LEASE_MS + 1;
        assert_eq!(beat_at(&mut pulse, 7, late_ms), Err(Status::NotFound));
        assert_eq!(beat_at(&mut pulse, 7, late_ms), Err(Status::NotFound));
    }

    #[test]
    fn beat_that_is_withheld_is_not_heard_and_what_was_heard_before_is_told() {
        let mut pulse = registered(1_000);
        beat_at(&mut pulse, 7, 1_100).expect("served");
        pulse.withhold(VOLUME, true);
        assert_eq!(beat_at(&mut pulse, 7, 1_200), Err(Status::Busy));
        assert_eq!(pulse.take_news()[0].heard_ms, 1_100);
        pulse.withhold(VOLUME, false);
        assert_eq!(beat_at(&mut pulse, 7, 1_300), Ok(()));
    }

    #[test]
    fn news_are_taken_once_and_the_latest_counts() {
        let mut pulse = registered(1_000);
        assert!(pulse.take_news().is_empty());
        beat_at(&mut pulse, 7, 1_100).expect("served");
        beat_at(&mut pulse, 7, 1_200).expect("served");
        let news = pulse.take_news();
        assert_eq!(news.len(), 1);
        assert_eq!(news[0].heard_ms, 1_200);
        assert!(pulse.take_news().is_empty());
    }
}
