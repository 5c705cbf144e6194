//! `--ram` is a contract: full, freed, filled again, under a kernel limit that kills.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vdfs_tests::cgroup::MemoryCgroup;
use vdfs_tests::filling::{fill, verify};
use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    full_and_freed_again_and_again_with_1_mib_files,
    full_and_freed_again_and_again_with_100_byte_files,
);

const ROUNDS: u32 = 10;

fn full_and_freed_again_and_again_with_1_mib_files(way: Way) {
    let ram_mib = 128;
    let enough = (ram_mib << 20) / 10 * 9;
    fill_and_free(way, ram_mib, 1 << 20, enough);
}

fn full_and_freed_again_and_again_with_100_byte_files(way: Way) {
    // A page, the kernel's inode and a record each: 100 bytes cost 6 KiB at most.
    let ram_mib = 32;
    let enough = (ram_mib << 20) / (6 << 10) * 100;
    fill_and_free(way, ram_mib, 100, enough);
}

fn fill_and_free(way: Way, ram_mib: u64, file_bytes: usize, enough: u64) {
    let ram_bytes = ram_mib << 20;
    let options = Options {
        ram_mib,
        volumes: 1,
        chunk_size: "1MiB",
        ..Options::default()
    };
    let cgroup = MemoryCgroup::with_limit(ram_bytes + (64 << 20));
    let mut vdfs = way.start(options);
    // What a volume holds belongs to the cgroup in which it was first touched.
    vdfs.stop();
    vdfs.lose_ram();
    vdfs.confine_volumes(&cgroup);
    vdfs.run_again();
    for round in 0..way.share(ROUNDS) {
        let dir = vdfs.dir().join(format!("round-{round}"));
        fs::create_dir(&dir).expect("a directory");
        let files = fill(&dir, file_bytes);
        let held = files * file_bytes as u64;
        assert!(held >= enough, "round {round}: only {held} bytes fit");
        verify(&dir, files, file_bytes);
        fs::remove_dir_all(&dir).expect("a full filesystem can be emptied");
        wait_for_room(&vdfs.dir(), ram_bytes);
    }
    assert_eq!(cgroup.kills(), 0, "the budget did not hold");
}

fn wait_for_room(mount: &Path, ram_bytes: u64) {
    eventually(
        "what was removed is free again",
        Duration::from_secs(30),
        || {
            let stats = rustix::fs::statvfs(mount).expect("statvfs");
            (stats.f_blocks - stats.f_bfree) * stats.f_frsize < ram_bytes / 8
        },
    );
}
