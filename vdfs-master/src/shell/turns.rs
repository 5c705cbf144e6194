//! Who runs the keeper's next turn.
//!
//! A hop to another thread and back takes longer than most requests do. So whoever has queued some
//! requests and finds the keeper free runs the turn in place, with what others have queued meanwhile;
//! who finds it taken leaves the request to the one who has it. The master's own thread runs the
//! turns that no caller begins: ticks, news from the disk, retries of a log without room, the end.
//!
//! Invariants: what is queued is taken under the keeper's lock, so in the order in which it came;
//! whoever lets the keeper go looks into the queue once more, so nothing is left behind; a caller
//! never waits here, neither for the keeper nor for room in the log.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use vdfs_proto::Status;

use super::AbortHook;
use super::inbox::{Inbox, Stop, Waiter};
use super::keeper::{Fatal, Keeper, Turn};
use crate::core::{CoreRequest, Image};
use crate::limits::CALLER_TURNS_MAX;

#[derive(Debug)]
pub(crate) struct Turns {
    inbox: Arc<Inbox>,
    /// `None` after the end. Lock order: before the inbox.
    keeper: Mutex<Option<Keeper>>,
    before_abort: Option<AbortHook>,
    /// Turns that the master's own thread has run.
    own_turns: watch::Sender<u64>,
}

impl Turns {
    pub(super) fn new(inbox: Arc<Inbox>, keeper: Keeper, before_abort: Option<AbortHook>) -> Self {
        Turns {
            inbox,
            keeper: Mutex::new(Some(keeper)),
            before_abort,
            own_turns: watch::Sender::new(0),
        }
    }

    /// Queues a request, which the caller follows with [`Turns::run_queued`]. `Busy` if too much is
    /// waiting, `ShuttingDown` after the end.
    pub(crate) fn queue(&self, request: CoreRequest) -> Result<Waiter, Status> {
        self.inbox.submit(request)
    }

    /// Runs turns until nothing is queued, as far as nobody else does. Mostly what was queued before
    /// is answered when this returns.
    pub(crate) fn run_queued(&self) {
        self.or_abort(|| self.run_turns());
    }

    /// One instant of everything; `None` after the end. Waits for the turn that is being run.
    pub(crate) fn image(&self) -> Option<Image> {
        let image = self.keeper.lock().as_ref().map(Keeper::image);
        // Somebody may have found the keeper taken.
        if self.inbox.has_items() {
            self.inbox.call();
        }
        image
    }

    /// Ends when the master's own thread has run a turn: never if it hangs.
    pub(crate) async fn wait_own_turn(&self) {
        let mut turns = self.own_turns.subscribe();
        self.inbox.call();
        turns.changed().await.expect("the sender is here");
    }

    fn run_turns(&self) -> Result<(), Fatal> {
        for _ in 0..CALLER_TURNS_MAX {
            let Some(mut seat) = self.keeper.try_lock() else {
                return Ok(());
            };
            let Some(keeper) = seat.as_mut().filter(|keeper| !keeper.is_blocked()) else {
                return Ok(());
            };
            keeper.turn(self.inbox.take_items())?;
            if keeper.must_call() {
                self.inbox.call();
            }
            drop(seat);
            if !self.inbox.has_items() {
                return Ok(());
            }
        }
        self.inbox.call();
        Ok(())
    }

    /// The master's own thread, until it is told to stop.
    pub(super) fn run(&self) {
        self.or_abort(|| self.run_thread());
    }

    fn run_thread(&self) -> Result<(), Fatal> {
        let mut wake = Instant::now();
        loop {
            self.inbox.wait(wake);
            let mut seat = self.keeper.lock();
            let keeper = seat.as_mut().expect("this thread alone takes it out");
            let mail = self.inbox.take();
            let stop = mail.stop;
            let turn = keeper.turn(mail)?;
            wake = keeper.promise_wake();
            self.own_turns.send_modify(|turns| *turns += 1);
            if let Some(stop) = stop {
                return end(seat.take().expect("as above"), stop, turn);
            }
            drop(seat);
            if turn == Turn::Blocked {
                self.inbox.sleep(wake);
            }
        }
    }

    /// A failure in a turn ends the process, on whichever thread it ran.
    fn or_abort(&self, work: impl FnOnce() -> Result<(), Fatal>) {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(fatal)) => abort(&fatal.to_string(), self.before_abort.as_ref()),
            Err(panic) => abort(&panic_text(&*panic), self.before_abort.as_ref()),
        }
    }
}

fn end(keeper: Keeper, stop: Stop, turn: Turn) -> Result<(), Fatal> {
    if stop == Stop::Clean && turn == Turn::Done {
        return keeper.finish();
    }
    keeper.halt();
    Ok(())
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("no message"))
}

/// Ends the process: what it would acknowledge from here on may not be true.
fn abort(why: &str, hook: Option<&AbortHook>) -> ! {
    tracing::error!(why, "the master cannot go on");
    eprintln!("vdfs: master: {why}");
    if let Some(AbortHook(hook)) = hook {
        hook(why);
    }
    std::process::abort()
}
