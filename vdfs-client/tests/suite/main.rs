//! The client against a small cluster in memory, with faults.

mod append;
mod fake;
mod model;
mod paths;
mod reading;
mod recalls;
mod retries;
mod sessions;
mod shutdown;
mod writing;
