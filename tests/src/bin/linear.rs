//! `linear work DIR` and `linear check HISTORY`: see [`vdfs_tests::linear`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use vdfs_tests::linear::{History, Work, check, run};

/// Clients that read, write and append to the same few places, and the check of what they saw.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Work on the files in a directory until standard input ends; say of each call when it begins and
    /// when it has returned.
    Work {
        dir: PathBuf,
        #[arg(long, default_value_t = 0)]
        mount: u32,
        #[arg(long, default_value_t = 1)]
        first_client: u32,
        #[arg(long, default_value_t = 4)]
        clients: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// All clients meet at multiples of it.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
        beat_ms: u64,
    },
    /// Check a history that was kept; status 1 if one machine could not have shown it.
    Check { history: PathBuf },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Mode::Work {
            dir,
            mount,
            first_client,
            clients,
            seed,
            beat_ms,
        } => {
            let work = Work {
                dir,
                mount,
                first_client,
                clients,
                seed,
                beat: Duration::from_millis(beat_ms),
            };
            run(&work).expect("the clients work");
            ExitCode::SUCCESS
        }
        Mode::Check { history } => {
            let history = History::load(&history).expect("the file holds a history");
            match check(&history) {
                Ok(summary) => {
                    eprintln!("linear: {summary:?}");
                    ExitCode::SUCCESS
                }
                Err(fault) => {
                    eprintln!("linear: {fault}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
