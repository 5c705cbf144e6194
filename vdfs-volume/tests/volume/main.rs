//! A running volume with a master that the test plays.

mod given;
mod master;
mod requests;
mod shell;
