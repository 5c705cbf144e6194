//! What the programs of VDFS have in common at their edges: the words of the command line and of
//! the config file, logs, signals, the ready line, what systemd is told, and how they fail.
//!
//! Knows nothing of filesystems or networks. It is a crate of its own because four programs share
//! it, and the network crate, the only other one below all of them, need not know clap.

pub mod client;
pub mod config;
mod daemon;
mod failure;
pub mod logs;
pub mod masters;
mod memory;
pub mod notify;
pub mod places;
mod ready;
pub mod signals;
mod size;
mod time;

pub use config::{ConfigArgs, Settings};
pub use daemon::{Daemon, serve};
pub use failure::{Blame, Failure, exit_status, one_line};
pub use logs::{LogLevel, LogTarget};
pub use memory::available_bytes;
pub use ready::{print, say_ready};
pub use signals::StopSignals;
pub use size::{Size, SizeError, human};
pub use time::{Time, TimeError};
