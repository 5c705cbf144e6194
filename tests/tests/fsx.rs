//! fsx from crates.io: random reads, writes, truncations and mappings against a model.

use std::fs;

use vdfs_tests::programs::{installed, run};
use vdfs_tests::{Up, UpOptions, mount_tests_skipped};

const OPERATIONS: &str = "20000";

/// What this filesystem answers with EOPNOTSUPP is left out; everything else is on.
const CONFIG: &str = "
[opsize]
max = 300000
[weights]
truncate = 10
invalidate = 10
fsync = 5
fdatasync = 5
close_open = 5
punch_hole = 0
copy_file_range = 0
sendfile = 5
posix_fadvise = 5
posix_fallocate = 5
";

#[test]
fn fsx_finds_no_difference_in_20_000_operations() {
    if mount_tests_skipped() {
        return;
    }
    let fsx = installed("fsx", "0.3.2");
    let up = Up::start(UpOptions {
        chunk_size: "64KiB",
        ..UpOptions::default()
    });
    let config = up.outside().join("fsx.toml");
    fs::write(&config, CONFIG).expect("writes");
    for seed in ["1", "2", "3"] {
        let file = up.mount().join(format!("fsx-{seed}"));
        let file = file.to_str().expect("plain");
        let config = config.to_str().expect("plain");
        let program = fsx.to_str().expect("plain");
        run(
            program,
            &["-N", OPERATIONS, "-S", seed, "-f", config, file],
            &up.outside(),
        );
    }
}
