//! `--ram` is a contract: full, freed, filled again, under a kernel limit that kills.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use vdfs_tests::cgroup::MemoryCgroup;
use vdfs_tests::{Up, UpOptions, eventually, mount_tests_skipped, pattern};

const ROUNDS: u32 = 10;

/// What `--ram` is.
struct Ram {
    bytes: u64,
    text: &'static str,
}

#[test]
fn full_and_freed_ten_times_with_1_mib_files() {
    let ram = Ram {
        bytes: 128 << 20,
        text: "128MiB",
    };
    let enough = ram.bytes / 10 * 9;
    fill_and_free("mib", ram, 1 << 20, enough);
}

#[test]
fn full_and_freed_ten_times_with_100_byte_files() {
    // A page, the kernel's inode and a record each: 100 bytes cost 6 KiB at most.
    let ram = Ram {
        bytes: 32 << 20,
        text: "32MiB",
    };
    let enough = ram.bytes / (6 << 10) * 100;
    fill_and_free("small", ram, 100, enough);
}

fn fill_and_free(name: &str, ram: Ram, file_bytes: usize, enough: u64) {
    if mount_tests_skipped() {
        return;
    }
    let options = UpOptions {
        ram: ram.text,
        volumes: 1,
        chunk_size: "1MiB",
        ..UpOptions::default()
    };
    let cgroup = MemoryCgroup::with_limit(name, ram.bytes + (64 << 20));
    let mut up = Up::start(options);
    up.stop();
    vdfs_tests::up::unmount_lazily(&up.state().join("ram"));
    drop(fs::remove_dir_all(up.state()));
    up.run_again_in(&cgroup);
    for round in 0..ROUNDS {
        let dir = up.mount().join(format!("round-{round}"));
        fs::create_dir(&dir).expect("a directory");
        let files = fill(&dir, file_bytes);
        let held = files * file_bytes as u64;
        assert!(held >= enough, "round {round}: only {held} bytes fit");
        verify(&dir, files, file_bytes);
        fs::remove_dir_all(&dir).expect("a full filesystem can be emptied");
        wait_for_room(&up.mount(), ram.bytes);
    }
    assert_eq!(cgroup.kills(), 0, "the budget did not hold");
}

/// Writes files until there is no room; gives how many are whole.
fn fill(dir: &Path, file_bytes: usize) -> u64 {
    for number in 0u64.. {
        let path = dir.join(number.to_string());
        match write_whole(&path, &pattern::bytes(number, 0, file_bytes)) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                drop(fs::remove_file(path));
                return number;
            }
        }
    }
    unreachable!("the loop ends with the room")
}

/// ENOSPC may come from write, or at the latest from fsync.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn verify(dir: &Path, files: u64, file_bytes: usize) {
    for number in 0..files {
        let bytes = fs::read(dir.join(number.to_string())).expect("an acknowledged file reads");
        assert_eq!(bytes.len(), file_bytes);
        pattern::assert_matches(number, 0, &bytes);
    }
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
