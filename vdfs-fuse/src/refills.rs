//! Pages that may have been filled with what was there before a write.
//!
//! The kernel copies what a program writes into an uptodate page, lets the page go, and only then asks
//! here. If the page is dropped in between, because somebody was granted a lock or a right was
//! recalled, another program can have it filled with the old bytes before the write arrives; and
//! nothing would ever fill it again. So a write that comes soon after a drop, and after a page was
//! filled since, has its pages dropped once more before its answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vdfs_proto::Ino;

use crate::limits::DROPS_KEPT;

/// Longer than a write takes from its page to here.
const SOON: Duration = Duration::from_secs(1);

/// Inodes whose pages were dropped lately.
#[derive(Debug, Default)]
pub(crate) struct Refills {
    drops: Mutex<HashMap<Ino, Dropped>>,
    /// Most of the time there are none, and nobody takes the lock.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Dropped {
    at: Instant,
    /// Pages were asked for since.
    refilled: bool,
}

impl Refills {
    pub(crate) fn note_drop(&self, ino: Ino) {
        let mut drops = self.drops.lock();
        if drops.len() >= DROPS_KEPT {
            drops.retain(|_, drop| drop.at.elapsed() < SOON);
        }
        let at = Instant::now();
        let refilled = false;
        drops.insert(ino, Dropped { at, refilled });
        self.count.store(drops.len(), Ordering::Release);
    }

    /// To be called before the bytes are read.
    pub(crate) fn note_fill(&self, ino: Ino) {
        if self.count.load(Ordering::Acquire) > 0
            && let Some(drop) = self.drops.lock().get_mut(&ino)
        {
            drop.refilled = true;
        }
    }

    /// To be asked when a write is done.
    pub(crate) fn may_be_older(&self, ino: Ino) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut drops = self.drops.lock();
        let Some(drop) = drops.get(&ino) else {
            return false;
        };
        if drop.at.elapsed() < SOON {
            return drop.refilled;
        }
        drops.remove(&ino);
        self.count.store(drops.len(), Ordering::Release);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_filled_after_a_drop_may_be_older_than_a_write() {
        let refills = Refills::default();
        let (dropped, other) = (Ino(1), Ino(2));
        refills.note_fill(dropped);
        refills.note_drop(dropped);
        assert!(!refills.may_be_older(dropped));
        refills.note_fill(other);
        refills.note_fill(dropped);
        assert!(refills.may_be_older(dropped));
        assert!(!refills.may_be_older(other));
        refills.note_drop(dropped);
        assert!(!refills.may_be_older(dropped));
    }
}
