//! Ends the waits of callers that are being killed.
//!
//! fuser 0.18 answers `FUSE_INTERRUPT` with `ENOSYS`, after which the kernel sends no more and
//! waits for every request to its end, whatever the caller's signals. So the door looks for itself:
//! a request that is parked for [`WATCH_AFTER`] has its caller's pending signals read from `/proc`,
//! and one that is to die is answered `EINTR`.
//!
//! Left out: callers that this process cannot see (another pid namespace); they wait.

mod caller;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::AbortHandle;
use parking_lot::{Condvar, Mutex};
use tracing::debug;

use crate::limits::{WATCH_AFTER, WATCH_CALLERS_MAX, WATCH_INTERVAL};
use crate::watch::caller::is_dying;

/// The table of parked requests, and the thread that looks through it. The thread ends with the
/// table.
#[derive(Debug)]
pub(crate) struct Watch {
    room: Arc<Room>,
}

#[derive(Debug, Default)]
struct Room {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    /// By order of arrival, so the oldest come first.
    parked: BTreeMap<u64, Parked>,
    next: u64,
    /// The thread sleeps until somebody parks.
    idle: bool,
    closed: bool,
}

#[derive(Debug)]
struct Parked {
    tid: u32,
    since: Instant,
    stop: AbortHandle,
}

/// A request's place in the table, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    number: u64,
}

impl Watch {
    pub(crate) fn start() -> io::Result<Self> {
        let room = Arc::new(Room::default());
        let watched = room.clone();
        thread::Builder::new()
            .name("vdfs-watch".into())
            .spawn(move || watched.run())?;
        Ok(Watch { room })
    }

    /// Watches the caller `tid` from now on; `stop` ends its request's wait. `None` if there is no
    /// caller to watch.
    pub(crate) fn seat(&self, tid: u32, stop: AbortHandle) -> Option<Seat> {
        if tid == 0 {
            return None;
        }
        let mut table = self.room.table.lock();
        let number = table.next;
        table.next += 1;
        table.parked.insert(
            number,
            Parked {
                tid,
                since: Instant::now(),
                stop,
            },
        );
        if table.idle {
            table.idle = false;
            self.room.changed.notify_one();
        }
        Some(Seat {
            room: self.room.clone(),
            number,
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.room.table.lock().closed = true;
        self.room.changed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.table.lock().parked.remove(&self.number);
    }
}

impl Room {
    fn run(&self) {
        while self.wait_for_work() {
            for (tid, stop) in self.waiting_long(Instant::now(), WATCH_AFTER) {
                if is_dying(tid) {
                    debug!(tid, "caller is being killed: its request ends");
                    stop.abort();
                }
            }
        }
    }

    /// Sleeps for one interval, and before it until something is parked. False when it is over.
    fn wait_for_work(&self) -> bool {
        let mut table = self.table.lock();
        while table.parked.is_empty() && !table.closed {
            table.idle = true;
            self.changed.wait(&mut table);
        }
        table.idle = false;
        if !table.closed {
            self.changed.wait_for(&mut table, WATCH_INTERVAL);
        }
        !table.closed
    }

    fn waiting_long(&self, now: Instant, after: Duration) -> Vec<(u32, AbortHandle)> {
        let table = self.table.lock();
        let old = table
            .parked
            .values()
            .take_while(|parked| now - parked.since >= after);
        old.take(WATCH_CALLERS_MAX)
            .map(|parked| (parked.tid, parked.stop.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked_room() -> (Watch, Seat) {
        let watch = Watch {
            room: Arc::new(Room::default()),
        };
        let seat = watch.seat(7, AbortHandle::new_pair().0).expect("a caller");
        (watch, seat)
    }

    #[test]
    fn waiting_long_names_only_the_old_and_the_seated() {
        let (watch, seat) = parked_room();
        let later = Instant::now() + WATCH_AFTER;
        assert!(
            watch
                .room
                .waiting_long(Instant::now(), WATCH_AFTER)
                .is_empty()
        );
        assert_eq!(watch.room.waiting_long(later, WATCH_AFTER).len(), 1);
        drop(seat);
        assert!(watch.room.waiting_long(later, WATCH_AFTER).is_empty());
    }

    #[test]
    fn seat_of_no_caller_is_none() {
        let (watch, _seat) = parked_room();
        assert!(watch.seat(0, AbortHandle::new_pair().0).is_none());
    }
}
