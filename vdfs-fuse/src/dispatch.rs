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
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Waker};

use fuser::Errno;
use futures::FutureExt;
use futures::future::abortable;
use tokio::runtime::Handle;
use tracing::{debug, error, warn};
use vdfs_proto::Status;

use crate::errno::errno;
use crate::reply::Answer;
use crate::watch::{Hears, Watch};

/// What ends the wait of a caller, who is answered `EINTR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A signal that kills it, now or a moment ago: the program cannot do anything with a later
    /// answer.
    Interruptible,
    /// A signal that kills it, now.
    UntilKilled,
    /// Any signal that it does not block or ignore: others may hold it up for ever, and programs set
    /// alarms (fcntl(2)).
    UntilSignal,
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

    /// `caller` is the thread that asked, 0 if there is none.
    pub(crate) fn answer<T, R, W>(&self, caller: u32, patience: Patience, reply: R, work: W)
    where
        T: Send + 'static,
        R: Answer<T>,
        W: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        match self.poll_once(work.as_mut()) {
            Poll::Ready(outcome) => respond(reply, outcome),
            Poll::Pending => self.park(caller, patience, reply, work),
        }
    }

    /// Whoever is to be woken is registered by the task's own first poll.
    fn poll_once<T>(&self, work: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        let _inside = self.runtime.enter();
        work.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn park<T, R, W>(&self, caller: u32, patience: Patience, reply: R, work: Pin<Box<W>>)
    where
        T: Send + 'static,
        R: Answer<T>,
        W: Future<Output = Outcome<T>> + Send + 'static,
    {
        let (work, stop) = abortable(work);
        let hears = match patience {
            Patience::Interruptible => Some(Hears::DeathAndAfter),
            Patience::UntilKilled => Some(Hears::Death),
            Patience::UntilSignal => Some(Hears::Signals),
            Patience::Endless => None,
        };
        let seat = hears.and_then(|hears| self.watch.seat(caller, hears, stop));
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
            if status == Status::DeadlineExceeded {
                tell_given_up();
            }
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

/// Says once that programs get errors instead of waiting.
fn tell_given_up() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        warn!(
            "no answer within the time of the option `timeout`: operations give up with EIO until \
             the servers answer again"
        );
    });
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::process::{Child, Command};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::runtime::Runtime;
    use tokio::sync::oneshot;

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

    fn probe() -> (Probe, mpsc::Receiver<Result<u32, i32>>) {
        let (sender, receiver) = mpsc::channel();
        (Probe(sender), receiver)
    }

    fn dispatcher() -> (Runtime, Dispatcher) {
        let runtime = Runtime::new().expect("a runtime");
        let watch = Arc::new(Watch::start().expect("a thread"));
        let dispatcher = Dispatcher::new(runtime.handle().clone(), watch);
        (runtime, dispatcher)
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn answer_that_is_ready_is_given_in_place() {
        let (_runtime, dispatcher) = dispatcher();
        let here = std::thread::current().id();
        let (reply, answer) = probe();
        dispatcher.answer(0, Patience::Interruptible, reply, async move {
            assert_eq!(std::thread::current().id(), here);
            Err::<u32, _>(Status::NotFound)
        });
        assert_eq!(answer.try_recv(), Ok(Err(libc::ENOENT)));
    }

    #[test]
    fn answer_that_waits_is_given_when_it_is_ready() {
        let (_runtime, dispatcher) = dispatcher();
        let (release, released) = oneshot::channel::<u32>();
        let (reply, answer) = probe();
        dispatcher.answer(0, Patience::Endless, reply, async move {
            released.await.map_err(|_| Status::Internal)
        });
        assert!(answer.try_recv().is_err(), "nothing to answer yet");
        release.send(7).expect("awaited");
        assert_eq!(answer.recv_timeout(SOON), Ok(Ok(7)));
    }

    #[test]
    fn answer_of_a_panic_is_eio_in_place_and_in_a_task() {
        let (_runtime, dispatcher) = dispatcher();
        let (reply, answer) = probe();
        dispatcher.answer(0, Patience::Endless, reply, async { panic!("planted") });
        assert_eq!(answer.try_recv(), Ok(Err(libc::EIO)));
        let (reply, answer) = probe();
        dispatcher.answer(0, Patience::Endless, reply, async {
            tokio::task::yield_now().await;
            panic!("planted")
        });
        assert_eq!(answer.recv_timeout(SOON), Ok(Err(libc::EIO)));
    }

    /// Until it is waited for, a child that was killed looks like a caller on its way out.
    fn killed_child() -> Child {
        let mut child = Command::new("sleep").arg("60").spawn().expect("a process");
        child.kill().expect("alive");
        child
    }

    #[test]
    fn answer_to_a_killed_caller_is_eintr_unless_the_wait_is_endless() {
        let (_runtime, dispatcher) = dispatcher();
        let mut child = killed_child();
        let (endless, unanswered) = probe();
        dispatcher.answer(child.id(), Patience::Endless, endless, pending());
        let (reply, answer) = probe();
        dispatcher.answer(child.id(), Patience::Interruptible, reply, pending());
        assert_eq!(answer.recv_timeout(SOON), Ok(Err(libc::EINTR)));
        assert!(unanswered.try_recv().is_err(), "still waiting");
        child.wait().expect("a child");
    }
}
