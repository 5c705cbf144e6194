//! Copies of everything, or of what directories ask them for, on volumes that die: programs notice a
//! pause and no error, nothing that was acknowledged is lost, and the chains are whole again by
//! themselves.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{SeekFrom, seek};
use serde_json::Value;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_tests::hosts::Host;
use vdfs_tests::part::Part;
use vdfs_tests::replicated::WHOLE_WITHIN;
use vdfs_tests::under_change::{Journals, check_files, write_files};
use vdfs_tests::{Cluster, Options, Replicated, eventually, mount_tests_skipped, pattern};

/// What a program may wait when a volume dies: its lease, the new epoch, and a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(10);

fn cluster(replicas: u32) -> Replicated {
    Replicated::with(Options {
        volumes: 3,
        ram_mib: 2048,
        replicas: Some(replicas),
        ..Options::default()
    })
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

#[test]
fn volumes_that_are_killed_one_after_the_other_are_missed_by_nobody() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(2);
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
            cluster.wait_until_whole();
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
        cluster.wait_until_whole();
    }
}

#[test]
fn everything_that_is_killed_at_once_comes_back() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(2);
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
        cluster.wait_until_whole();
    }
    journals.check(&cluster);
}

#[test]
fn copies_are_made_of_what_exists_when_more_are_asked_for() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(1);
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
    cluster.wait_until_whole();
    assert_eq!(copies_of(&cluster, "/0"), 2);
    for victim in 0..3 {
        cluster.volumes[victim].kill9();
        check_files(&cluster.mounts[1].dir(), &load.written);
        cluster.volumes[victim].start();
        cluster.wait_until_whole();
    }
}

#[test]
fn copies_keep_to_the_rate_that_their_giver_has() {
    if mount_tests_skipped() {
        return;
    }
    let cluster = Replicated::with(Options {
        ram_mib: 1024,
        copy_rate: Some("4MiB"),
        ..Options::default()
    });
    let bytes = pattern::bytes(1, 0, 60 << 20);
    fs::write(cluster.mounts[0].dir().join("file"), &bytes).expect("writes");
    let set = cluster.vdfs(&["replicas", "set", "2"]);
    assert!(set.status.success(), "{set:?}");
    let begun = Instant::now();
    eventually("a copy is begun", WHOLE_WITHIN, || {
        copies_of(&cluster, "/file") == 2
    });
    cluster.wait_until_whole();
    // Each of the two gives about half of it.
    assert!(begun.elapsed() > Duration::from_secs(5));
}

#[test]
fn second_host_gets_a_copy_of_everything_by_itself() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = Replicated::with(Options {
        volumes: 1,
        ram_mib: 1024,
        replicas: None,
        ..Options::default()
    });
    let bytes = pattern::bytes(1, 0, 3_000_000);
    fs::write(cluster.mounts[0].dir().join("file"), &bytes).expect("writes");
    assert_eq!(copies_of(&cluster, "/file"), 1);
    cluster.add_volume(1024);
    eventually("a copy is begun", WHOLE_WITHIN, || {
        copies_of(&cluster, "/file") == 2
    });
    cluster.wait_until_whole();
    cluster.volumes[0].kill9();
    let read = fs::read(cluster.mounts[1].dir().join("file"));
    assert!(read.expect("the other copy is there") == bytes);
}

fn attribute(program: &str, args: &[&str], path: &Path) -> bool {
    let output = Command::new(program).args(args).arg(path).output();
    output.expect("runs").status.success()
}

fn ask_for(value: &str, path: &Path) -> bool {
    attribute("setfattr", &["-n", "user.vdfs.replicas", "-v", value], path)
}

/// Members of the chain of a file's first chunk.
fn copies_of(cluster: &Replicated, path: &str) -> usize {
    cluster.members(path)[0].len()
}

fn replicas_of(cluster: &Cluster, path: &str) -> Value {
    let output = cluster.vdfs(&["replicas", path, "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn directory_keeps_the_copies_that_it_asks_for() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(1);
    let (here, there) = (cluster.mounts[0].dir(), cluster.mounts[1].dir());
    let kept = here.join("kept");
    fs::create_dir(&kept).expect("makes");
    let bytes = pattern::bytes(1, 0, 3_000_000);
    fs::write(kept.join("before"), &bytes).expect("writes");
    for refused in ["0", "4", "many", ""] {
        assert!(!ask_for(refused, &kept), "{refused:?}");
    }
    assert!(
        !ask_for("3", &kept.join("before")),
        "a file asks for nothing"
    );
    assert!(ask_for("3", &kept));
    fs::create_dir(kept.join("below")).expect("makes");
    assert!(attribute(
        "getfattr",
        &["-n", "user.vdfs.replicas"],
        &kept.join("below")
    ));
    for path in ["kept/file", "kept/below/file", "beside"] {
        let mut file = File::create(here.join(path)).expect("makes a file");
        file.write_all(&bytes).expect("writes");
        file.sync_all().expect("syncs");
    }
    let copies = ["/kept/before", "/kept/file", "/kept/below/file", "/beside"];
    let copies = copies.map(|path| copies_of(&cluster, path));
    assert_eq!(copies, [1, 3, 3, 1]);
    let seen = replicas_of(&cluster, "/kept");
    assert_eq!(
        (&seen["replicas"], &seen["is_asked_for"]),
        (&3.into(), &true.into())
    );
    assert_eq!(seen["files"][0]["files"], 1, "{seen}");
    assert_eq!(seen["files"][1]["files"], 2, "{seen}");
    cluster.volumes[0].kill9();
    cluster.volumes[2].kill9();
    for path in ["kept/file", "kept/below/file"] {
        assert!(fs::read(there.join(path)).expect("reads") == bytes);
    }
    fs::write(there.join("kept/below/later"), &bytes).expect("writes with one volume");
    cluster.volumes[0].start();
    cluster.volumes[2].start();
    cluster.wait_until_whole();
    assert!(attribute("setfattr", &["-x", "user.vdfs.replicas"], &kept));
    fs::write(kept.join("after"), &bytes).expect("writes");
    let copies = ["/kept/after", "/kept/below/later", "/beside"];
    assert_eq!(copies.map(|path| copies_of(&cluster, path)), [1, 3, 1]);
    for path in ["kept/file", "kept/below/later", "beside", "kept/before"] {
        assert!(
            fs::read(there.join(path)).expect("reads") == bytes,
            "{path}"
        );
    }
}

/// Appends something now and then; gives what is in the file.
fn append(path: &Path, is_over: &AtomicBool) -> Vec<u8> {
    let mut file = OpenOptions::new().append(true).open(path).expect("opens");
    let mut expected = fs::read(path).expect("reads");
    while !is_over.load(Ordering::Relaxed) {
        let record = pattern::bytes(expected.len() as u64, 0, 1000);
        file.write_all(&record).expect("appends");
        file.sync_data().expect("syncs");
        expected.extend(record);
        thread::sleep(Duration::from_millis(700));
    }
    expected
}

fn make_sparse(path: &Path) {
    let sparse = File::create(path).expect("makes");
    sparse.write_all_at(b"data", 30_000_000).expect("writes");
    sparse.set_len(60_000_000).expect("grows");
}

fn check_sparse(path: &Path) {
    let sparse = fs::read(path).expect("reads");
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    assert_eq!(
        (sparse.len(), &sparse[30_000_000..30_000_004]),
        (60_000_000, &b"data"[..])
    );
    assert!(is_zero(&sparse[..30_000_000]) && is_zero(&sparse[30_000_004..]));
}

#[test]
fn files_that_exist_get_the_copies_of_their_directory_while_others_write() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(1);
    let (here, there) = (cluster.mounts[0].dir(), cluster.mounts[1].dir());
    let kept = here.join("kept");
    fs::create_dir_all(kept.join("below")).expect("makes");
    let files: Vec<(&str, Vec<u8>)> = [
        ("small", 10),
        ("empty", 0),
        ("below/large", 40_000_000),
        ("journal", 5000),
    ]
    .map(|(name, len)| (name, pattern::bytes(len as u64, 0, len)))
    .into();
    for (name, bytes) in &files {
        fs::write(kept.join(name), bytes).expect("writes");
    }
    make_sparse(&kept.join("sparse"));
    fs::hard_link(kept.join("small"), here.join("second")).expect("links");
    assert!(ask_for("3", &kept) && ask_for("2", &kept.join("below")));
    let open = File::open(there.join("kept/below/large")).expect("opens");
    let times = fs::metadata(kept.join("small"))
        .expect("is there")
        .mtime_nsec();
    let (is_over, journal_path) = (AtomicBool::new(false), kept.join("journal"));
    let (load, journal) = thread::scope(|scope| {
        let writer = scope.spawn(|| write_files(&kept, 0, &is_over));
        let appender = scope.spawn(|| append(&journal_path, &is_over));
        thread::sleep(Duration::from_secs(1));
        let applied = cluster.vdfs(&["replicas", "--apply", "/kept", "--json"]);
        thread::sleep(Duration::from_secs(1));
        is_over.store(true, Ordering::Relaxed);
        let joined = (
            writer.join().expect("writes"),
            appender.join().expect("appends"),
        );
        assert!(applied.status.success(), "{applied:?}");
        let applied: Value = serde_json::from_slice(&applied.stdout).expect("JSON");
        assert_eq!(applied["files"], 5, "{applied}");
        joined
    });
    let three = ["/kept/small", "/second", "/kept/journal", "/kept/sparse"];
    assert_eq!(three.map(|path| copies_of(&cluster, path)), [3; 4]);
    assert_eq!(copies_of(&cluster, "/kept/below/large"), 2);
    let names = fs::read_dir(&here).expect("reads").count();
    assert_eq!(names, 2, "nothing is left");
    let small = fs::metadata(kept.join("small")).expect("is there");
    assert_eq!(small.mtime_nsec(), times);
    let sparse = fs::metadata(kept.join("sparse")).expect("is there");
    assert!(sparse.blocks() < 100, "{} blocks", sparse.blocks());
    let mut bytes = vec![0; files[2].1.len()];
    open.read_exact_at(&mut bytes, 0)
        .expect("reads what it has open");
    assert!(bytes == files[2].1);
    cluster.volumes[1].kill9();
    for dir in [here.join("kept"), there.join("kept")] {
        for (name, bytes) in files.iter().filter(|(name, _)| *name != "journal") {
            assert!(fs::read(dir.join(name)).expect("reads") == *bytes, "{name}");
        }
        assert!(fs::read(dir.join("journal")).expect("reads") == journal);
        check_files(&dir, &load.written);
        check_sparse(&dir.join("sparse"));
    }
    cluster.volumes[1].start();
    cluster.wait_until_whole();
}

/// Journals on both mounts go on while `break_it` lasts, and what they have acknowledged is there.
fn journals_go_on_through(break_it: impl FnOnce(&Cluster), mend_it: impl FnOnce(&Cluster)) {
    if mount_tests_skipped() {
        return;
    }
    let cluster = cluster(2);
    let journals = Journals::start(&cluster);
    journals.go_on(100);
    break_it(&cluster);
    journals.go_on(1000);
    mend_it(&cluster);
    cluster.wait_until_whole();
    journals.go_on(100);
    journals.check(&cluster);
}

/// The same while two hosts do not reach each other, and everybody else reaches both.
fn journals_go_on_apart(ends: impl Fn(&Cluster) -> [Host; 2]) {
    journals_go_on_through(
        |cluster| {
            let [one, other] = ends(cluster);
            one.cut_from(&other);
        },
        |cluster| {
            let [one, other] = ends(cluster);
            one.heal_with(&other);
        },
    );
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
    let host = |cluster: &Cluster, index: usize| cluster.volumes[index].host().clone();
    journals_go_on_apart(|cluster| [host(cluster, 0), host(cluster, 1)]);
}

#[test]
fn mount_that_does_not_reach_a_volume_goes_through_the_others() {
    let ends = |cluster: &Cluster| {
        let mount = cluster.mounts[0].part.host().clone();
        [mount, cluster.volumes[0].host().clone()]
    };
    journals_go_on_through(
        |cluster| {
            let paths = (0..6).map(|at| cluster.mounts[0].dir().join(format!("sparse-{at}")));
            let paths: Vec<_> = paths.collect();
            paths.iter().for_each(|path| make_sparse(path));
            let [mount, volume] = ends(cluster);
            mount.cut_from(&volume);
            for path in paths {
                let sparse = File::open(path).expect("opens");
                let blocks = sparse.metadata().expect("is told").blocks();
                assert!(blocks <= 16, "{blocks} blocks");
                let data = seek(&sparse, SeekFrom::Data(0)).expect("is told");
                let block_bytes = u64::from(BLOCK_BYTES);
                assert_eq!(data, 30_000_000 / block_bytes * block_bytes);
            }
        },
        |cluster| {
            let [mount, volume] = ends(cluster);
            mount.heal_with(&volume);
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
