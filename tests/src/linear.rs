//! Clients on two mounts read, write and append to the same few places of two files while servers die
//! and hosts are cut off; what they saw is checked against what one machine could have shown.
//!
//! # Promised
//!
//! - A *register* is an aligned block of 4 KiB of a file that is read and written with `O_DIRECT`. Each
//!   is linearizable: there is an order of its reads and writes, in which each takes place between its
//!   begin and its return, and in which each read gives what the last write before it has written.
//!   A call over the border of two chunks is not atomic: it is a call of each register by itself.
//! - The *log* is a file that is written with `O_APPEND`, a record a call. Each record shows once and
//!   whole, one that was acknowledged is never missing, and the order of records, reads and sizes agrees
//!   with the order in time of calls that did not overlap.
//! - A call that failed, or whose process died, has taken place at some time after its begin, or never.
//!
//! # How it is checked
//!
//! Each register by itself, which is enough as linearizability is local, depth first with what was tried
//! remembered ([`search`]; Wing and Gong 1993; Lowe 2017). The log needs no search: the file itself
//! gives the order ([`log`]).
//!
//! The clients are processes of their own: one with open files on a mount that does not answer could
//! start no server again.

mod check;
mod clients;
pub mod history;
mod log;
mod search;
#[cfg(test)]
mod tests;
mod worker;

pub use check::{Fault, Summary, check};
pub use clients::Clients;
pub use history::History;
pub use worker::{Work, look, make, run};
