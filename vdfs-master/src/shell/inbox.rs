//! What lies between the callers, on any thread, and the one thread that owns the core.
//!
//! Invariants: requests and their abandonments are taken in the order in which they came; a
//! [`Waiter`] that is dropped unanswered says so exactly once; nothing here grows without a bound.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot::{self, error::TryRecvError};
use vdfs_proto::Status;

use crate::checkpoint::CheckpointError;
use crate::core::{CoreReply, CoreRequest, Ticket};
use crate::limits::{QUEUE_REQUESTS_MAX, TURN_INPUTS_MAX, WAITING_CALLERS_MAX};

pub(crate) type Answer = Result<CoreReply, Status>;

/// A request or the end of the wait for one.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every item is a request: a box would cost each an allocation"
)]
pub(super) enum Item {
    Request {
        ticket: Ticket,
        request: CoreRequest,
        reply: oneshot::Sender<Answer>,
    },
    Abandoned(Ticket),
}

/// How the thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// With everything on the disk.
    Clean,
    /// As if it were killed.
    Halt,
}

/// What has arrived.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// At most `TURN_INPUTS_MAX`.
    pub(super) items: Vec<Item>,
    /// The log is on the disk up to this record.
    pub(super) durable: Option<u64>,
    pub(super) sync_failure: Option<io::Error>,
    pub(super) checkpoint: Option<Result<u64, CheckpointError>>,
    pub(super) stop: Option<Stop>,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.items.is_empty()
            && self.durable.is_none()
            && self.sync_failure.is_none()
            && self.checkpoint.is_none()
            && self.stop.is_none()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// Waiters there are.
    waiting: AtomicUsize,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// `Item::Request`s among the items.
    requests: usize,
    last_ticket: u64,
    /// All but the items.
    rest: Mail,
    is_closed: bool,
    /// The thread is to look up although nothing has arrived.
    is_called: bool,
    is_asleep: bool,
}

impl Queue {
    fn take_items(&mut self) -> Vec<Item> {
        let count = self.items.len().min(TURN_INPUTS_MAX);
        let items: Vec<Item> = self.items.drain(..count).collect();
        let is_request = |item: &&Item| matches!(item, Item::Request { .. });
        self.requests -= items.iter().filter(is_request).count();
        items
    }
}

impl Inbox {
    /// Queues a request, for the caller to see to: the thread is not woken. `Busy` if too much is
    /// waiting, `ShuttingDown` after the end.
    pub(crate) fn submit(self: &Arc<Self>, request: CoreRequest) -> Result<Waiter, Status> {
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return Err(Status::ShuttingDown);
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        if queue.requests >= QUEUE_REQUESTS_MAX || waiting >= WAITING_CALLERS_MAX {
            return Err(Status::Busy);
        }
        queue.last_ticket += 1;
        queue.requests += 1;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket(queue.last_ticket);
        let (reply, answer) = oneshot::channel();
        queue.items.push_back(Item::Request {
            ticket,
            request,
            reply,
        });
        drop(queue);
        Ok(Waiter {
            inbox: self.clone(),
            ticket,
            answer,
            is_answered: false,
        })
    }

    pub(super) fn tell_synced(&self, outcome: io::Result<u64>) {
        let mut queue = self.queue.lock();
        match outcome {
            Ok(records) => queue.rest.durable = Some(records),
            Err(error) => queue.rest.sync_failure = Some(error),
        }
        self.wake_if_asleep(queue);
    }

    pub(super) fn tell_checkpoint(&self, outcome: Result<u64, CheckpointError>) {
        let mut queue = self.queue.lock();
        queue.rest.checkpoint = Some(outcome);
        self.wake_if_asleep(queue);
    }

    pub(super) fn stop(&self, how: Stop) {
        let mut queue = self.queue.lock();
        queue.rest.stop = Some(how);
        queue.is_closed = true;
        self.wake_if_asleep(queue);
    }

    /// Makes the thread look up.
    pub(super) fn call(&self) {
        let mut queue = self.queue.lock();
        queue.is_called = true;
        self.wake_if_asleep(queue);
    }

    /// Waits, at most until `deadline`, for something to arrive or for a call.
    pub(super) fn wait(&self, deadline: Instant) {
        let mut queue = self.queue.lock();
        while queue.items.is_empty() && queue.rest.is_empty() && !queue.is_called {
            queue.is_asleep = true;
            let is_over = self.wake.wait_until(&mut queue, deadline).timed_out();
            queue.is_asleep = false;
            if is_over {
                break;
            }
        }
        queue.is_called = false;
    }

    /// Takes a turn's worth of what has arrived.
    pub(super) fn take(&self) -> Mail {
        let mut queue = self.queue.lock();
        Mail {
            items: queue.take_items(),
            ..std::mem::take(&mut queue.rest)
        }
    }

    /// [`Inbox::take`] for who is not the thread: all but the items stay for it.
    pub(super) fn take_items(&self) -> Mail {
        Mail {
            items: self.queue.lock().take_items(),
            ..Mail::default()
        }
    }

    pub(super) fn has_items(&self) -> bool {
        !self.queue.lock().items.is_empty()
    }

    /// Waits until `deadline`, or less if the thread is to end.
    pub(super) fn sleep(&self, deadline: Instant) {
        let mut queue = self.queue.lock();
        while queue.rest.stop.is_none() {
            queue.is_asleep = true;
            let is_over = self.wake.wait_until(&mut queue, deadline).timed_out();
            queue.is_asleep = false;
            if is_over {
                break;
            }
        }
    }

    /// Ends the inbox: what is still queued is never answered.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        let items = std::mem::take(&mut queue.items);
        queue.requests = 0;
        drop(queue);
        drop(items);
    }

    /// Callers that wait for a reply.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn end_wait(&self, ticket: Ticket, is_answered: bool) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if is_answered {
            return;
        }
        let mut queue = self.queue.lock();
        if !queue.is_closed {
            queue.items.push_back(Item::Abandoned(ticket));
            self.wake_if_asleep(queue);
        }
    }

    fn wake_if_asleep(&self, queue: parking_lot::MutexGuard<'_, Queue>) {
        let is_asleep = queue.is_asleep;
        drop(queue);
        if is_asleep {
            self.wake.notify_one();
        }
    }
}

/// The wait for one reply. Dropping it ends only the wait.
#[derive(Debug)]
pub(crate) struct Waiter {
    inbox: Arc<Inbox>,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
    is_answered: bool,
}

impl Waiter {
    /// The answer, if it is there.
    pub(crate) fn take(&mut self) -> Option<Answer> {
        let answer = match self.answer.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Closed) => Err(Status::ShuttingDown),
        };
        self.is_answered = true;
        Some(answer)
    }
}

impl Future for Waiter {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let polled = Pin::new(&mut self.answer).poll(context);
        polled.map(|answer| {
            self.is_answered = true;
            answer.unwrap_or(Err(Status::ShuttingDown))
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.inbox.end_wait(self.ticket, self.is_answered);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vdfs_proto::meta::{AdminRequest, GetStatus};

    use super::*;

    fn block_on(waiter: Waiter) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(waiter)
    }

    fn request() -> CoreRequest {
        CoreRequest::Admin(AdminRequest::GetStatus(GetStatus {}))
    }

    fn take(inbox: &Inbox) -> Mail {
        inbox.wait(Instant::now() + Duration::from_secs(5));
        inbox.take()
    }

    #[test]
    fn inbox_full_answers_busy_and_takes_again_when_drained() {
        let inbox = Arc::new(Inbox::default());
        let waiters: Vec<_> = (0..QUEUE_REQUESTS_MAX)
            .map(|_| inbox.submit(request()).expect("room"))
            .collect();
        assert_eq!(inbox.submit(request()).expect_err("full"), Status::Busy);
        assert_eq!(take(&inbox).items.len(), TURN_INPUTS_MAX);
        inbox.submit(request()).expect("room again");
        drop(waiters);
    }

    #[test]
    fn waiter_dropped_unanswered_is_told_once_behind_its_request() {
        let inbox = Arc::new(Inbox::default());
        drop(inbox.submit(request()).expect("room"));
        let items = take(&inbox).items;
        assert!(matches!(
            items[..],
            [Item::Request { ticket, .. }, Item::Abandoned(abandoned)] if ticket == abandoned
        ));
    }

    #[test]
    fn waiter_answered_is_not_abandoned() {
        let inbox = Arc::new(Inbox::default());
        let waiter = inbox.submit(request()).expect("room");
        for item in take(&inbox).items {
            if let Item::Request { reply, .. } = item {
                reply.send(Err(Status::NotFound)).expect("the waiter lives");
            }
        }
        assert_eq!(block_on(waiter), Err(Status::NotFound));
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn inbox_closed_answers_all_with_shutting_down() {
        let inbox = Arc::new(Inbox::default());
        let waiter = inbox.submit(request()).expect("room");
        inbox.close();
        assert_eq!(block_on(waiter), Err(Status::ShuttingDown));
        assert_eq!(
            inbox.submit(request()).expect_err("closed"),
            Status::ShuttingDown
        );
    }
}
