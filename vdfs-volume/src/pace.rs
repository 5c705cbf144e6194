//! How fast copies are made for another volume: as fast as the machines can while nobody else needs them, and
//! with a part of what is under way otherwise.
//!
//! A share of a link or of a processor goes to whoever has more in flight there. So it is that which is
//! bounded: it needs no figure for the speed of a machine or of its network.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use vdfs_net::clock::boot_ms;

use crate::limits::{PIECES_AT_ONCE, PIECES_BESIDE_CLIENTS};

/// How long a volume counts as busy after a client's request: longer than the gaps of one that reads all
/// the time.
const BUSY_MS: u64 = 100;

/// What clients do here, by themselves or through the volume before this one.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// When they have last read or written.
    last_ms: AtomicU64,
}

impl Traffic {
    pub(crate) fn note(&self) {
        self.last_ms.store(boot_ms(), Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        boot_ms() < self.last_ms.load(Ordering::Relaxed) + BUSY_MS
    }
}

/// Of copies for one volume: one that hangs keeps nothing from others.
#[derive(Debug)]
pub(crate) struct Pace {
    room: Semaphore,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            room: Semaphore::new(PIECES_AT_ONCE),
        }
    }
}

impl Pace {
    /// Waits for the turn of one piece, which is under way as long as the permit lives.
    pub(crate) async fn turn(&self, traffic: &Traffic) -> SemaphorePermit<'_> {
        let places = match traffic.is_busy() {
            true => PIECES_AT_ONCE / PIECES_BESIDE_CLIENTS,
            false => 1,
        };
        let turn = self.room.acquire_many(places as u32).await;
        turn.expect("it is never closed")
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Turns that are to be had at once.
    fn turns(pace: &Pace, traffic: &Traffic) -> usize {
        let turns = std::iter::from_fn(|| pace.turn(traffic).now_or_never());
        turns.collect::<Vec<_>>().len()
    }

    #[test]
    fn pieces_leave_the_volume_to_clients_while_there_are_some() {
        let (pace, traffic) = (Pace::default(), Traffic::default());
        assert_eq!(turns(&pace, &traffic), PIECES_AT_ONCE);
        let soon = boot_ms() + 1000 * BUSY_MS;
        traffic.last_ms.store(soon, Ordering::Relaxed);
        assert_eq!(turns(&pace, &traffic), PIECES_BESIDE_CLIENTS);
        traffic.note();
        std::thread::sleep(std::time::Duration::from_millis(2 * BUSY_MS));
        assert_eq!(turns(&pace, &traffic), PIECES_AT_ONCE);
    }
}
