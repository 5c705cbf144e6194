//! The command: start, say so, wait for the end, stop, say what was left.

use std::process::exit;
use std::time::Duration;

use vdfs_client::Fs;

use super::{Stopped, Up, UpConfig};
use crate::args::UpArgs;
use crate::down::stays_line;
use vdfs_program::{Failure, StopSignals, human, notify, say_ready};

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
    say_ready(&up.ready_line())?;
    up.runtime.block_on(wait_for_end(up, signals));
    Ok(())
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

/// Returns at the first request to stop, or when the mount is gone; from then on a further request
/// ends the process at once.
async fn wait_for_end(up: &Up, mut signals: StopSignals) {
    tokio::select! {
        () = signals.next() => {}
        () = up.mount.ended() => tracing::warn!("unmounted by somebody else: stopping"),
        _ = notify::watchdog(async || up.servers.wait_turn().await) => unreachable!("never ends"),
    }
    notify::stopping();
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
