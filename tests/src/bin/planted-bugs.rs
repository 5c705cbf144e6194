//! Plants one bug after the other in a copy of what is checked in, and runs the general suites of
//! the master on it: a bug that none of them finds shows that a suite is broken.
//!
//! The bugs are `tests/planted/*.patch`, a line or two of production code each. None of the suites
//! knows of any of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use clap::Parser;
use tempfile::TempDir;

/// The model, crashes and failures of the disk, random faults.
const SUITES: [&str; 4] = [
    "core::tests::exact::",
    "core::tests::chaos::",
    "crash_sweep::",
    "shell::tests::master_killed_at_any_acknowledgement",
];

#[derive(Debug, Parser)]
struct Arguments {
    /// Plants only the bugs whose names contain this.
    #[arg(default_value = "")]
    only: String,
    /// Where the copies are built; kept for the next run.
    #[arg(long)]
    target: Option<PathBuf>,
    /// Of the suites that choose at random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = arguments.target.unwrap_or(root.join("target/planted"));
    let copy = check_out(&root);
    let (mut planted, mut missed) = (0, 0);
    for patch in patches(&root.join("tests/planted"), &arguments.only) {
        let name = patch.file_stem().expect("a patch has a name");
        git_apply(copy.path(), &patch, &[]);
        let output = run_suites(copy.path(), &target, arguments.seed);
        git_apply(copy.path(), &patch, &["--reverse"]);
        planted += 1;
        missed += u32::from(!report(&name.to_string_lossy(), &output));
    }
    eprintln!(
        "{planted} bugs planted, {missed} not found (seed {})",
        arguments.seed
    );
    match planted > 0 && missed == 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn patches(dir: &Path, only: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("there are planted bugs");
    let paths = entries.map(|entry| entry.expect("lists").path());
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".patch") && name.contains(only)
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_wanted).collect();
    paths.sort();
    paths
}

fn check_out(root: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    let archive = copy.path().join("archive.tar");
    let mut git = Command::new("git");
    git.current_dir(root).args(["archive", "HEAD", "--output"]);
    run(git.arg(&archive));
    let mut tar = Command::new("tar");
    run(tar.current_dir(copy.path()).args(["-xf", "archive.tar"]));
    copy
}

fn git_apply(copy: &Path, patch: &Path, options: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(copy).arg("apply").args(options);
    run(git.arg(fs::canonicalize(patch).expect("is there")));
}

fn run(command: &mut Command) {
    let status = command.status().expect("the program is installed");
    assert!(status.success(), "{command:?}");
}

fn run_suites(copy: &Path, target: &Path, seed: u64) -> Output {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(copy);
    cargo.args(["test", "--locked", "-p", "vdfs-master", "--lib", "--"]);
    cargo.args(SUITES);
    cargo.env("CARGO_TARGET_DIR", target);
    cargo.env("PROPTEST_RNG_SEED", seed.to_string());
    cargo.output().expect("cargo runs")
}

/// Says which suites have found the bug; false if none has.
fn report(name: &str, output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = text.lines().filter_map(|line| {
        let test = line.strip_prefix("test ")?;
        test.strip_suffix(" ... FAILED")
    });
    let failed: Vec<&str> = failed.collect();
    eprintln!(
        "{name}: {}",
        if failed.is_empty() {
            "NOT FOUND"
        } else {
            "found by"
        }
    );
    for test in &failed {
        match cases_before(&text, test) {
            Some(cases) => eprintln!("    {test}, after {cases} cases"),
            None => eprintln!("    {test}"),
        }
    }
    if failed.is_empty() {
        // Perhaps it did not even compile.
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    !failed.is_empty()
}

/// How many random cases a test took well before the one that failed, if it makes any.
fn cases_before<'a>(text: &'a str, test: &str) -> Option<&'a str> {
    let (_, told) = text.split_once(&format!("---- {test} stdout ----"))?;
    let told = told.split("\n---- ").next()?;
    let mut lines = told.lines();
    lines.find_map(|line| line.trim().strip_prefix("successes: "))
}
