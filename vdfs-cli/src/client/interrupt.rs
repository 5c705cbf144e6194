//! Ctrl-C while files are copied: the first asks the command to clean up behind itself, the second
//! ends it at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use vdfs_program::{Blame, Failure};

/// How long cleaning up may take after the first signal.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// From now on SIGINT and SIGTERM are seen here. Call it within a runtime.
    pub(crate) fn watch() -> Result<Interrupt, Failure> {
        let interrupt = signal(SignalKind::interrupt()).blame("signals")?;
        let terminate = signal(SignalKind::terminate()).blame("signals")?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(wait_for_signals(interrupt, terminate, sender));
        Ok(Interrupt(receiver))
    }

    /// Ends when the command is to stop.
    pub(crate) async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|interrupted| *interrupted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn wait_for_signals(
    mut interrupt: Signal,
    mut terminate: Signal,
    sender: watch::Sender<bool>,
) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    sender.send_replace(true);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = tokio::time::sleep(CLEAN_UP_WAIT) => {}
    }
    std::process::exit(1);
}
