//! How fast copies are made for others: as fast as the machines can while nobody else needs them, and with
//! a part of what is under way otherwise.
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

#[derive(Debug)]
pub(crate) struct Pace {
    /// When a client has last read or written here.
    client_ms: AtomicU64,
    room: Semaphore,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            client_ms: AtomicU64::new(0),
            room: Semaphore::new(PIECES_AT_ONCE),
        }
    }
}

impl Pace {
    pub(crate) fn note_client(&self) {
        self.client_ms.store(boot_ms(), Ordering::Relaxed);
    }

    /// Waits for the turn of one piece, which is under way as long as the permit lives.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        let is_busy = boot_ms() < self.client_ms.load(Ordering::Relaxed) + BUSY_MS;
        let places = match is_busy {
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
    fn turns(pace: &Pace) -> usize {
        let turns = std::iter::from_fn(|| pace.turn().now_or_never());
        turns.collect::<Vec<_>>().len()
    }

    #[test]
    fn pieces_leave_the_volume_to_clients_while_there_are_some() {
        let pace = Pace::default();
        assert_eq!(turns(&pace), PIECES_AT_ONCE);
        pace.note_client();
        assert_eq!(turns(&pace), PIECES_BESIDE_CLIENTS);
        std::thread::sleep(std::time::Duration::from_millis(2 * BUSY_MS));
        assert_eq!(turns(&pace), PIECES_AT_ONCE);
    }
}
