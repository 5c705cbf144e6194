//! The master: the namespace in RAM behind an operation log. Never on the data path.
//!
//! A request comes in through [`dispatch`] (who asks, what is asked), waits in the queue of the
//! [`shell`], is decided by the [`core`], and is answered when the records of its turn are in the
//! [`log`]. A start loads the newest [`checkpoint`] and replays the log behind it.
//!
//! Invariant: only [`core`] decides, and it does nothing else; whatever touches files, threads or
//! clocks is outside of it.

mod certificates;
pub mod checkpoint;
pub mod core;
pub mod disk;
mod dispatch;
pub mod format;
mod handlers;
pub mod limits;
pub mod log;
pub mod meta;
pub mod metrics;
pub mod program;
pub mod pulse;
pub mod shell;

pub use shell::{AbortHook, FsConfig, Master, MasterConfig, MasterError};
