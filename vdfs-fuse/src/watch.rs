//! Ends the waits of callers that are being killed.
//!
//! fuser 0.18 answers `FUSE_INTERRUPT` with `ENOSYS`, after which the kernel sends no more and
//! waits for every request to its end, whatever the caller's signals. So the door looks for itself:
//! a request that is parked for [`WATCH_AFTER`] has its caller's pending signals read from `/proc`,
//! and one that is to die is answered `EINTR`. What the same process then has to wait for, for a
//! moment, is answered so too: a program that catches `^C` closes its files before it ends, and a
//! close waits as long as a write does.
//!
//! A wait for a lock ends with any signal that the caller would hear. The kernel restarts calls that
//! lock, and expects a signal to be there; one that is sent to a process of several threads may be
//! gone with another one in the next moment, so it must be there at two looks.
//!
//! Left out: callers that this process cannot see (another pid namespace); they wait.

mod caller;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::AbortHandle;
use parking_lot::{Condvar, Mutex};
use tracing::debug;

use crate::limits::{
    INTERRUPTED_FOR, WATCH_AFTER, WATCH_CALLERS_MAX, WATCH_INTERRUPTED_AFTER, WATCH_INTERVAL,
};
use crate::watch::caller::Caller;

pub(crate) use crate::watch::caller::groups_of;

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
    /// The first that is looked at in the next round.
    look_from: u64,
    /// The thread sleeps until somebody parks.
    idle: bool,
    closed: bool,
}

#[derive(Debug)]
struct Parked {
    tid: u32,
    hears: Hears,
    since: Instant,
    /// A signal was there at the last look.
    was_signalled: bool,
    stop: AbortHandle,
}

/// Which signals of its caller end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hears {
    /// Those that kill it. The call is restarted.
    Death,
    /// Those that kill it, also when they came a moment ago.
    DeathAndAfter,
    /// All that it hears itself. The call is restarted.
    Signals,
}

/// One that has waited long enough for its caller to be looked at.
#[derive(Debug)]
struct Waiter {
    number: u64,
    tid: u32,
    hears: Hears,
    waited: Duration,
    was_signalled: bool,
    stop: AbortHandle,
}

/// Processes that were interrupted a moment ago, and until when they count as such.
#[derive(Debug, Default)]
struct Interrupted(HashMap<u32, Instant>);

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
    pub(crate) fn seat(&self, tid: u32, hears: Hears, stop: AbortHandle) -> Option<Seat> {
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
                hears,
                since: Instant::now(),
                was_signalled: false,
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
        let mut interrupted = Interrupted::default();
        while self.wait_for_work() {
            let now = Instant::now();
            interrupted.forget(now);
            for waiter in self.waiters(now, interrupted.patience()) {
                if let Some(caller) = Caller::look(waiter.tid) {
                    interrupted.judge(now, &waiter, caller);
                    self.note_signal(waiter.number, caller.is_signalled);
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

    /// Those whose turn it is to be looked at: waits for locks may be long and many.
    fn waiters(&self, now: Instant, after: Duration) -> Vec<Waiter> {
        let mut table = self.table.lock();
        let from = table.look_from;
        let in_turn = table.parked.range(from..).chain(table.parked.range(..from));
        let waiters = in_turn.map(|(number, parked)| Waiter {
            number: *number,
            tid: parked.tid,
            hears: parked.hears,
            waited: now.saturating_duration_since(parked.since),
            was_signalled: parked.was_signalled,
            stop: parked.stop.clone(),
        });
        let long = waiters.filter(|waiter| waiter.waited >= after);
        let waiters: Vec<Waiter> = long.take(WATCH_CALLERS_MAX).collect();
        table.look_from = waiters.last().map_or(0, |waiter| waiter.number + 1);
        waiters
    }

    fn note_signal(&self, number: u64, is_signalled: bool) {
        if let Some(parked) = self.table.lock().parked.get_mut(&number) {
            parked.was_signalled = is_signalled;
        }
    }
}

impl Interrupted {
    /// How long a request waits before its caller is looked at.
    fn patience(&self) -> Duration {
        if self.0.is_empty() {
            WATCH_AFTER
        } else {
            WATCH_INTERRUPTED_AFTER
        }
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, until| *until > now);
    }

    /// Ends the wait if the caller is to die, or was interrupted a moment ago. The moment is not
    /// drawn out by further interruptions: a program that tries again is not kept from waiting.
    fn judge(&mut self, now: Instant, waiter: &Waiter, caller: Caller) {
        let was_interrupted = self.0.contains_key(&caller.process);
        let is_dying = caller.is_dying && waiter.waited >= WATCH_AFTER;
        let ends = match waiter.hears {
            Hears::Death => is_dying && waiter.was_signalled,
            Hears::DeathAndAfter => was_interrupted || is_dying,
            Hears::Signals => caller.is_signalled && waiter.was_signalled,
        };
        if !ends {
            return;
        }
        debug!(tid = waiter.tid, "the caller's signal ends its request");
        if is_dying {
            self.0
                .entry(caller.process)
                .or_insert(now + INTERRUPTED_FOR);
        }
        waiter.stop.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked_room() -> (Watch, Seat) {
        let watch = Watch {
            room: Arc::new(Room::default()),
        };
        let stop = AbortHandle::new_pair().0;
        let seat = watch.seat(7, Hears::Death, stop).expect("a caller");
        (watch, seat)
    }

    #[test]
    fn waiters_are_the_old_and_the_seated() {
        let (watch, seat) = parked_room();
        let later = Instant::now() + WATCH_AFTER;
        assert!(watch.room.waiters(Instant::now(), WATCH_AFTER).is_empty());
        assert_eq!(watch.room.waiters(later, WATCH_AFTER).len(), 1);
        drop(seat);
        assert!(watch.room.waiters(later, WATCH_AFTER).is_empty());
    }

    #[test]
    fn seat_of_no_caller_is_none() {
        let (watch, _seat) = parked_room();
        let stop = AbortHandle::new_pair().0;
        assert!(watch.seat(0, Hears::Death, stop).is_none());
    }

    #[test]
    fn waiters_take_turns_when_there_are_too_many() {
        let watch = Watch {
            room: Arc::new(Room::default()),
        };
        let seats: Vec<Seat> = (0..WATCH_CALLERS_MAX + 1)
            .filter_map(|_| watch.seat(7, Hears::Signals, AbortHandle::new_pair().0))
            .collect();
        let later = Instant::now() + WATCH_AFTER;
        let mut looked_at: Vec<u64> = Vec::new();
        for _ in 0..2 {
            let waiters = watch.room.waiters(later, WATCH_AFTER);
            assert_eq!(waiters.len(), WATCH_CALLERS_MAX);
            looked_at.extend(waiters.iter().map(|waiter| waiter.number));
        }
        assert!(seats.iter().all(|seat| looked_at.contains(&seat.number)));
    }

    fn waiter(waited: Duration) -> Waiter {
        hearing(Hears::DeathAndAfter, waited)
    }

    fn hearing(hears: Hears, waited: Duration) -> Waiter {
        let stop = AbortHandle::new_pair().0;
        Waiter {
            number: 0,
            tid: 7,
            hears,
            waited,
            was_signalled: false,
            stop,
        }
    }

    const DYING: Caller = Caller {
        process: 6,
        is_dying: true,
        is_signalled: true,
    };
    const LIVING: Caller = Caller {
        process: 6,
        is_dying: false,
        is_signalled: false,
    };
    /// A handler of it is to run.
    const SIGNALLED: Caller = Caller {
        is_signalled: true,
        ..LIVING
    };

    #[test]
    fn judge_ends_a_wait_for_a_lock_with_a_signal_that_stays() {
        let mut interrupted = Interrupted::default();
        let now = Instant::now();
        let first = hearing(Hears::Signals, WATCH_AFTER);
        interrupted.judge(now, &first, SIGNALLED);
        assert!(!first.stop.is_aborted(), "another thread may take it");
        let second = Waiter {
            was_signalled: true,
            ..hearing(Hears::Signals, WATCH_AFTER)
        };
        interrupted.judge(now, &second, LIVING);
        assert!(!second.stop.is_aborted(), "another thread has taken it");
        interrupted.judge(now, &second, SIGNALLED);
        assert!(second.stop.is_aborted());
        let file = waiter(WATCH_AFTER);
        interrupted.judge(now, &file, SIGNALLED);
        assert!(!file.stop.is_aborted(), "other calls are not interrupted");
    }

    #[test]
    fn judge_ends_no_call_that_is_restarted_without_a_signal() {
        let mut interrupted = Interrupted::default();
        let now = Instant::now();
        interrupted.judge(now, &waiter(WATCH_AFTER), DYING);
        for hears in [Hears::Death, Hears::Signals] {
            let again = hearing(hears, WATCH_AFTER);
            interrupted.judge(now, &again, LIVING);
            assert!(!again.stop.is_aborted(), "{hears:?}");
        }
    }

    #[test]
    fn judge_ends_the_waits_of_the_dying() {
        let mut interrupted = Interrupted::default();
        let (early, late) = (waiter(WATCH_INTERRUPTED_AFTER), waiter(WATCH_AFTER));
        interrupted.judge(Instant::now(), &early, DYING);
        interrupted.judge(Instant::now(), &late, LIVING);
        assert!(!early.stop.is_aborted() && !late.stop.is_aborted());
        interrupted.judge(Instant::now(), &late, DYING);
        assert!(late.stop.is_aborted());
    }

    #[test]
    fn judge_ends_what_an_interrupted_process_waits_for_a_moment_later() {
        let mut interrupted = Interrupted::default();
        let now = Instant::now();
        interrupted.judge(now, &waiter(WATCH_AFTER), DYING);
        let close = waiter(WATCH_INTERRUPTED_AFTER);
        interrupted.judge(now, &close, LIVING);
        assert!(close.stop.is_aborted());
        interrupted.forget(now + INTERRUPTED_FOR);
        let again = waiter(WATCH_AFTER);
        interrupted.judge(now + INTERRUPTED_FOR, &again, LIVING);
        assert!(!again.stop.is_aborted(), "the moment is over");
    }
}
