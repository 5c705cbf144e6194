//! One seed after another until the time of a suite is over.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

const SECONDS: u64 = 6;
const FIRST_SEED: u64 = 1;

/// Runs `scenario` with seed after seed; at least one. A failing one is named in the output.
pub(crate) fn run_seeds<F: Future<Output = ()>>(suite: &str, scenario: impl Fn(u64) -> F) {
    let first = from_environment("VDFS_TEST_SEED", FIRST_SEED);
    let limit = Duration::from_secs(from_environment("VDFS_TEST_SECONDS", SECONDS));
    let runtime = runtime();
    let begun = Instant::now();
    let mut seed = first;
    loop {
        eprintln!("{suite}: VDFS_TEST_SEED={seed}");
        runtime.block_on(scenario(seed));
        seed += 1;
        if begun.elapsed() >= limit {
            break;
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().expect("threads are to be had")
}

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}
