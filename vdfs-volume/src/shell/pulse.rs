//! Whether the control thread still takes its turns, for a watchdog.

use tokio::sync::Notify;

/// A question that only a control thread which is not stuck answers.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    asked: Notify,
    answered: Notify,
}

impl Pulse {
    /// Ends when the control thread has answered.
    pub(super) async fn ask(&self) {
        let answered = self.answered.notified();
        tokio::pin!(answered);
        // Before the question, or the answer might be missed.
        answered.as_mut().enable();
        self.asked.notify_one();
        answered.await;
    }

    /// Runs on the control thread, beside its work.
    pub(super) async fn answer(&self) {
        loop {
            self.asked.notified().await;
            self.answered.notify_waiters();
        }
    }
}
