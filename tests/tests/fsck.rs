//! `vdfs fsck`: says nothing of what is sound, also beside writers; finds what was planted; repairs what has
//! a good copy.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use vdfs_proto::sums::crc32c;
use vdfs_tests::chunk_files::chunk_files;
use vdfs_tests::programs::shell;
use vdfs_tests::under_change::{check_files, write_files};
use vdfs_tests::{Options, Replicated, eventually, mount_tests_skipped, pattern};

const BLOCK_BYTES: usize = 4096;
const WAIT: Duration = Duration::from_secs(60);

fn cluster(volumes: u32, replicas: u32) -> Replicated {
    Replicated::with(Options {
        volumes,
        ram_mib: 1024,
        replicas: Some(replicas),
        ..Options::default()
    })
}

/// Exit status, and what it says.
fn fsck(cluster: &Replicated, args: &[&str]) -> (Option<i32>, Value) {
    let output = cluster.vdfs(&[&["fsck", "--json"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout);
    let json = json.unwrap_or_else(|_| panic!("no JSON: {said}"));
    (output.status.code(), json)
}

/// Kinds and paths of what was found.
fn flaws(found: &Value) -> BTreeSet<(String, String)> {
    let list = found["findings"].as_array().expect("a list").iter();
    let text = |flaw: &Value, key: &str| flaw[key].as_str().unwrap_or("").to_owned();
    list.map(|flaw| (text(flaw, "kind"), text(flaw, "path")))
        .collect()
}

fn expected<const N: usize>(flaws: [(&str, &str); N]) -> BTreeSet<(String, String)> {
    flaws.map(|(kind, path)| (kind.into(), path.into())).into()
}

#[test]
fn fsck_finds_nothing_in_a_sound_filesystem_that_is_written_to() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(3, 2);
    let (here, there) = (cluster.mounts[0].dir(), cluster.mounts[1].dir());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers = [(&here, 0), (&there, 1)].map(|(dir, seed)| {
            let is_over = &is_over;
            scope.spawn(move || write_files(dir, seed, is_over))
        });
        let remover = scope.spawn(|| {
            let mut number = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                let path = there.join(format!("short-lived-{}", number % 7));
                pattern::write_file(&path, number, 1 + number as usize * 777 % 100_000);
                if number.is_multiple_of(3) {
                    fs::remove_file(path).expect("removes");
                }
                number += 1;
            }
        });
        for round in 0..5 {
            if round == 3 {
                cluster.volumes[1].kill9();
                cluster.volumes[1].start();
                cluster.wait_until_whole();
            }
            let (code, found) = fsck(&cluster, &[]);
            assert!(flaws(&found).is_empty() && code == Some(0), "{found}");
        }
        is_over.store(true, Ordering::Relaxed);
        remover.join().expect("goes on");
        for writer in writers {
            check_files(&here, &writer.join().expect("goes on").written);
        }
    });
    let (code, found) = fsck(&cluster, &["--repair"]);
    assert_eq!((code, &found["ok"]), (Some(0), &true.into()), "{found}");
    assert!(found["files"].as_u64() > Some(10) && found["chunks"].as_u64() > Some(20));
}

fn copy_ram(from: &Path, to: &Path) {
    let (from, to) = (from.display(), to.display());
    shell(
        &format!("mkdir -p {to}; find {to} -mindepth 1 -delete; cp -a {from}/. {to}/"),
        Path::new("/"),
    );
}

/// A chunk file in the RAM of a volume that begins as `bytes` do.
fn chunk_file(ram: &Path, bytes: &[u8]) -> PathBuf {
    let begins = |path: &PathBuf| fs::read(path).expect("reads").starts_with(bytes);
    chunk_files(ram)
        .into_iter()
        .find(begins)
        .expect("a chunk begins so")
}

/// The volume comes back with RAM of an earlier time, and without a chunk that it had then.
#[test]
fn fsck_finds_what_an_earlier_ram_lacks_and_drops_what_it_has_too_much() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(1, 1);
    let (here, there) = (cluster.mounts[0].dir(), cluster.mounts[1].dir());
    let ram = cluster.volume_state(0).join("ram");
    let saved = cluster.volume_state(0).join("saved");
    pattern::write_file(&here.join("sound"), 1, 100_000);
    pattern::write_file(&here.join("shorter"), 2, 1_000);
    pattern::write_file(&here.join("damaged"), 3, 10_000);
    pattern::write_file(&here.join("removed"), 4, 3_000_000);
    cluster.volumes[0].kill9();
    copy_ram(&ram, &saved);
    cluster.volumes[0].start();
    let mut longer = OpenOptions::new().append(true).open(here.join("shorter"));
    let longer = longer.as_mut().expect("opens");
    longer.write_all(&[7; 5_000]).expect("appends");
    longer.sync_all().expect("syncs");
    pattern::write_file(&here.join("later"), 5, 10_000);
    let used = |cluster: &Replicated| {
        let used = cluster.status()["volumes"][0]["used_bytes"].as_u64();
        used.expect("a number")
    };
    let full = used(&cluster);
    fs::remove_file(here.join("removed")).expect("removes");
    eventually("what was removed is dropped", WAIT, || {
        used(&cluster) + 2_500_000 < full
    });
    cluster.volumes[0].kill9();
    copy_ram(&saved, &ram);
    let gone = chunk_file(&ram, &pattern::bytes(3, 0, 1000));
    fs::remove_file(gone).expect("removes");
    cluster.volumes[0].start();
    cluster.wait_until_whole();
    let (code, found) = fsck(&cluster, &[]);
    let unmended = [
        ("short", "/shorter"),
        ("missing", "/later"),
        ("damaged", "/damaged"),
    ];
    let mut all = expected(unmended);
    all.insert(("orphaned".into(), String::new()));
    assert_eq!((code, flaws(&found)), (Some(1), all), "{found}");
    let used_before = used(&cluster);
    let (code, found) = fsck(&cluster, &["--repair"]);
    assert_eq!(
        (code, flaws(&found)),
        (Some(1), expected(unmended)),
        "{found}"
    );
    eventually("the orphan is dropped", WAIT, || {
        used(&cluster) + 2_500_000 < used_before
    });
    assert!(fs::read(there.join("sound")).expect("reads") == pattern::bytes(1, 0, 100_000));
    for name in ["shorter", "later", "damaged"] {
        let read = fs::read(there.join(name)).expect_err("it is not there");
        assert_eq!(read.raw_os_error(), Some(libc::EIO), "{name}");
        pattern::write_file(&here.join(name), 6, 10_000);
    }
    assert_eq!(fsck(&cluster, &[]).0, Some(0));
}

/// Changes a block, and its sum alike, so that nothing but the other copy shows it.
fn forge(ram: &Path, bytes: &[u8]) {
    let path = chunk_file(ram, &bytes[..1000]);
    let mut block = bytes[..BLOCK_BYTES].to_vec();
    let before = crc32c(&block).to_le_bytes();
    block[17] ^= 1;
    let after = crc32c(&block).to_le_bytes();
    let open = |path: &Path| OpenOptions::new().write(true).open(path).expect("opens");
    open(&path)
        .write_all_at(&block[17..18], 17)
        .expect("writes");
    let sums = fs::read(ram.join("sums")).expect("reads");
    let at = sums.chunks_exact(4).position(|sum| sum == before);
    let at = 4 * at.expect("the sum is there") as u64;
    open(&ram.join("sums"))
        .write_all_at(&after, at)
        .expect("writes");
}

#[test]
fn fsck_finds_copies_that_differ_and_has_one_made_again() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(3, 2);
    let (here, there) = (cluster.mounts[0].dir(), cluster.mounts[1].dir());
    let seeds = 1..20;
    for seed in seeds.clone() {
        pattern::write_file(&here.join(seed.to_string()), seed, 20_000);
    }
    // What readers have been shown is the last one's.
    let is_first = |seed: &u64| cluster.members(&format!("/{seed}"))[0][0] == "volume-1";
    let forged: Vec<u64> = seeds.clone().filter(is_first).take(3).collect();
    assert!(!forged.is_empty());
    for seed in &forged {
        let ram = cluster.volume_state(0).join("ram");
        forge(&ram, &pattern::bytes(*seed, 0, 20_000));
    }
    let (code, found) = fsck(&cluster, &[]);
    let paths = forged.iter().map(|seed| format!("/{seed}"));
    let all: BTreeSet<_> = paths.map(|path| ("mismatched".to_owned(), path)).collect();
    assert_eq!((code, flaws(&found)), (Some(1), all), "{found}");
    assert_eq!(found["findings"][0]["volume"], "volume-1");
    let (code, found) = fsck(&cluster, &["--repair"]);
    assert_eq!((code, &found["ok"]), (Some(0), &true.into()), "{found}");
    assert_eq!(found["repaired"].as_u64(), Some(forged.len() as u64));
    for victim in [1, 2] {
        cluster.volumes[victim].kill9();
        for seed in seeds.clone() {
            let bytes = fs::read(there.join(seed.to_string())).expect("reads");
            assert!(bytes == pattern::bytes(seed, 0, 20_000), "file {seed}");
        }
        cluster.volumes[victim].start();
        cluster.wait_until_whole();
    }
}
