//! A volume: a server that holds chunks of files in RAM.
//!
//! [`ram`] makes the place, [`store`] keeps the chunks there, the service answers clients, and
//! [`shell`] ties a volume to its master and `peers` to the others. Which bytes belong to which file, and who may see them, is
//! the master's business: a volume knows chunks, chains, epochs and sessions.

pub mod chain;
mod departed;
mod early;
pub mod engine;
mod handlers;
pub mod limits;
mod merge;
mod node;
mod pace;
mod panics;
mod peers;
pub mod program;
pub mod ram;
mod relay;
mod repair;
mod scrub;
mod service;
pub mod shell;
pub mod store;
mod supplied;
mod supply;

pub use panics::PanicHook;
pub use peers::PeerWays;
pub use ram::{Ram, RamError};
pub use shell::{Registration, Volume, VolumeConfig, VolumeError};
