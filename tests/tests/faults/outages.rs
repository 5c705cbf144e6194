//! A server is away: a pause, and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::journal::Journal;
use vdfs_tests::workload::Workload;
use vdfs_tests::{Cluster, eventually, mount_tests_skipped, pattern, within};

use crate::cluster;
use crate::workload::WORKLOAD;

/// How soon everything works again after the return of a server.
const RETURN_MAX: Duration = Duration::from_secs(20);

#[test]
fn master_down_for_5_s_is_a_pause() {
    master_down(Duration::from_secs(5));
}

#[test]
#[ignore = "takes a minute"]
fn master_down_for_30_s_is_a_pause() {
    master_down(Duration::from_secs(30));
}

#[test]
#[ignore = "takes two minutes"]
fn master_down_for_90_s_is_a_pause() {
    master_down(Duration::from_secs(90));
}

#[test]
fn volume_down_for_5_s_is_a_pause() {
    volume_down(Duration::from_secs(5));
}

#[test]
#[ignore = "takes a minute"]
fn volume_down_for_30_s_is_a_pause() {
    volume_down(Duration::from_secs(30));
}

fn master_down(time: Duration) {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let mut workload = Workload::start(&cluster, WORKLOAD);
    cluster.master.kill9();
    stay_away(&mut workload, time);
    cluster.master.start();
    assert_works_again(&cluster);
    workload.finish(&cluster);
}

fn volume_down(time: Duration) {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let mut workload = Workload::start(&cluster, WORKLOAD);
    cluster.volumes[0].kill9();
    stay_away(&mut workload, time);
    cluster.volumes[0].start();
    assert_works_again(&cluster);
    workload.finish(&cluster);
}

fn stay_away(workload: &mut Workload, time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        workload.assert_running();
        thread::sleep(Duration::from_millis(100));
    }
}

fn assert_works_again(cluster: &Cluster) {
    for mount in &cluster.mounts {
        let path = mount.dir().join("again");
        within("everything goes on", RETURN_MAX, move || {
            let bytes = pattern::bytes(1, 0, 2 << 20);
            fs::write(&path, &bytes).expect("writes");
            assert!(fs::read(&path).expect("reads") == bytes);
        });
    }
}

/// With one copy, nothing can be read while its volume is away; after a minute readers are told. The
/// kernel asks twice, as it takes no error from a read-ahead.
#[test]
#[ignore = "takes three minutes"]
fn volumes_away_for_long_fail_no_writer_and_readers_only_after_60_s() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let path = cluster.dir().join("file");
    fs::write(&path, pattern::bytes(2, 0, 4 << 20)).expect("writes");
    let journal = Journal::start(&cluster.dir().join("journal"), 3);
    let begun = || journal.acknowledged() > 10;
    eventually("the writer is at work", Duration::from_secs(30), begun);
    let other = cluster.mounts[1].dir();
    let reader = File::open(other.join("file")).expect("opens");

    let begin = Instant::now();
    for volume in &mut cluster.volumes {
        volume.kill9();
    }
    let (told, reader) = within("readers are told", Duration::from_secs(130), move || {
        let outcome = reader.read_at(&mut [0; 4096], 1 << 20);
        (outcome.map_err(|error| error.raw_os_error()), reader)
    });
    assert_eq!(told, Err(Some(libc::EIO)));
    let told_after = begin.elapsed();
    assert!(told_after > Duration::from_secs(58), "{told_after:?}");
    while begin.elapsed() < Duration::from_secs(90) {
        thread::sleep(Duration::from_millis(100));
    }
    for volume in &mut cluster.volumes {
        volume.start();
    }
    let known = journal.acknowledged();
    eventually("the writer goes on", RETURN_MAX, || {
        journal.acknowledged() > known
    });
    let written = journal.finish();
    assert!(written.errno.is_none(), "{written:?}");
    written.check(&other.join("journal"));
    let mut bytes = vec![0; 4 << 20];
    reader
        .read_exact_at(&mut bytes, 0)
        .expect("an open file works again");
    pattern::assert_matches(2, 0, &bytes);
}
