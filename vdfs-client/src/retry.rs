//! The one retry loop: what is tried again, when, and what is known when it ends.

use std::time::Duration;

use vdfs_proto::{RetryClass, Status};

use crate::deadline::Deadline;
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};
use crate::session::Life;

/// Something that can be tried again unchanged: mutations carry the same op id each time.
pub(crate) trait Attempt: Send {
    type Reply: Send;

    /// Tries once.
    fn attempt(&mut self) -> impl Future<Output = Result<Self::Reply, Status>> + Send;

    /// Fetches what [`RetryClass::RefreshTable`] asks for.
    fn refresh(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Ends when what the last attempt went by is out of date: the next one may fare better.
    fn outdated(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Why the loop gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// No answer came to at least one attempt: the peer may have done it.
    pub(crate) in_doubt: bool,
}

/// Tries until there is an answer, the session has ended, or the deadline is over.
pub(crate) async fn retry<A: Attempt>(
    attempt: &mut A,
    life: &Life,
    deadline: Deadline,
) -> Result<A::Reply, Failure> {
    let mut in_doubt = false;
    let fail = |status, in_doubt| Err(Failure { status, in_doubt });
    let mut backoff = Backoff::default();
    loop {
        let tried = deadline.limit(life.unless_ended(attempt.attempt())).await;
        let status = match tried {
            Ok(Ok(Ok(reply))) => return Ok(reply),
            Ok(Ok(Err(status))) => status,
            Ok(Err(ended)) | Err(ended) => return fail(ended, true),
        };
        in_doubt |= leaves_doubt(status);
        let next = next(status);
        if next == Next::Answer {
            return fail(status, in_doubt);
        }
        let rest = rest(attempt, next, &mut backoff);
        let rested = deadline.limit(life.unless_ended(rest)).await;
        if let Ok(Err(over)) | Err(over) = rested {
            return fail(over, in_doubt);
        }
    }
}

/// What lies between two attempts. Nobody pauses over what is known to be out of date, and there is
/// at most one such haste for each piece of news.
async fn rest<A: Attempt>(attempt: &mut A, next: Next, backoff: &mut Backoff) {
    if next == Next::Refresh {
        attempt.refresh().await;
    }
    tokio::select! {
        biased;
        () = attempt.outdated() => *backoff = Backoff::default(),
        () = tokio::time::sleep(backoff.next_pause()) => {}
    }
}

/// What follows a status, the one that promises most last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Next {
    Answer,
    Pause,
    Refresh,
}

pub(crate) fn next(status: Status) -> Next {
    match status.retry_class() {
        // Of one attempt; the operation has a deadline of its own.
        RetryClass::Never if status == Status::DeadlineExceeded => Next::Pause,
        RetryClass::Never | RetryClass::OtherReplica => Next::Answer,
        RetryClass::SamePeer | RetryClass::Reconnect => Next::Pause,
        // A new layout means another plan: the caller's business.
        RetryClass::RefreshTable if matches!(status, Status::Gone | Status::StaleLayout) => {
            Next::Answer
        }
        RetryClass::RefreshTable => Next::Refresh,
    }
}

fn leaves_doubt(status: Status) -> bool {
    matches!(
        status,
        Status::Disconnected | Status::DeadlineExceeded | Status::ShuttingDown
    )
}

/// Pauses that grow from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    pauses: u32,
}

impl Backoff {
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    fn next_pause(&mut self) -> Duration {
        let pause = BACKOFF_MIN
            .saturating_mul(1 << self.pauses.min(16))
            .min(BACKOFF_MAX);
        self.pauses += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_repeats_what_the_status_table_allows_and_nothing_else() {
        let table = [
            (Status::NotFound, Next::Answer),
            (Status::NoSpace, Next::Answer),
            (Status::SessionExpired, Next::Answer),
            (Status::Corrupt, Next::Answer),
            (Status::Gone, Next::Answer),
            (Status::StaleLayout, Next::Answer),
            (Status::NotServing, Next::Refresh),
            (Status::StaleEpoch(vdfs_proto::Epoch(3)), Next::Refresh),
            (Status::Busy, Next::Pause),
            (Status::Disconnected, Next::Pause),
            (Status::ShuttingDown, Next::Pause),
            (Status::DeadlineExceeded, Next::Pause),
        ];
        for (status, expected) in table {
            assert_eq!(next(status), expected, "{status}");
        }
    }

    #[test]
    fn backoff_grows_to_its_bound_and_stays() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next_pause()).collect();
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[39]), (BACKOFF_MIN, BACKOFF_MAX));
    }
}
