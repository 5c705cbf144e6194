//! Parts that cannot reach each other, and then can again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use vdfs_tests::hosts::Host;
use vdfs_tests::journal::{Journal, Written};
use vdfs_tests::{Cluster, eventually, mount_tests_skipped, pattern, within};

use crate::{HELD_UP_MAX, cluster};

/// A while in which no lease of a session ends.
const SHORT: Duration = Duration::from_secs(4);
/// Shorter than a session's lease by what its renewal and a new dial take.
const ALMOST_A_LEASE: Duration = Duration::from_millis(7_500);
/// Longer than any lease.
const LONG: Duration = Duration::from_secs(16);
/// How soon everything works again.
const HEALED_MAX: Duration = Duration::from_secs(20);

/// Who is cut off.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Client,
    Master,
    Volume,
    ClientFromMaster,
    ClientFromVolume,
    VolumeFromMaster,
    /// Answers of the volume do not arrive at the client.
    VolumeToClient,
    /// Answers of the master do not arrive at the client.
    MasterToClient,
}

/// The hosts of the parts that a cut may concern.
struct Ends {
    client: Host,
    master: Host,
    volume: Host,
}

impl Ends {
    fn of(cluster: &Cluster) -> Ends {
        Ends {
            client: cluster.mounts[0].part.host().clone(),
            master: cluster.master.host().clone(),
            volume: cluster.volumes[0].host().clone(),
        }
    }

    fn cut(&self, cut: Cut) {
        match cut {
            Cut::Client => self.client.cut(),
            Cut::Master => self.master.cut(),
            Cut::Volume => self.volume.cut(),
            Cut::ClientFromMaster => self.client.cut_from(&self.master),
            Cut::ClientFromVolume => self.client.cut_from(&self.volume),
            Cut::VolumeFromMaster => self.volume.cut_from(&self.master),
            Cut::VolumeToClient => self.volume.lose_packets_to(&self.client),
            Cut::MasterToClient => self.master.lose_packets_to(&self.client),
        }
    }

    fn heal(&self, cut: Cut) {
        match cut {
            Cut::Client => self.client.heal(),
            Cut::Master => self.master.heal(),
            Cut::Volume => self.volume.heal(),
            Cut::ClientFromMaster => self.client.heal_with(&self.master),
            Cut::ClientFromVolume => self.client.heal_with(&self.volume),
            Cut::VolumeFromMaster => self.volume.heal_with(&self.master),
            Cut::VolumeToClient => self.volume.deliver_packets_to(&self.client),
            Cut::MasterToClient => self.master.deliver_packets_to(&self.client),
        }
    }
}

/// A writer on each mount, through a cut; every acknowledged byte is compared on a mount that has
/// never seen the files. Gives what the writers say.
fn write_through(cluster: &mut Cluster, cut: Cut, time: Duration) -> [Written; 2] {
    let name = |index: usize| format!("{cut:?}-{index}");
    let journals = [0, 1].map(|index| {
        let path = cluster.mounts[index].dir().join(name(index));
        Journal::start(&path, index as u64 + 1)
    });
    for journal in &journals {
        let begun = || journal.acknowledged() > 50;
        eventually("the writers are at work", Duration::from_secs(30), begun);
    }
    let ends = Ends::of(cluster);
    ends.cut(cut);
    thread::sleep(time);
    ends.heal(cut);
    for mount in &cluster.mounts {
        let path = mount.dir().join(format!("{cut:?}-again"));
        within("mounts work again", HEALED_MAX, move || {
            assert_usable(&path)
        });
    }
    let written =
        journals.map(|journal| within("the writers end", HEALED_MAX, move || journal.finish()));
    let fresh = cluster.add_mount().dir();
    for (index, written) in written.iter().enumerate() {
        written.check(&fresh.join(name(index)));
    }
    written
}

fn assert_usable(path: &Path) {
    let bytes = pattern::bytes(9, 0, 1 << 20);
    fs::write(path, &bytes).expect("writes");
    assert!(fs::read(path).expect("reads") == bytes);
}

/// Panics unless the writers noticed nothing but a pause.
fn assert_pause(cut: Cut, written: &[Written; 2]) {
    for written in written {
        assert!(written.errno.is_none(), "{cut:?}: {written:?}");
    }
}

#[test]
fn cuts_shorter_than_a_lease_are_a_pause() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    for cut in [
        Cut::Client,
        Cut::Master,
        Cut::Volume,
        Cut::ClientFromMaster,
        Cut::ClientFromVolume,
        Cut::VolumeFromMaster,
        Cut::VolumeToClient,
        Cut::MasterToClient,
    ] {
        eprintln!("{cut:?}");
        let written = write_through(&mut cluster, cut, SHORT);
        assert_pause(cut, &written);
    }
}

/// Connections are over long before, and made again in time.
#[test]
fn cut_almost_as_long_as_a_lease_ends_no_session() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let before = sessions(&cluster);
    let written = write_through(&mut cluster, Cut::ClientFromMaster, ALMOST_A_LEASE);
    assert_pause(Cut::ClientFromMaster, &written);
    let after = sessions(&cluster);
    assert!(
        before.is_subset(&after),
        "{before:?} before, {after:?} after"
    );
}

fn sessions(cluster: &Cluster) -> BTreeSet<u64> {
    let output = cluster.vdfs(&["status", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let sessions = json["sessions"].as_array().expect("a list");
    sessions
        .iter()
        .filter_map(|session| session["id"].as_u64())
        .collect()
}

#[test]
#[ignore = "takes a minute"]
fn long_cuts_that_end_no_session_are_a_pause() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    for cut in [Cut::Volume, Cut::ClientFromVolume, Cut::VolumeFromMaster] {
        eprintln!("{cut:?}");
        let written = write_through(&mut cluster, cut, LONG);
        assert_pause(cut, &written);
    }
}

/// The session has ended meanwhile: the open file may fail, what it had acknowledged may not.
#[test]
fn client_cut_off_for_longer_than_its_lease_loses_nothing_acknowledged() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    for cut in [Cut::Client, Cut::ClientFromMaster] {
        let [cut_off, other] = write_through(&mut cluster, cut, LONG);
        eprintln!("{cut:?}: {:?}", cut_off.errno);
        assert!(other.errno.is_none(), "{other:?}");
    }
}

/// To the master both clients are then silent.
#[test]
#[ignore = "takes a minute"]
fn master_cut_off_for_longer_than_all_leases_loses_nothing_acknowledged() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let written = write_through(&mut cluster, Cut::Master, LONG);
    eprintln!("{:?}", written.map(|written| written.errno));
}

/// Without its master only, the client still reaches the volumes: only the fence keeps its bytes
/// away.
#[test]
fn client_that_was_cut_off_writes_nothing_into_what_others_took_over() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    for cut in [Cut::ClientFromMaster, Cut::Client] {
        take_over(&mut cluster, cut);
    }
}

/// The second mount replaces the contents of a file that the first one, cut off, is writing.
fn take_over(cluster: &mut Cluster, cut: Cut) {
    let name = format!("{cut:?}");
    let [own, others] = [0, 1].map(|index| cluster.mounts[index].dir().join(&name));
    let journal = Journal::start(&own, 1);
    let begun = || journal.acknowledged() > 50;
    eventually("the writer is at work", Duration::from_secs(30), begun);
    let ends = Ends::of(cluster);
    ends.cut(cut);
    let bytes = pattern::bytes(8, 0, 3 << 20);
    let new = bytes.clone();
    within("the lease ends", HELD_UP_MAX, move || {
        fs::write(&others, new).expect("truncates and writes");
    });
    thread::sleep(Duration::from_secs(3));
    ends.heal(cut);
    let written = within("the writer ends", HEALED_MAX, move || journal.finish());
    // No error is due for a record that only waited for the log when its session ended: it was in the
    // file before the others replaced that. So the bytes decide.
    eprintln!("{cut:?}: {:?}", written.errno);
    for dir in [cluster.add_mount().dir(), cluster.dir()] {
        let found = fs::read(dir.join(&name)).expect("reads");
        assert!(found == bytes, "{cut:?}: {} bytes", found.len());
    }
}
