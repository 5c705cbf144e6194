//! Two copies of everything, on volumes that die: programs notice a pause and no error, nothing that
//! was acknowledged is lost, and the chains are whole again by themselves.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vdfs_tests::journal::Journal;
use vdfs_tests::part::Part;
use vdfs_tests::{Cluster, Network, Options, eventually, mount_tests_skipped, pattern};

/// From the last fault to chains that are whole.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// What a program may wait when a volume dies: its lease, the new epoch, and a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A master, three volumes and two mounts, each on a host of its own. One cluster at a time.
fn cluster(replicas: u32) -> (MutexGuard<'static, ()>, Cluster) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let options = Options {
        volumes: 3,
        ram_mib: 2048,
        replicas,
        ..Options::default()
    };
    let cluster = Cluster::start(options, Network::Hosts { mtu: 1500 }, 2);
    (turn, cluster)
}

fn status(cluster: &Cluster) -> Value {
    let output = cluster.vdfs(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn wait_until_whole(cluster: &Cluster) {
    eventually("all chains are whole", WHOLE_WITHIN, || {
        let chains = &status(cluster)["chains"];
        chains["total"].as_u64() > Some(0) && chains["whole"] == chains["total"]
    });
}

/// Files of one writer, each written, synced and then read by the other mount.
struct Load {
    written: Vec<(u64, usize)>,
    longest: Duration,
}

fn write_files(dir: &Path, seed: u64, is_over: &AtomicBool) -> Load {
    let mut load = Load {
        written: Vec::new(),
        longest: Duration::ZERO,
    };
    let mut number = seed;
    while !is_over.load(Ordering::Relaxed) {
        let len = 1 + (number as usize * 7919) % 300_000;
        let begun = Instant::now();
        let mut file = File::create(dir.join(number.to_string())).expect("makes a file");
        file.write_all(&pattern::bytes(number, 0, len))
            .expect("writes");
        file.sync_all().expect("syncs");
        load.longest = load.longest.max(begun.elapsed());
        load.written.push((number, len));
        thread::sleep(Duration::from_millis(5));
        number += 2;
    }
    load
}

/// Rewrites places of one file; what was synced last at each place is what must be there.
fn rewrite(path: &Path, is_over: &AtomicBool) -> Vec<u64> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = file.expect("opens");
    let mut synced = vec![0; 64];
    let mut round = 1;
    while !is_over.load(Ordering::Relaxed) {
        for (place, synced) in synced.iter_mut().enumerate() {
            let bytes = pattern::bytes(round * 64 + place as u64, 0, 5000);
            file.write_all_at(&bytes, place as u64 * 20_000)
                .expect("writes");
            file.sync_data().expect("syncs");
            *synced = round;
        }
        round += 1;
    }
    synced
}

fn check_files(dir: &Path, written: &[(u64, usize)]) {
    for (number, len) in written {
        let bytes = fs::read(dir.join(number.to_string())).expect("reads");
        assert!(
            bytes == pattern::bytes(*number, 0, *len),
            "file {number} differs"
        );
    }
}

fn check_rewritten(path: &Path, synced: &[u64]) {
    let file = File::open(path).expect("opens");
    for (place, round) in synced.iter().enumerate() {
        let mut bytes = vec![0; 5000];
        file.read_exact_at(&mut bytes, place as u64 * 20_000)
            .expect("reads");
        let is = |round: u64| bytes == pattern::bytes(round * 64 + place as u64, 0, 5000);
        assert!(is(*round) || is(*round + 1), "place {place}, round {round}");
    }
}

/// One on each mount.
struct Journals([Journal; 2]);

impl Journals {
    const NAMES: [&str; 2] = ["journal-1", "journal-2"];

    fn start(cluster: &Cluster) -> Journals {
        Journals([0, 1].map(|seed| {
            let dir = cluster.mounts[seed].dir();
            Journal::start(&dir.join(Self::NAMES[seed]), seed as u64)
        }))
    }

    /// Waits until each has so many more records acknowledged.
    fn go_on(&self, records: u64) {
        let acknowledged = || self.0.each_ref().map(Journal::acknowledged);
        let before = acknowledged();
        eventually("the journals are written", WHOLE_WITHIN, || {
            let mut both = acknowledged().into_iter().zip(before);
            both.all(|(now, before)| now > before + records)
        });
    }

    /// No program has noticed, and all that was acknowledged is there, on each mount.
    fn check(self, cluster: &Cluster) {
        for (journal, name) in self.0.into_iter().zip(Self::NAMES) {
            let written = journal.finish();
            assert_eq!(written.errno, None, "no program notices");
            for mount in &cluster.mounts {
                written.check(&mount.dir().join(name));
            }
        }
    }
}

#[test]
fn volumes_that_are_killed_one_after_the_other_are_missed_by_nobody() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster(2);
    wait_until_whole(&cluster);
    let (here, there) = (cluster.mounts[0].dir(), cluster.mounts[1].dir());
    for round in 0..3 {
        let victim = round % 3;
        let dir = here.join(format!("round-{round}"));
        fs::create_dir(&dir).expect("makes");
        let is_over = AtomicBool::new(false);
        let rewritten = dir.join("rewritten");
        thread::scope(|scope| {
            let writers = [0, 1].map(|seed| {
                let (dir, is_over) = (&dir, &is_over);
                scope.spawn(move || write_files(dir, seed, is_over))
            });
            let rewriter = scope.spawn(|| rewrite(&rewritten, &is_over));
            thread::sleep(Duration::from_secs(1));
            cluster.volumes[victim].kill9();
            wait_until_whole(&cluster);
            thread::sleep(Duration::from_secs(1));
            is_over.store(true, Ordering::Relaxed);
            let synced = rewriter.join().expect("no program notices");
            let dir = there.join(format!("round-{round}"));
            for writer in writers {
                let load = writer.join().expect("no program notices");
                println!("{} files, longest {:?}", load.written.len(), load.longest);
                assert!(load.longest < PAUSE_MAX, "{:?}", load.longest);
                check_files(&dir, &load.written);
            }
            check_rewritten(&dir.join("rewritten"), &synced);
        });
        cluster.volumes[victim].start();
        wait_until_whole(&cluster);
    }
}

#[test]
fn everything_that_is_killed_at_once_comes_back() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster(2);
    wait_until_whole(&cluster);
    let journals = Journals::start(&cluster);
    for _ in 0..3 {
        journals.go_on(100);
        cluster.volumes.iter_mut().for_each(Part::kill9);
        cluster.master.kill9();
        cluster.master.start();
        cluster
            .volumes
            .iter_mut()
            .for_each(|volume| drop(volume.start()));
        wait_until_whole(&cluster);
    }
    journals.check(&cluster);
}

#[test]
fn copies_are_made_of_what_exists_when_more_are_asked_for() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster(1);
    let dir = cluster.mounts[0].dir();
    let is_over = AtomicBool::new(false);
    let load = thread::scope(|scope| {
        let writer = scope.spawn(|| write_files(&dir, 0, &is_over));
        thread::sleep(Duration::from_secs(2));
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("writes")
    });
    let set = cluster.vdfs(&["replicas", "set", "2"]);
    assert!(set.status.success(), "{set:?}");
    wait_until_whole(&cluster);
    let places = cluster.vdfs(&["locate", "/0", "--json"]);
    let places: Value = serde_json::from_slice(&places.stdout).expect("JSON");
    let members = places["chunks"][0]["members"].as_array().map(Vec::len);
    assert_eq!(members, Some(2), "{places}");
    for victim in 0..3 {
        cluster.volumes[victim].kill9();
        check_files(&cluster.mounts[1].dir(), &load.written);
        cluster.volumes[victim].start();
        wait_until_whole(&cluster);
    }
}

/// Journals on both mounts go on while `break_it` lasts, and what they have acknowledged is there.
fn journals_go_on_through(break_it: impl FnOnce(&Cluster), mend_it: impl FnOnce(&Cluster)) {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, cluster) = cluster(2);
    wait_until_whole(&cluster);
    let journals = Journals::start(&cluster);
    journals.go_on(100);
    break_it(&cluster);
    journals.go_on(1000);
    mend_it(&cluster);
    wait_until_whole(&cluster);
    journals.go_on(100);
    journals.check(&cluster);
}

#[test]
fn volume_that_is_cut_off_is_missed_by_nobody() {
    let volume = |cluster: &Cluster| cluster.volumes[0].host().clone();
    journals_go_on_through(
        |cluster| volume(cluster).cut(),
        |cluster| volume(cluster).heal(),
    );
}

#[test]
fn volumes_that_cannot_reach_each_other_are_noticed_by_nobody() {
    let ends = |cluster: &Cluster| {
        let host = |index: usize| cluster.volumes[index].host().clone();
        (host(0), host(1))
    };
    journals_go_on_through(
        |cluster| {
            let (one, other) = ends(cluster);
            one.cut_from(&other);
        },
        |cluster| {
            let (one, other) = ends(cluster);
            one.heal_with(&other);
        },
    );
}

#[test]
fn volume_that_stands_still_beyond_its_lease_serves_nothing_old() {
    let signal = |cluster: &Cluster, is_stopped: bool| {
        let volume = &cluster.volumes[1];
        match is_stopped {
            true => volume.freeze(),
            false => volume.thaw(),
        }
    };
    journals_go_on_through(
        |cluster| signal(cluster, true),
        |cluster| signal(cluster, false),
    );
}
