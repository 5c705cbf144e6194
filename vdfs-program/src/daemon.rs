//! The life of a program that serves: ready, watched, asked to stop, stopped.

use std::convert::Infallible;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::failure::{Blame, Failure};
use crate::notify;
use crate::ready::say_ready;
use crate::signals::StopSignals;

/// How long a stop may take.
const STOP_MAX: Duration = Duration::from_secs(9);

/// What serves, on threads of its own.
pub trait Daemon: Sized {
    /// As the program calls itself.
    const PROGRAM: &'static str;

    /// Ends when it can be used: what follows `ready` in its line.
    fn wait_ready(&self) -> impl Future<Output = Result<String, Failure>>;

    /// Ends when the place where it works has taken a turn: never if that hangs.
    fn wait_turn(&self) -> impl Future<Output = ()>;

    fn stop(self);
}

/// Returns when a signal has asked for the end and everything has stopped, or when `daemon` cannot
/// become ready. A further signal ends the process at once.
pub fn serve<D: Daemon>(daemon: D) -> Result<(), Failure> {
    let runtime = runtime()?;
    let served = runtime.block_on(serve_until_asked(&daemon));
    notify::stopping();
    let outcome = served.map(|signals| {
        runtime.spawn(signals.end_at_next(D::PROGRAM, STOP_MAX));
    });
    daemon.stop();
    runtime.shutdown_background();
    outcome
}

/// For signals and the service manager.
fn runtime() -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(1).thread_name("vdfs-signals");
    builder.enable_all().build().blame("runtime")
}

async fn serve_until_asked<D: Daemon>(daemon: &D) -> Result<StopSignals, Failure> {
    let mut signals = StopSignals::watch()?;
    tokio::select! {
        () = signals.next() => Ok(signals),
        Err(failure) = become_ready(daemon) => Err(failure),
        _ = notify::watchdog(async || daemon.wait_turn().await) => unreachable!("it never ends"),
    }
}

async fn become_ready<D: Daemon>(daemon: &D) -> Result<Infallible, Failure> {
    let line = daemon.wait_ready().await?;
    say_ready(&format!("ready {line}"))?;
    std::future::pending().await
}
