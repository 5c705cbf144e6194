//! Our own fsx, on one mount and on two.

use vdfs_tests::fsx2::{Limits, Plan, Target, run};
use vdfs_tests::{SecondMount, Up, UpOptions, mount_tests_skipped};

const OPERATIONS: u64 = 20_000;

fn up_with_small_chunks() -> Up {
    Up::start(UpOptions {
        chunk_size: "64KiB",
        ..UpOptions::default()
    })
}

fn assert_no_difference(target: &Target, seed: u64) {
    let plan = Plan {
        seed,
        ops: OPERATIONS,
        limits: Limits::default(),
    };
    if let Some(failure) = run(target, plan).failure {
        panic!("seed {seed}: {failure}");
    }
}

#[test]
fn fsx2_finds_no_difference_on_one_mount() {
    if mount_tests_skipped() {
        return;
    }
    let up = up_with_small_chunks();
    let target = Target {
        dirs: vec![up.mount()],
        prefix: "one".into(),
    };
    assert_no_difference(&target, 1);
}

#[test]
fn fsx2_finds_no_difference_on_two_mounts() {
    if mount_tests_skipped() {
        return;
    }
    let up = up_with_small_chunks();
    let second = SecondMount::of(&up);
    let target = Target {
        dirs: vec![up.mount(), second.dir()],
        prefix: "two".into(),
    };
    assert_no_difference(&target, 2);
}
