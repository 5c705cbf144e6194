//! `--ram` is a contract with copies, too: a volume that comes back empty is filled by full ones, each
//! under a kernel limit that kills, and `df` says what fits.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vdfs_tests::cgroup::MemoryCgroup;
use vdfs_tests::filling::{fill, verify};
use vdfs_tests::{Options, Replicated, eventually, mount_tests_skipped};

const MIB: u64 = 1 << 20;
/// Of each volume.
const RAM_MIB: u64 = 96;
/// What the process takes beside it.
const PROCESS_BYTES: u64 = 64 * MIB;
const FILE_BYTES: usize = 1 << 20;
const WITHIN: Duration = Duration::from_secs(60);

/// What `df` shows.
#[derive(Clone, Copy, Debug)]
struct Df {
    total: u64,
    free: u64,
}

fn df(mount: &Path) -> Df {
    let stats = rustix::fs::statvfs(mount).expect("statvfs");
    Df {
        total: stats.f_blocks * stats.f_frsize,
        free: stats.f_bavail * stats.f_frsize,
    }
}

/// Puts each volume into a cgroup of its own. It begins anew there: what it holds belongs to the cgroup
/// in which it was first touched.
fn confine(cluster: &mut Replicated) -> Vec<MemoryCgroup> {
    let limit = RAM_MIB * MIB + PROCESS_BYTES;
    let cgroups: Vec<_> = (0..3).map(|_| MemoryCgroup::with_limit(limit)).collect();
    for (index, cgroup) in cgroups.iter().enumerate() {
        cluster.confine_volume(index, cgroup);
        restart_empty(cluster, index);
        cluster.wait_until_whole();
    }
    cgroups
}

fn restart_empty(cluster: &mut Replicated, index: usize) {
    cluster.volumes[index].kill9();
    cluster.lose_ram(index);
    cluster.volumes[index].start();
}

/// Until it is over: `df` answers and shows no more room than there is, and no volume holds more than it
/// has.
fn watch(cluster: &Replicated, is_over: &AtomicBool) -> u64 {
    let mut looks = 0;
    while !is_over.load(Ordering::Relaxed) {
        let shown = df(&cluster.mounts[1].dir());
        assert!(shown.free <= shown.total, "{shown:?}");
        assert!(shown.total <= 3 * RAM_MIB * MIB, "{shown:?}");
        let status = cluster.json(&["status", "--json"]);
        for volume in status["volumes"].as_array().expect("a list") {
            let number = |key: &str| volume[key].as_u64().expect("a number");
            assert!(number("used_bytes") <= number("ram_bytes"), "{volume}");
        }
        looks += 1;
        thread::sleep(Duration::from_millis(100));
    }
    looks
}

#[test]
fn empty_volume_is_filled_by_full_ones_within_every_budget() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = Replicated::with(Options {
        volumes: 3,
        ram_mib: 3 * RAM_MIB,
        replicas: Some(2),
        chunk_size: "1MiB",
        ..Options::default()
    });
    let cgroups = confine(&mut cluster);
    let (here, there) = (cluster.dir(), cluster.mounts[1].dir());
    let empty = df(&here);
    let dir = here.join("full");
    fs::create_dir(&dir).expect("a directory");
    let files = fill(&dir, FILE_BYTES);
    let full = df(&here);
    eprintln!("{files} files of 1 MiB fit; df empty {empty:?}, full {full:?}");
    for victim in 0..3 {
        restart_empty(&mut cluster, victim);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&cluster, &is_over));
            verify(&there.join("full"), files, FILE_BYTES);
            cluster.wait_until_whole();
            is_over.store(true, Ordering::Relaxed);
            eprintln!("{} looks", watcher.join().expect("every look is right"));
        });
        verify(&dir, files, FILE_BYTES);
        verify(&there.join("full"), files, FILE_BYTES);
    }
    for (index, cgroup) in cgroups.iter().enumerate() {
        assert_eq!(
            cgroup.kills(),
            0,
            "the budget of volume {index} did not hold"
        );
    }
    fs::remove_dir_all(&dir).expect("a full filesystem can be emptied");
    eventually("what was removed is free again", WITHIN, || {
        let now = df(&here);
        now.total - now.free < now.total / 8
    });
    // Placement is even over few files: what df shows can nearly be used.
    let held = files * FILE_BYTES as u64;
    assert!(held >= empty.free / 2, "{held} bytes of {empty:?}");
}
