//! Our own fsx, on one mount and on two.

use vdfs_tests::fsx2::{Limits, Mappings, Plan, Target, run};
use vdfs_tests::{Filesystem, Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    fsx2_finds_no_difference_on_one_mount,
    fsx2_finds_no_difference_on_two_mounts,
);

const OPERATIONS: u64 = 20_000;

fn with_small_chunks(way: Way) -> Filesystem {
    way.start(Options {
        chunk_size: "64KiB",
        ..Options::default()
    })
}

fn assert_no_difference(target: &Target, seed: u64) {
    let plan = Plan {
        seed,
        ops: OPERATIONS,
        limits: Limits::default(),
    };
    let outcome = run(target, plan);
    if let Some(failure) = outcome.failure {
        panic!("seed {seed}: {failure}");
    }
    let Mappings { made, refused } = outcome.mappings;
    assert!(
        made > refused / 4,
        "{made} mappings made, {refused} refused"
    );
}

fn fsx2_finds_no_difference_on_one_mount(way: Way) {
    let vdfs = with_small_chunks(way);
    let target = Target {
        dirs: vec![vdfs.dir()],
        prefix: "one".into(),
    };
    assert_no_difference(&target, 1);
}

fn fsx2_finds_no_difference_on_two_mounts(way: Way) {
    let vdfs = with_small_chunks(way);
    let second = vdfs.second_mount();
    let target = Target {
        dirs: vec![vdfs.dir(), second.dir()],
        prefix: "two".into(),
    };
    assert_no_difference(&target, 2);
}
