//! Logs: to standard error, or appended to a file.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{LogArgs, LogLevel};
use crate::failure::{Blame, Failure};

/// Sends the logs of this process where the arguments say. Only the first call of a process has an
/// effect.
pub(crate) fn start(args: &LogArgs, default: LogLevel) -> Result<(), Failure> {
    let level = level_filter(args.log.unwrap_or(default));
    let builder = tracing_subscriber::fmt().with_max_level(level);
    let filter = vdfs_fuse::log_filter(level);
    let started = match &args.log_file {
        None => {
            let colours = std::io::stderr().is_terminal();
            builder
                .with_ansi(colours)
                .with_writer(std::io::stderr)
                .finish()
                .with(filter)
                .try_init()
        }
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.blame(format!("log file {}", path.display()))?;
            builder
                .with_ansi(false)
                .with_writer(Mutex::new(file))
                .finish()
                .with(filter)
                .try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
    Ok(())
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
