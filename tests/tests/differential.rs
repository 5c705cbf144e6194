//! Errors, attributes and times of every call, compared with those of a tmpfs.

use std::path::Path;
use std::process::Command;

use vdfs_tests::programs::both_streams;
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    calls_on_one_mount_agree_with_a_tmpfs,
    calls_on_two_mounts_agree_with_a_tmpfs,
);

fn calls_on_one_mount_agree_with_a_tmpfs(way: Way) {
    let vdfs = way.start(Options::default());
    compare(way, 1, &[&vdfs.dir()]);
}

fn calls_on_two_mounts_agree_with_a_tmpfs(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    compare(way, 1_000_000, &[&vdfs.dir(), &second.dir()]);
}

fn compare(way: Way, seed: u64, dirs: &[&Path]) {
    let output = Command::new(env!("CARGO_BIN_EXE_differential"))
        .arg("--seed")
        .arg(seed.to_string())
        .arg("--seconds")
        .arg(way.share(8).to_string())
        .args(dirs)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", both_streams(&output));
}
