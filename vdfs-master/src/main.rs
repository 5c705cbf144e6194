//! `vdfs-master`: parses, runs, and turns the outcome into an exit status and at most one line.

use std::process::ExitCode;

use clap::Parser;
use vdfs_master::program::{Arguments, PROGRAM, run};

fn main() -> ExitCode {
    vdfs_program::exit_status(PROGRAM, run(&Arguments::parse()))
}
