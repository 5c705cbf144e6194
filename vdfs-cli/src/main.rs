//! `vdfs`: parses, runs, and turns the outcome into an exit status and at most one line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match vdfs_cli::run(vdfs_cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                eprintln!("vdfs: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}
