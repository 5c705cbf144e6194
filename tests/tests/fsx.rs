//! fsx from crates.io: random reads, writes, truncations and mappings against a model.

use std::fs;

use vdfs_tests::programs::{installed, run};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(fsx_finds_no_difference,);

const OPERATIONS: u32 = 20_000;

/// Everything that it can do.
const CONFIG: &str = "
[opsize]
max = 300000
[weights]
truncate = 10
invalidate = 10
fsync = 5
fdatasync = 5
close_open = 5
punch_hole = 5
copy_file_range = 5
sendfile = 5
posix_fadvise = 5
posix_fallocate = 5
";

fn fsx_finds_no_difference(way: Way) {
    let fsx = installed("fsx", "0.3.2");
    let vdfs = way.start(Options {
        chunk_size: "64KiB",
        ..Options::default()
    });
    let config = vdfs.outside().join("fsx.toml");
    fs::write(&config, CONFIG).expect("writes");
    let operations = way.share(OPERATIONS).to_string();
    for seed in ["1", "2", "3"] {
        let file = vdfs.dir().join(format!("fsx-{seed}"));
        let file = file.to_str().expect("plain");
        let config = config.to_str().expect("plain");
        let program = fsx.to_str().expect("plain");
        run(
            program,
            &["-N", &operations, "-S", seed, "-f", config, file],
            &vdfs.outside(),
        );
    }
}
