//! How long the caller of one operation waits.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use vdfs_proto::Status;

/// A moment, or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) const NEVER: Deadline = Deadline(None);

    pub(crate) fn after(time: Option<Duration>) -> Self {
        Deadline(time.map(|time| Instant::now() + time))
    }

    /// The output of `future`, or `DeadlineExceeded`.
    pub(crate) async fn limit<F: Future>(self, future: F) -> Result<F::Output, Status> {
        match self.0 {
            None => Ok(future.await),
            Some(at) => timeout_at(at, future)
                .await
                .map_err(|_| Status::DeadlineExceeded),
        }
    }
}
