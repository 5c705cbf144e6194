//! `lock-torture [OPTIONS] DIR DIR2`: see [`vdfs_tests::lock_torture`].

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use vdfs_tests::lock_torture::{Plan, Way, run};

/// Counts under locks in processes on two mounts, kills them, and checks that nothing is lost.
#[derive(Debug, Parser)]
struct Args {
    /// The same directory on two mounts.
    #[arg(required = true, num_args = 2)]
    dirs: Vec<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Processes on each mount.
    #[arg(long, default_value_t = 4)]
    workers: usize,
}

fn main() {
    let args = Args::parse();
    let plan = Plan {
        seed: args.seed,
        time: Duration::from_secs(args.seconds),
        workers: args.workers,
        ways: &Way::ALL,
    };
    let summary = run(&args.dirs, plan, |_| {});
    eprintln!("lock-torture: seed {}: {summary:?}", args.seed);
}
