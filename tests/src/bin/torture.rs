//! `torture [OPTIONS] DIR [DIR2]`: many workers on the same few names; see [`vdfs_tests::torture`].
//! Status 1 and a log of the round if it shows what one filesystem could not have shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use vdfs_tests::torture::{Plan, Round, check, run};

/// Changes the same few names from many workers on one or two mounts, and checks what they saw.
#[derive(Debug, Parser)]
struct Args {
    /// The same directory, once or twice, on one mount each. It is emptied.
    #[arg(required = true, num_args = 1..=2)]
    dirs: Vec<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long new rounds begin.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// Calls of each worker in a round.
    #[arg(long, default_value_t = 5)]
    calls: usize,
    /// Where the round of a violation is written.
    #[arg(long, default_value = "torture.log")]
    log: PathBuf,
    /// Check the round in this log, and run nothing.
    #[arg(long)]
    check: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.check {
        Some(log) => check_log(log),
        None => run_plan(&args),
    }
}

fn run_plan(args: &Args) -> ExitCode {
    let plan = Plan {
        seed: args.seed,
        time: Duration::from_secs(args.seconds),
        workers: args.workers,
        calls: args.calls,
    };
    match run(&args.dirs, plan) {
        Ok(summary) => {
            eprintln!("torture: seed {}: {summary:?}", args.seed);
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("torture: seed {}: {violation}", args.seed);
            if let Some(round) = &violation.round {
                let text = serde_json::to_string(round).expect("a round is plain data");
                fs::write(&args.log, text).expect("the log can be written");
                eprintln!("torture: the round is in {}", args.log.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn check_log(log: &Path) -> ExitCode {
    let text = fs::read_to_string(log).expect("the log can be read");
    let round: Round = serde_json::from_str(&text).expect("the log holds a round");
    match check(&round) {
        Ok(is_decided) => {
            eprintln!("torture: explained: {is_decided}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("torture: {fault:?}");
            ExitCode::FAILURE
        }
    }
}
