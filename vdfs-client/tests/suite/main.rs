//! The client against a small cluster in memory, with faults.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod append;
mod chains;
mod fake;
mod locking;
mod model;
mod paths;
mod races;
mod reading;
mod recalls;
mod retries;
mod sessions;
mod shutdown;
mod writing;
