//! Logs: to standard error, appended to a file, or to syslog.

mod syslog;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Mutex;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::failure::{Blame, Failure};
use syslog::Syslog;

/// fuser says "error" whenever the kernel does not want a reply any more, as with every request
/// that was interrupted: nothing that an operator could act on.
const IDLE_TALK: &str = "fuser::reply";

/// How much to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Where logs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget<'a> {
    StandardError,
    File(&'a Path),
    /// Under the name of the program.
    Syslog(&'static str),
}

impl<'a> LogTarget<'a> {
    /// As `--log-file` says.
    pub fn of(file: Option<&'a Path>) -> LogTarget<'a> {
        file.map_or(LogTarget::StandardError, LogTarget::File)
    }
}

/// Sends the logs of this process to `target`. Only the first call of a process has an effect.
pub fn start(target: LogTarget<'_>, level: LogLevel) -> Result<(), Failure> {
    let layer = layer(target)?;
    let filter = Targets::new()
        .with_default(level.filter())
        .with_target(IDLE_TALK, LevelFilter::OFF);
    let started = tracing_subscriber::registry().with(layer).with(filter);
    if started.try_init().is_err() {
        tracing::debug!("logging had been started before");
    }
    Ok(())
}

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

fn layer(target: LogTarget<'_>) -> Result<Lines, Failure> {
    let lines = tracing_subscriber::fmt::layer();
    Ok(match target {
        LogTarget::StandardError => lines
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .boxed(),
        LogTarget::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.blame(format!("log file {}", path.display()))?;
            lines.with_ansi(false).with_writer(Mutex::new(file)).boxed()
        }
        LogTarget::Syslog(program) => lines
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_writer(Syslog::open(program))
            .boxed(),
    })
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}
