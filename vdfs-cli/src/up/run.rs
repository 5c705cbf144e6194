//! The command: start, say so, wait for the end, stop, say what was left.

use std::io::Write;
use std::process::exit;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use vdfs_client::Fs;

use super::{Stopped, Up, UpConfig};
use crate::args::UpArgs;
use crate::down::stays_line;
use crate::failure::{Blame, Failure};
use crate::size::human;

pub(crate) fn run(args: UpArgs) -> Result<(), Failure> {
    // Before there are threads: all of them inherit it.
    vdfs_fuse::become_io_flusher();
    let up = Up::start(&UpConfig::from_args(args)?)?;
    let served = serve(&up);
    let told = tell_stop(&up.stop());
    served.and(told)
}

/// Returns when it is time to stop.
fn serve(up: &Up) -> Result<(), Failure> {
    let signals = up.runtime.block_on(async { StopSignals::watch() })?;
    tell_losses(up)?;
    say_ready(up)?;
    up.runtime.block_on(wait_for_end(up, signals));
    Ok(())
}

/// Requests to stop: Ctrl-C, SIGTERM, and the end of the terminal.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under nohup(1): the process is to outlive its terminal.
    hangup: Option<Signal>,
}

impl StopSignals {
    fn watch() -> Result<StopSignals, Failure> {
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

    async fn next(&mut self) {
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
}

/// What the process was started with (`SigIgn` of proc(5): a bit a signal, from signal 1).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0)
}

fn tell_losses(up: &Up) -> Result<(), Failure> {
    let (files, bytes) = up.lost()?;
    if files > 0 {
        let size = human(bytes);
        eprintln!("vdfs: {files} files ({size}) had their data in RAM that is gone");
        eprintln!("vdfs: reads of them fail; remove them with: vdfs forget-lost");
    }
    Ok(())
}

/// The one line on standard output. Whoever waits for it may read from a pipe.
fn say_ready(up: &Up) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", up.ready_line()).blame("standard output")?;
    stdout.flush().blame("standard output")
}

/// Returns at the first request to stop, or when the mount is gone; from then on a further request
/// ends the process at once.
async fn wait_for_end(up: &Up, mut signals: StopSignals) {
    tokio::select! {
        () = signals.next() => {}
        () = up.mount.ended() => tracing::warn!("unmounted by somebody else: stopping"),
    }
    tokio::spawn(end_at_next_signal(
        signals,
        up.fs.clone(),
        up.mount.detacher(),
    ));
}

async fn end_at_next_signal(mut signals: StopSignals, fs: Fs, detacher: vdfs_fuse::Detacher) {
    signals.next().await;
    let lost = match fs.shutdown(Duration::ZERO).await {
        Ok(()) => "everything was flushed".to_owned(),
        Err(error) => {
            let inodes: Vec<String> = error.inodes.iter().map(|ino| ino.0.to_string()).collect();
            format!("not flushed: inodes {}", inodes.join(", "))
        }
    };
    detacher.detach();
    eprintln!("vdfs: stop: ended at once; {lost}");
    exit(1);
}

fn tell_stop(stopped: &Stopped) -> Result<(), Failure> {
    let dir = stopped.dir.display();
    if !stopped.busy.is_empty() {
        let users = stopped.busy.join(", ");
        eprintln!("vdfs: {dir}: was in use by {users}; detached");
    }
    eprintln!("{}", stays_line(stopped.ram_bytes, &stopped.dir));
    match &stopped.not_flushed {
        Some(why) => Err(Failure::new(format!("stop of {dir}"), why)),
        None => Ok(()),
    }
}
