//! What a service manager is told (sd_notify(3)). Without one nothing happens.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;

/// `READY=1`, with the state in words.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// `STOPPING=1`
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// The state in words.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// Says that the program lives, twice in each interval of the watchdog, as long as `answers` does;
/// never ends. `answers` must come from where the program works: a program that hangs is silent.
pub async fn watchdog(mut answers: impl AsyncFnMut()) -> Infallible {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|time| !time.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        if tokio::time::timeout(answer_wait(interval), answers())
            .await
            .is_ok()
        {
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// An answer that takes longer is none.
fn answer_wait(interval: Duration) -> Duration {
    interval / 2
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
