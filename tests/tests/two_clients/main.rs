//! Clients against a real master and real volumes in this process, over the in-process carrier:
//! every byte is held against a model, while masters, volumes and clients end and return.
//!
//! Each suite runs one seed after another for `VDFS_TEST_SECONDS` (default 6) from `VDFS_TEST_SEED`
//! (default 1) on, and prints them; a failure names its seed.

mod away;
mod churn;
mod cluster;
mod lanes;
mod locks;
mod log_growth;
mod one_file;
mod permissions;
mod same_name;
mod seeds;
mod tails;
mod wires;
