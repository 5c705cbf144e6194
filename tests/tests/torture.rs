//! Eight workers on the same few names of two mounts.

use std::time::Duration;

use vdfs_tests::torture::{Plan, run};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(names_of_two_mounts_change_as_those_of_one_machine,);

/// Fewer overlapping calls than this a round, and the workers have not met.
const OVERLAPS_MIN: u64 = 20;

fn names_of_two_mounts_change_as_those_of_one_machine(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let dirs = [vdfs.dir(), second.dir()];
    let plan = Plan {
        seed: 1,
        time: Duration::from_secs(20),
        workers: 8,
        calls: 5,
    };
    let summary = match run(&dirs, plan) {
        Ok(summary) => summary,
        Err(violation) => panic!("{violation}"),
    };
    eprintln!("{summary:?}");
    assert!(
        summary.overlaps >= OVERLAPS_MIN * summary.rounds,
        "{summary:?}"
    );
    assert!(summary.undecided * 100 <= summary.rounds, "{summary:?}");
}
