//! `vdfs`: parses, runs, and turns the outcome into an exit status and at most one line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = vdfs_cli::run(vdfs_cli::Cli::parse());
    vdfs_program::exit_status("vdfs", outcome)
}
