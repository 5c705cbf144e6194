//! `--ram` is a contract: full, freed, filled again, under a kernel limit that kills.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use vdfs_tests::cgroup::MemoryCgroup;
use vdfs_tests::{Up, UpOptions, eventually, mount_tests_skipped, pattern};

const RAM_BYTES: u64 = 128 << 20;
const ROUNDS: u32 = 10;

#[test]
fn full_and_freed_ten_times_with_1_mib_files() {
    fill_and_free("mib", 1 << 20, |bytes| {
        assert!(
            bytes >= RAM_BYTES / 10 * 9,
            "only {bytes} bytes fit {RAM_BYTES}"
        );
    });
}

#[test]
fn full_and_freed_ten_times_with_100_byte_files() {
    fill_and_free("small", 100, |bytes| {
        // A page and the kernel's inode each: far from 90 %, but some thousands must fit.
        assert!(bytes >= 100 * 10_000, "only {bytes} bytes fit");
    });
}

fn fill_and_free(name: &str, file_bytes: usize, enough: impl Fn(u64)) {
    if mount_tests_skipped() {
        return;
    }
    let options = UpOptions {
        ram: "128MiB",
        volumes: 1,
        chunk_size: "1MiB",
        ..UpOptions::default()
    };
    let cgroup = MemoryCgroup::with_limit(name, RAM_BYTES + (64 << 20));
    let mut up = Up::start(options);
    up.stop();
    vdfs_tests::up::unmount_lazily(&up.state().join("ram"));
    drop(fs::remove_dir_all(up.state()));
    up.run_again_in(&cgroup);
    for round in 0..ROUNDS {
        let dir = up.mount().join(format!("round-{round}"));
        fs::create_dir(&dir).expect("a directory");
        let files = fill(&dir, file_bytes);
        enough(files * file_bytes as u64);
        verify(&dir, files, file_bytes);
        fs::remove_dir_all(&dir).expect("a full filesystem can be emptied");
        wait_for_room(&up.mount());
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

fn wait_for_room(mount: &Path) {
    eventually(
        "what was removed is free again",
        Duration::from_secs(30),
        || {
            let stats = rustix::fs::statvfs(mount).expect("statvfs");
            (stats.f_blocks - stats.f_bfree) * stats.f_frsize < RAM_BYTES / 20
        },
    );
}
