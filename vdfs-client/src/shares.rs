//! What one volume may take of what all share, so that one that does not answer holds up the writes
//! to no other.
//!
//! Invariant: whoever waits for his share of a volume holds nothing of what all share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vdfs_proto::VolumeId;

/// A bound for each volume.
#[derive(Debug)]
pub(crate) struct VolumeShares {
    permits_each: usize,
    volumes: Mutex<HashMap<VolumeId, Arc<Semaphore>>>,
}

impl VolumeShares {
    pub(crate) fn new(permits_each: usize) -> Self {
        VolumeShares {
            permits_each,
            volumes: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, volume: VolumeId) -> Arc<Semaphore> {
        let mut volumes = self.volumes.lock();
        let share = volumes.entry(volume);
        share
            .or_insert_with(|| Arc::new(Semaphore::new(self.permits_each)))
            .clone()
    }
}

/// Bytes that write-behind may take, of all volumes and of each.
#[derive(Debug)]
pub(crate) struct WriteBudget {
    all: Arc<Semaphore>,
    shares: VolumeShares,
}

impl WriteBudget {
    pub(crate) fn new(bytes_all: usize, bytes_each: usize) -> Self {
        WriteBudget {
            all: Arc::new(Semaphore::new(bytes_all)),
            shares: VolumeShares::new(bytes_each),
        }
    }

    /// Takes `len` bytes if they are free. `volume` is `None` if it is not known where they go.
    pub(crate) fn try_take(&self, volume: Option<VolumeId>, len: u32) -> Option<Budget> {
        let share = |volume| self.shares.of(volume).try_acquire_many_owned(len);
        let of_volumes = match volume.map(share).transpose() {
            Ok(permit) => permit.into_iter().collect(),
            Err(_) => return None,
        };
        let all = self.all.clone().try_acquire_many_owned(len).ok()?;
        Some(Budget { all, of_volumes })
    }

    /// The same, when they are free.
    pub(crate) async fn take(&self, volume: Option<VolumeId>, len: u32) -> Budget {
        let mut of_volumes = Vec::new();
        if let Some(volume) = volume {
            let permit = self.shares.of(volume).acquire_many_owned(len).await;
            of_volumes.push(permit.expect("the semaphore is never closed"));
        }
        let all = self.all.clone().acquire_many_owned(len).await;
        Budget {
            all: all.expect("the semaphore is never closed"),
            of_volumes,
        }
    }

    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.all.available_permits()
    }
}

/// A part of a [`WriteBudget`]; goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Budget {
    all: OwnedSemaphorePermit,
    /// One for each volume that the bytes may go to: more than one if the file was moved between two
    /// writes, none if it was not known.
    of_volumes: Vec<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn bytes(&self) -> usize {
        self.all.num_permits()
    }

    /// Takes `bytes` out of what is for one volume. Panics if there are fewer.
    pub(crate) fn split(&mut self, bytes: usize) -> Budget {
        assert!(self.of_volumes.len() <= 1, "of one write to one volume");
        let part = |permit: &mut OwnedSemaphorePermit| {
            let part = permit.split(bytes);
            part.expect("the budget covers all its pieces")
        };
        Budget {
            all: part(&mut self.all),
            of_volumes: self.of_volumes.iter_mut().map(part).collect(),
        }
    }

    pub(crate) fn merge(&mut self, other: Budget) {
        self.all.merge(other.all);
        for permit in other.of_volumes {
            let is_same =
                |own: &&mut OwnedSemaphorePermit| Arc::ptr_eq(own.semaphore(), permit.semaphore());
            match self.of_volumes.iter_mut().find(is_same) {
                Some(own) => own.merge(permit),
                None => self.of_volumes.push(permit),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_of_one_volume_leaves_room_for_another() {
        let budget = WriteBudget::new(10, 6);
        let (one, two) = (Some(VolumeId(1)), Some(VolumeId(2)));
        let taken = budget.try_take(one, 6);
        assert!(taken.is_some() && budget.try_take(one, 1).is_none());
        let other = budget.try_take(two, 4);
        assert!(other.is_some() && budget.try_take(two, 1).is_none());
        drop(taken);
        assert!(budget.try_take(one, 6).is_some());
    }

    #[test]
    fn budget_of_two_volumes_goes_back_to_both() {
        let budget = WriteBudget::new(10, 5);
        let mut run = budget.try_take(Some(VolumeId(1)), 3).expect("free");
        run.merge(budget.try_take(Some(VolumeId(2)), 5).expect("free"));
        run.merge(budget.try_take(Some(VolumeId(1)), 2).expect("free"));
        assert_eq!((run.bytes(), budget.free_bytes()), (10, 0));
        drop(run);
        for volume in [1, 2] {
            assert!(budget.try_take(Some(VolumeId(volume)), 5).is_some());
        }
    }
}
