//! Requests to stop, and what becomes of a process that is asked twice.

use std::process::exit;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Blame, Failure};

/// Requests to stop: Ctrl-C, SIGTERM, and the end of the terminal.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under nohup(1): the process is to outlive its terminal.
    hangup: Option<Signal>,
}

impl StopSignals {
    /// From now on the signals are seen here. Call it within a runtime.
    pub fn watch() -> Result<StopSignals, Failure> {
        let hangup = if ignores_hangup() {
            None
        } else {
            Some(signal(SignalKind::hangup()).blame("signals")?)
        };
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt()).blame("signals")?,
            terminate: signal(SignalKind::terminate()).blame("signals")?,
            hangup,
        })
    }

    /// Ends at the next request.
    pub async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }

    /// For a program that is stopping: a further request, or `limit`, ends it at once with status 1
    /// and the line `PROGRAM: stop: WHY`.
    pub async fn end_at_next(mut self, program: &str, limit: Duration) {
        let why = tokio::select! {
            () = self.next() => "ended at once, as asked for twice".to_owned(),
            () = tokio::time::sleep(limit) => format!("not done within {} s", limit.as_secs()),
        };
        eprintln!("{program}: stop: {why}; nothing that was acknowledged is lost");
        exit(1);
    }
}

/// What the process was started with (`SigIgn` of proc(5): a bit a signal, from signal 1).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0)
}
