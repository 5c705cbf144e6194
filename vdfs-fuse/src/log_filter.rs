//! What a process with a mount logs.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// fuser says "error" whenever the kernel does not want a reply any more, as with every request
/// that was interrupted: nothing that an operator could act on.
const IDLE_TALK: &str = "fuser::reply";

/// Everything up to `level`, less what says nothing.
pub fn log_filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level)
        .with_target(IDLE_TALK, LevelFilter::OFF)
}
