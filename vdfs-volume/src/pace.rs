//! How fast copies are made for another volume: as fast as the machines can while nobody else needs them, and
//! with a part of what is under way otherwise.
//!
//! A share of a link or of a processor goes to whoever has more in flight there. So it is that which is
//! bounded: it needs no figure for the speed of a machine or of its network. Where others pay for the network,
//! the copies may have a budget in bytes a second too.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use vdfs_net::clock::boot_ms;

use crate::limits::{PIECES_AT_ONCE, PIECES_BESIDE_CLIENTS};

/// How long a volume counts as busy after a client's request: longer than the gaps of one that reads all
/// the time.
const BUSY_MS: u64 = 100;

/// What clients do here, by themselves or through the volume before this one, and what copies may take.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// When they have last read or written.
    last_ms: AtomicU64,
    /// What copies may take, if that is bounded.
    copies: OnceLock<Mutex<Rate>>,
}

impl Traffic {
    pub(crate) fn note(&self) {
        self.last_ms.store(boot_ms(), Ordering::Relaxed);
    }

    /// Copies take at most so many bytes a second from now on, those for all other volumes together.
    pub(crate) fn limit_copies(&self, bytes_per_second: u64) {
        let rate = Mutex::new(Rate::new(bytes_per_second));
        self.copies.set(rate).expect("set once");
    }

    /// So many bytes more are copied: gives when they may go, unless a change waits for them.
    pub(crate) fn take_for_copy(&self, bytes: usize) -> Option<Instant> {
        let rate = self.copies.get()?;
        Some(rate.lock().take(bytes as u64, Instant::now()).start)
    }

    fn is_busy(&self) -> bool {
        boot_ms() < self.last_ms.load(Ordering::Relaxed) + BUSY_MS
    }
}

/// So many bytes a second.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_second: u64,
    /// When what has been taken is used up.
    paid_until: Option<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Rate {
            bytes_per_second,
            paid_until: None,
        }
    }

    /// Takes so many bytes; gives from when they may go until they are used up. What was not used before is
    /// gone.
    pub(crate) fn take(&mut self, bytes: u64, now: Instant) -> Range<Instant> {
        let from = self.paid_until.map_or(now, |until| until.max(now));
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.paid_until = Some(from + cost);
        from..from + cost
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
    fn copies_take_what_their_rate_allows_and_save_nothing_up() {
        assert_eq!(Traffic::default().take_for_copy(1 << 20), None, "no limit");
        let (mut rate, now) = (Rate::new(1 << 20), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let turns = [
            (now, 0),
            (now, 1),
            (after(1), 2),
            (after(9), 9),
            (after(9), 10),
        ];
        for (asked, goes) in turns {
            assert_eq!(rate.take(1 << 20, asked), after(goes)..after(goes + 1));
        }
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
