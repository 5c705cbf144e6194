//! `fsx2 [OPTIONS] DIR [DIR2]`: random operations on one or two mounts against a model; see
//! [`vdfs_tests::fsx2`]. Status 1 and a log of the steps if something differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use vdfs_tests::fsx2::{Limits, Plan, Step, Target, run, run_steps, shrink};

/// Steps before the failing one that are shown.
const LAST_STEPS: usize = 20;

/// Random operations on one or two mounts of one filesystem, compared with a model.
#[derive(Debug, Parser)]
struct Args {
    /// The same directory, once or twice, on one mount each.
    #[arg(required = true, num_args = 1..=2)]
    dirs: Vec<PathBuf>,
    /// Number of operations.
    #[arg(long, default_value_t = 20_000)]
    ops: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of files.
    #[arg(long, default_value_t = Limits::default().files)]
    files: usize,
    /// Largest file, in bytes.
    #[arg(long, default_value_t = Limits::default().file_bytes_max)]
    file_bytes: u64,
    /// Where the steps of a failing run are written.
    #[arg(long, default_value = "fsx2.log")]
    log: PathBuf,
    /// Do the steps of this log.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// With --replay: leave out the steps that the failure does not need, and write the rest to
    /// --log.
    #[arg(long, requires = "replay")]
    shrink: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let target = Target {
        dirs: args.dirs.clone(),
        prefix: format!("fsx2-{}", args.seed),
    };
    match &args.replay {
        Some(log) => replay(&args, &target, log),
        None => run_plan(&args, &target),
    }
}

fn run_plan(args: &Args, target: &Target) -> ExitCode {
    let limits = Limits {
        files: args.files,
        file_bytes_max: args.file_bytes,
        ..Limits::default()
    };
    let plan = Plan {
        seed: args.seed,
        ops: args.ops,
        limits,
    };
    let begun = Instant::now();
    let outcome = run(target, plan);
    let (seed, mounts, elapsed) = (args.seed, target.dirs.len(), begun.elapsed());
    let Some(failure) = outcome.failure else {
        let mappings = outcome.mappings;
        eprintln!(
            "fsx2: {} operations on {mounts} mounts, seed {seed}, in {elapsed:.1?}; \
             {} shared mappings, {} refused",
            args.ops, mappings.made, mappings.refused
        );
        return ExitCode::SUCCESS;
    };
    let first = outcome.steps.len().saturating_sub(LAST_STEPS);
    for step in &outcome.steps[first..] {
        eprintln!("  {step:?}");
    }
    write_log(&args.log, &outcome.steps);
    let log = args.log.display();
    eprintln!("fsx2: seed {seed}, {mounts} mounts: {failure}");
    eprintln!("fsx2: the steps are in {log}; do them again with --replay {log}");
    ExitCode::FAILURE
}

fn replay(args: &Args, target: &Target, log: &Path) -> ExitCode {
    let steps = read_log(log);
    let Err(failure) = run_steps(target, &steps) else {
        eprintln!("fsx2: {} steps, no difference", steps.len());
        return ExitCode::SUCCESS;
    };
    eprintln!("fsx2: {failure}");
    if args.shrink {
        let kept = shrink(target, &steps);
        for step in &kept {
            eprintln!("  {step:?}");
        }
        write_log(&args.log, &kept);
        eprintln!("fsx2: {} of {} steps are enough", kept.len(), steps.len());
    }
    ExitCode::FAILURE
}

fn write_log(log: &Path, steps: &[Step]) {
    let lines = steps.iter().map(|step| {
        let line = serde_json::to_string(step).expect("a step is plain data");
        line + "\n"
    });
    fs::write(log, lines.collect::<String>()).expect("the log can be written");
}

fn read_log(log: &Path) -> Vec<Step> {
    let text = fs::read_to_string(log).expect("the log can be read");
    let step = |line| serde_json::from_str(line).expect("a line of the log is a step");
    text.lines().map(step).collect()
}
