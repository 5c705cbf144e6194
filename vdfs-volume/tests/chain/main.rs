//! The real cores of chains and of the master in a simulated world: virtual time, a network, disks and processes that fail
//! as a seed says, and checks after every step.
//!
//! `VDFS_SIM_SEEDS=10000 VDFS_SIM_FIRST=1 cargo test --release -p vdfs-volume --test chain` runs more
//! seeds than the short form; `VDFS_SIM_SEEDS=1 VDFS_SIM_FIRST=77` the one that failed, and with
//! `VDFS_SIM_TRACE=1` it prints every step of the volumes' cores. With
//! `--features planted-bugs` each mistake that can be switched on must be found.

mod client;
mod conversation;
mod faults;
mod history;
mod master;
mod merging;
mod message;
mod network;
mod node;
mod report;
mod rng;
mod shelf;
mod supplied;
mod supplying;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use report::{Counts, EXPECTED};

/// Fewer steps than this are no simulation.
const STEPS_MIN: u64 = 200;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn chains_under_faults_lose_nothing_and_converge() {
    let first = from_environment("VDFS_SIM_FIRST", 1);
    let seeds = from_environment("VDFS_SIM_SEEDS", 500);
    let mut total = Counts::default();
    for seed in first..first + seeds {
        let run = catch_unwind(AssertUnwindSafe(|| world::run(seed)));
        let counts = run.unwrap_or_else(|_| panic!("VDFS_SIM_SEEDS=1 VDFS_SIM_FIRST={seed}"));
        assert!(counts.get("steps") >= STEPS_MIN, "seed {seed}: {counts:?}");
        total.merge(&counts);
    }
    println!("{seeds} seeds from {first}:");
    total.print();
    for kind in EXPECTED {
        assert!(
            seeds < 100 || total.get(kind) > 0,
            "no {kind} in {seeds} seeds"
        );
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn chains_with_a_planted_bug_are_found_within_1000_seeds() {
    use vdfs_volume::chain::planted::{Bug, switch};

    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        switch(Some(bug));
        let fails = |seed: &u64| catch_unwind(AssertUnwindSafe(|| world::run(*seed))).is_err();
        let found = (1..=1000).find(fails);
        switch(None);
        match found {
            Some(seed) => println!("{bug:?}: found by seed {seed}"),
            None => missed.push(bug),
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
