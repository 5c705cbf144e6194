//! `differential [OPTIONS] DIR [DIR2]`: random namespace and attribute calls on a tmpfs and on VDFS,
//! compared; see [`vdfs_tests::differential`]. For root. Status 1 and the calls of a difference.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vdfs_tests::differential::{Target, run};
use vdfs_tests::sys;

/// Random namespace and attribute calls, compared with a tmpfs.
#[derive(Debug, Parser)]
struct Args {
    /// The same directory, once or twice, on one mount each.
    #[arg(required = true, num_args = 1..=2)]
    dirs: Vec<PathBuf>,
    /// Of the first run; each further one has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls of one run.
    #[arg(long, default_value_t = 400)]
    calls: usize,
    /// Runs are begun for this long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Goes on after a difference.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    sys::leave_mounts().expect("root can have mounts of its own");
    let reference = tempfile::tempdir().expect("a directory");
    mount(
        "reference",
        reference.path(),
        "tmpfs",
        MountFlags::empty(),
        None,
    )
    .expect("a tmpfs");
    let target = Target {
        reference: reference.path().to_owned(),
        dirs: args.dirs.clone(),
    };
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let (mut runs, mut differences) = (0, 0);
    while Instant::now() < until && (differences == 0 || args.keep_going) {
        let seed = args.seed + runs;
        runs += 1;
        if let Err(difference) = run(&target, seed, args.calls) {
            differences += 1;
            eprintln!("differential: seed {seed}:\n{difference}");
        }
    }
    let calls = runs * args.calls as u64;
    eprintln!(
        "differential: {runs} runs, {calls} calls on {} mounts, {differences} differences",
        args.dirs.len()
    );
    // Or its directory could not go.
    unmount(reference.path(), UnmountFlags::DETACH).expect("it is ours");
    match differences {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
