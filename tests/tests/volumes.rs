//! Volumes that are drained, removed, lost, wiped and added, under programs that must not notice more than
//! they must.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use vdfs_tests::under_change::{Journals, Load, check_files, write_files};
use vdfs_tests::{Options, Replicated, eventually, mount_tests_skipped, pattern};

/// Of all chains of a volume, with some hundred MiB in them.
const MOVED_WITHIN: Duration = Duration::from_secs(120);
/// What a program may wait when a chain changes hands under it, on a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const MIB: usize = 1 << 20;

fn cluster(volumes: u32, replicas: u32) -> Replicated {
    Replicated::with(Options {
        volumes,
        ram_mib: 2048,
        replicas: Some(replicas),
        ..Options::default()
    })
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

fn volume_of(cluster: &Replicated, name: &str) -> Option<Value> {
    let status = cluster.status();
    let mut volumes = status["volumes"].as_array()?.iter();
    volumes.find(|volume| volume["name"] == name).cloned()
}

/// Names of the volumes that hold a file.
fn holders(cluster: &Replicated, path: &str) -> BTreeSet<String> {
    cluster.members(path).into_iter().flatten().collect()
}

/// Files of some MiB, so that moving takes a while.
fn write_large(dir: &Path) {
    for number in 0..40 {
        pattern::write_file(&dir.join(format!("large-{number}")), number, 4 * MIB);
    }
}

fn check_large(dir: &Path) {
    for number in 0..40 {
        let bytes = fs::read(dir.join(format!("large-{number}"))).expect("reads");
        assert!(bytes == pattern::bytes(number, 0, 4 * MIB), "file {number}");
    }
}

/// Runs `change` while a program writes files on the first mount, and then checks them on both.
fn under_a_writer(cluster: &mut Replicated, change: impl FnOnce(&mut Replicated)) {
    let [here, there] = [0, 1].map(|mount: usize| cluster.mounts[mount].dir());
    let is_over = AtomicBool::new(false);
    let load: Load = thread::scope(|scope| {
        let writer = scope.spawn(|| write_files(&here, 0, &is_over));
        change(cluster);
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("no program notices")
    });
    assert!(load.longest < PAUSE_MAX, "{:?}", load.longest);
    for dir in [here, there] {
        check_files(&dir, &load.written);
    }
}

fn drain_and_remove(replicas: u32) {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(3, replicas);
    write_large(&cluster.mounts[0].dir());
    let journals = Journals::start(&cluster);
    journals.go_on(100);
    under_a_writer(&mut cluster, |cluster| {
        let drained = done(cluster.vdfs(&["volume", "drain", "volume-1", "--wait"]));
        assert!(drained.contains("nothing is left"), "{drained}");
    });
    let volume = volume_of(&cluster, "volume-1").expect("it is there");
    assert_eq!(
        (&volume["state"], &volume["chains"]),
        (&"draining".into(), &0.into())
    );
    assert!(!holders(&cluster, "/large-0").contains("volume-1"));
    eventually("what has moved is freed", MOVED_WITHIN, || {
        let volume = volume_of(&cluster, "volume-1").expect("it is there");
        volume["used_bytes"].as_u64() < Some(20 << 20)
    });
    done(cluster.vdfs(&["volume", "remove", "volume-1"]));
    assert!(volume_of(&cluster, "volume-1").is_none());
    assert!(refused(cluster.wipe(0, &["--yes"])).contains("in use by pid"));
    journals.go_on(100);
    cluster.volumes[0].kill9();
    journals.go_on(300);
    cluster.wait_until_whole();
    journals.check(&cluster);
    cluster
        .mounts
        .iter()
        .for_each(|mount| check_large(&mount.dir()));
    come_back(&mut cluster);
}

/// A removed volume does not come in with what it holds, and does with nothing.
fn come_back(cluster: &mut Replicated) {
    let back = refused(cluster.volumes[0].run());
    assert!(back.contains("was removed"), "{back}");
    assert!(refused(cluster.wipe(0, &[])).contains("--yes"));
    let wiped = done(cluster.wipe(0, &["--yes", "--json"]));
    let wiped: Value = serde_json::from_str(&wiped).expect("JSON");
    assert!(wiped["freed_bytes"].as_u64() > Some(0), "{wiped}");
    cluster.volumes[0].start();
    let chains = |cluster: &Replicated| {
        let volume = volume_of(cluster, "volume-1").expect("it is there");
        volume["chains"].as_u64()
    };
    eventually("it is filled again", MOVED_WITHIN, || {
        chains(cluster) > Some(0)
    });
}

#[test]
fn volume_with_the_only_copies_is_drained_and_removed_unnoticed() {
    drain_and_remove(1);
}

#[test]
fn volume_with_one_of_two_copies_is_drained_and_removed_unnoticed() {
    drain_and_remove(2);
}

#[test]
fn files_that_are_lost_with_a_volume_are_named_and_give_eio() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(3, 1);
    let (here, there) = (cluster.mounts[0].dir(), cluster.mounts[1].dir());
    let names: Vec<u64> = (0..24).collect();
    for number in &names {
        fs::write(
            here.join(number.to_string()),
            pattern::bytes(*number, 0, 70_000),
        )
        .expect("writes");
    }
    let path = |number: &u64| format!("/{number}");
    let is_lost = |number: &&u64| holders(&cluster, &path(number)).contains("volume-2");
    let (lost, kept): (Vec<&u64>, Vec<&u64>) = names.iter().partition(is_lost);
    assert!(!lost.is_empty() && !kept.is_empty());
    let runs = refused(cluster.vdfs(&["volume", "remove", "volume-2"]));
    assert!(runs.contains("vdfs volume drain volume-2"), "{runs}");
    let runs = refused(cluster.vdfs(&["volume", "remove", "volume-2", "--lose-data", "--yes"]));
    assert!(runs.contains("stop its process first"), "{runs}");
    cluster.volumes[1].kill9();
    eventually("it is away", MOVED_WITHIN, || {
        volume_of(&cluster, "volume-2").is_some_and(|volume| volume["state"] == "away")
    });
    let away = refused(cluster.vdfs(&["volume", "remove", "volume-2"]));
    assert!(
        away.contains("the only copy") && away.contains("drain"),
        "{away}"
    );
    let asked = refused(cluster.vdfs(&["volume", "remove", "volume-2", "--lose-data"]));
    assert!(asked.contains("--yes"), "{asked}");
    let removed = cluster.vdfs(&["volume", "remove", "volume-2", "--lose-data", "--yes"]);
    assert!(removed.status.success(), "{}", said(&removed));
    let named = String::from_utf8(removed.stdout).expect("text");
    let named: BTreeSet<&str> = named.lines().filter(|line| line.starts_with('/')).collect();
    let expected: Vec<String> = lost.iter().map(|number| path(number)).collect();
    assert_eq!(named, expected.iter().map(String::as_str).collect());
    wait_until_whole_but_lost(&cluster);
    for number in lost {
        let read = fs::read(there.join(number.to_string()));
        let errno = read.expect_err("its bytes are gone").raw_os_error();
        assert_eq!(errno, Some(rustix::io::Errno::IO.raw_os_error()));
    }
    for number in kept {
        let bytes = fs::read(there.join(number.to_string())).expect("reads");
        assert!(bytes == pattern::bytes(*number, 0, 70_000), "file {number}");
    }
    fs::create_dir(here.join("new")).expect("makes");
    write_large(&here.join("new"));
    check_large(&there.join("new"));
    assert!(cluster.status()["lost_files"].as_u64() > Some(0));
    done(cluster.vdfs(&["forget-lost"]));
    assert_eq!(cluster.status()["lost_files"], 0);
}

fn wait_until_whole_but_lost(cluster: &Replicated) {
    eventually("the chains go on", MOVED_WITHIN, || {
        let chains = &cluster.status()["chains"];
        chains["short"].as_u64() == Some(0)
    });
}

#[test]
fn volume_that_is_added_gets_its_share_under_a_writer() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = cluster(2, 1);
    write_large(&cluster.mounts[0].dir());
    let journals = Journals::start(&cluster);
    journals.go_on(100);
    let used = |cluster: &Replicated, name| {
        let volume = volume_of(cluster, name).expect("it is there");
        volume["used_bytes"].as_u64().expect("a number")
    };
    let before = used(&cluster, "volume-1");
    under_a_writer(&mut cluster, |cluster| {
        cluster.add_volume(1024);
        eventually("it has its share", MOVED_WITHIN, || {
            let balance = done(cluster.vdfs(&["rebalance", "--status", "--json"]));
            let balance: Value = serde_json::from_str(&balance).expect("JSON");
            let volume = volume_of(cluster, "volume-3").expect("it is there");
            balance["state"] == "balanced" && volume["chains"].as_u64() > Some(80)
        });
    });
    let volume = volume_of(&cluster, "volume-3").expect("it is there");
    assert!(
        volume["chains"].as_u64() <= Some(86),
        "no more than a third: {volume}"
    );
    eventually("what has moved is freed", MOVED_WITHIN, || {
        used(&cluster, "volume-1") < before
    });
    journals.go_on(100);
    journals.check(&cluster);
    cluster
        .mounts
        .iter()
        .for_each(|mount| check_large(&mount.dir()));
}
