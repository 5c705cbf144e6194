//! A running volume with a master that the test plays.

mod given;
mod giving;
mod master;
mod requests;
mod shell;
