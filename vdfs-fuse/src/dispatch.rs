//! From a request to its reply: poll once where it arrived, else hand it to the runtime.
//!
//! Most requests are answered from memory, and a hop between threads would cost more than they do;
//! so the loop thread polls the operation itself. What waits (a peer, room in a buffer) moves with
//! its reply into a task, is watched for a caller that is being killed, and answers from there.
//!
//! Invariant: every request is answered exactly once; one that panics is answered `EIO`.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fuser::{Errno, Request};
use futures::FutureExt;
use futures::future::abortable;
use tokio::runtime::Handle;
use tracing::{debug, error};
use vdfs_proto::Status;

use crate::errno::errno;
use crate::reply::Answer;
use crate::watch::Watch;

/// Whether a caller who is being killed ends the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Answered `EINTR`: the program cannot do anything with a later answer.
    Interruptible,
    /// The kernel asks for itself (a release, writeback of a mapping): to end it would lose what
    /// nobody repeats.
    Endless,
}

/// The outcome of an operation, or what it panicked with.
type Outcome<T> = Result<Result<T, Status>, Box<dyn Any + Send>>;

#[derive(Debug)]
pub(crate) struct Dispatcher {
    runtime: Handle,
    watch: Arc<Watch>,
}

impl Dispatcher {
    pub(crate) fn new(runtime: Handle, watch: Arc<Watch>) -> Self {
        Dispatcher { runtime, watch }
    }

    pub(crate) fn answer<T, R, W>(&self, request: &Request, patience: Patience, reply: R, work: W)
    where
        T: Send + 'static,
        R: Answer<T>,
        W: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        match self.poll_once(work.as_mut()) {
            Poll::Ready(outcome) => respond(reply, outcome),
            Poll::Pending => self.park(request, patience, reply, work),
        }
    }

    /// Whoever is to be woken is registered by the task's own first poll.
    fn poll_once<T>(&self, work: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        let _inside = self.runtime.enter();
        work.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn park<T, R, W>(&self, request: &Request, patience: Patience, reply: R, work: Pin<Box<W>>)
    where
        T: Send + 'static,
        R: Answer<T>,
        W: Future<Output = Outcome<T>> + Send + 'static,
    {
        let (work, stop) = abortable(work);
        let seat = match patience {
            Patience::Interruptible => self.watch.seat(request.pid(), stop),
            Patience::Endless => None,
        };
        drop(self.runtime.spawn(async move {
            let outcome = work.await;
            drop(seat);
            match outcome {
                Ok(outcome) => respond(reply, outcome),
                Err(_) => reply.errno(errno(Status::Interrupted)),
            }
        }));
    }
}

fn respond<T>(reply: impl Answer<T>, outcome: Outcome<T>) {
    match outcome {
        Ok(Ok(value)) => reply.value(value),
        Ok(Err(status)) => {
            debug!(%status, "request refused");
            reply.errno(errno(status));
        }
        Err(panic) => {
            error!(
                panic = panic_text(&*panic),
                "a request panicked; answered EIO"
            );
            reply.errno(Errno::EIO);
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Probe(mpsc::Sender<Result<u32, i32>>);

    impl Answer<u32> for Probe {
        fn value(self, value: u32) {
            self.0.send(Ok(value)).expect("the test waits");
        }

        fn errno(self, code: Errno) {
            self.0.send(Err(code.into())).expect("the test waits");
        }
    }

    fn outcome_of(outcome: Outcome<u32>) -> Result<u32, i32> {
        let (sender, receiver) = mpsc::channel();
        respond(Probe(sender), outcome);
        receiver.try_recv().expect("answered at once")
    }

    #[test]
    fn respond_to_a_panic_is_eio() {
        assert_eq!(outcome_of(Ok(Ok(7))), Ok(7));
        assert_eq!(outcome_of(Ok(Err(Status::NotFound))), Err(libc::ENOENT));
        assert_eq!(outcome_of(Err(Box::new("boom"))), Err(libc::EIO));
    }
}
