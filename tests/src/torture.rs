//! Eight workers on two mounts change the same few names at once; what they saw is checked against
//! what one filesystem could have shown.
//!
//! # Promised
//!
//! A call names its directories by descriptors, so no path is walked in it. There is one order of
//! all calls, in which each takes place between its begin and its return, and in which a model
//! filesystem ([`tree`]) gives each the answer that it got, errors included. At the end of a round
//! both mounts show the tree that this order leads to.
//!
//! Some calls look more than once, on a local filesystem too, or because the kernel of each mount
//! looks names up before it asks; each look has a place of its own in the order:
//!
//! - `stat` finds the inode under the name, and then asks how many links that has.
//! - `link` finds the old name's inode, and then gives it the new name; the inode may have lost the
//!   old one meanwhile. It fails with `ENOENT` if it has lost all.
//! - `rename` that fails, or finds that both names are of one inode and does nothing, looks at the
//!   old name, then at the new one. One that succeeds is one step.
//! - Whether a directory would be moved into itself the kernel decides by where it last saw its
//!   directories: `EINVAL`, and `ENOTEMPTY` the other way round, are accepted for where a directory
//!   has been in this round.
//!
//! - With two mounts a call may fail with `ESTALE` or `ELOOP`, and do nothing, when the other mount
//!   has moved a directory: a kernel that meets a directory in a new place has to move its own idea
//!   of it, and does not while it holds the locks of a rename, nor if it takes the new place to be
//!   below the directory (`d_splice_alias` in Linux' `fs/dcache.c`).
//! - A call whose file is removed between the kernel's look at the name and its use may fail with
//!   `ESTALE` if that happens again when the kernel tries once more. A local filesystem would give
//!   the removed file.
//!
//! A listing is no step of the order. A name that is there throughout it is listed exactly once, one
//! that is not there throughout is not listed ([`listing`]); POSIX and local filesystems promise no
//! more.
//!
//! A file's contents name its inode. Whoever opens it sees them whole once the call that made it has
//! returned, and before that nothing or all of them.
//!
//! # How it is checked
//!
//! Rounds of a few calls a worker end in a point where nothing goes on, so that each round can be
//! searched alone, from the tree that the one before has left ([`search`]): depth first, with what
//! was tried remembered (Wing and Gong 1993; Lowe 2017).

pub mod history;
pub mod listing;
pub mod rounds;
pub mod search;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod tree;
mod worker;

pub use history::{Answer, Call, Place, Record, Round};
pub use rounds::{Plan, Summary, Violation, check, run};
