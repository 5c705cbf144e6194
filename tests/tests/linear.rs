//! Eight clients on two mounts read, write and append to the same few places while volumes are killed,
//! stand still and are cut off: what they saw is what one machine could have shown.
//!
//! The long form goes through everything that can happen: `cargo test -p vdfs-tests --test linear --
//! --ignored`; `VDFS_TEST_SEED` chooses others of the same kind. The history of a violation is kept below
//! `target/tmp`, for `linear check`.

use std::path::Path;
use std::thread;
use std::time::Duration;

use vdfs_tests::linear::history::Record;
use vdfs_tests::linear::{Clients, History, Summary, Work, check, look, make};
use vdfs_tests::part::Part;
use vdfs_tests::{Replicated, eventually, mount_tests_skipped};

/// How long a number of calls may take.
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);
/// On each mount.
const CLIENTS: u32 = 4;
/// Fewer overlapping calls than this for each, and the clients have not met.
const OVERLAPS_MIN: usize = 1;
/// Of each mount when the trouble is over, so that with those before there are enough whatever it was.
const CALLS_AFTERWARDS: u64 = 260;
/// Longer than the lease of a session.
const BEYOND_A_LEASE: Duration = Duration::from_secs(14);

/// What happens in the middle of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    VolumeKilled(usize),
    VolumeCut(usize),
    VolumeFrozen(usize),
    /// Two volumes do not reach each other; everybody else reaches both.
    VolumesApart(usize, usize),
    /// What the volume sends to the master is lost; what it is told arrives.
    VolumeUnheard(usize),
    /// A mount does not reach a volume that all others reach.
    MountApart(usize, usize),
    /// Long enough for its session to end: its calls may fail.
    MountCut(usize),
    MasterKilled,
    /// All servers at once.
    ServersKilled,
    /// Two volumes, the second one while the chains of the first are being made whole.
    TwoKilled(usize, usize),
    ClientsKilled,
}

impl Trouble {
    fn may_fail_calls(self) -> bool {
        matches!(self, Trouble::MountCut(_))
    }

    fn strike(self, cluster: &mut Replicated) {
        let host = |index: usize| cluster.volumes[index].host().clone();
        let mount = |index: usize| cluster.mounts[index].part.host().clone();
        match self {
            Trouble::VolumeKilled(index) => cluster.volumes[index].kill9(),
            Trouble::VolumeCut(index) => host(index).cut(),
            Trouble::VolumeFrozen(index) => cluster.volumes[index].freeze(),
            Trouble::VolumesApart(one, other) => host(one).cut_from(&host(other)),
            Trouble::VolumeUnheard(index) => host(index).lose_packets_to(cluster.master.host()),
            Trouble::MountApart(one, volume) => mount(one).cut_from(&host(volume)),
            Trouble::MountCut(index) => mount(index).cut(),
            Trouble::MasterKilled => cluster.master.kill9(),
            Trouble::ServersKilled => {
                cluster.volumes.iter_mut().for_each(Part::kill9);
                cluster.master.kill9();
            }
            Trouble::TwoKilled(one, other) => {
                cluster.volumes[one].kill9();
                cluster.wait_until_short(GOES_ON_WITHIN);
                cluster.volumes[other].kill9();
            }
            Trouble::ClientsKilled => {}
        }
    }

    fn mend(self, cluster: &mut Replicated) {
        let host = |index: usize| cluster.volumes[index].host().clone();
        let mount = |index: usize| cluster.mounts[index].part.host().clone();
        match self {
            Trouble::VolumeKilled(index) => drop(cluster.volumes[index].start()),
            Trouble::VolumeCut(index) => host(index).heal(),
            Trouble::VolumeFrozen(index) => cluster.volumes[index].thaw(),
            Trouble::VolumesApart(one, other) => host(one).heal_with(&host(other)),
            Trouble::VolumeUnheard(index) => host(index).deliver_packets_to(cluster.master.host()),
            Trouble::MountApart(one, volume) => mount(one).heal_with(&host(volume)),
            Trouble::MountCut(index) => mount(index).heal(),
            Trouble::MasterKilled => drop(cluster.master.start()),
            Trouble::ServersKilled => {
                cluster.master.start();
                for volume in &mut cluster.volumes {
                    volume.start();
                }
            }
            Trouble::TwoKilled(one, other) => {
                cluster.volumes[other].start();
                cluster.volumes[one].start();
            }
            Trouble::ClientsKilled => {}
        }
    }

    /// Others go on meanwhile, so that there is something to be seen.
    fn last(self, clients: &[Clients; 2]) {
        match self {
            Trouble::MountCut(index) => {
                thread::sleep(BEYOND_A_LEASE);
                go_on(&[&clients[1 - index]], 100);
            }
            // Nobody goes on, or only who needs no server.
            Trouble::MasterKilled | Trouble::ServersKilled | Trouble::TwoKilled(..) => {
                thread::sleep(Duration::from_millis(500));
            }
            _ => go_on(&[&clients[0], &clients[1]], 200),
        }
    }
}

/// Waits until each has so many more calls behind it.
fn go_on(clients: &[&Clients], calls: u64) {
    let before: Vec<u64> = clients.iter().map(|clients| clients.returned()).collect();
    eventually("the clients go on", GOES_ON_WITHIN, || {
        let mut both = clients.iter().zip(&before);
        both.all(|(clients, before)| clients.returned() > before + calls)
    });
}

/// Clients of one history: each process has numbers of its own.
struct Crowd {
    name: String,
    seed: u64,
    processes: u32,
}

impl Crowd {
    fn start(&mut self, cluster: &Replicated, mount: usize) -> Clients {
        let first_client = 1 + self.processes * CLIENTS;
        self.processes += 1;
        Clients::start(&Work {
            dir: cluster.mounts[mount].dir().join(&self.name),
            mount: mount as u32,
            first_client,
            clients: CLIENTS,
            seed: self.seed,
            beat: Duration::from_millis(40),
        })
    }
}

fn history(cluster: &mut Replicated, (number, trouble): (usize, Trouble), seed: u64) -> History {
    let name = format!("{number}-{trouble:?}-{seed}").replace(['(', ')', ',', ' '], "-");
    make(&cluster.dir().join(&name)).expect("the files are made");
    let mut crowd = Crowd {
        name,
        seed,
        processes: 0,
    };
    let mut clients = [0, 1].map(|mount| crowd.start(cluster, mount));
    go_on(&clients.each_ref(), 100);
    let mut records = Vec::new();
    trouble.strike(cluster);
    if trouble == Trouble::ClientsKilled {
        for (mount, clients) in clients.iter_mut().enumerate() {
            let new = crowd.start(cluster, mount);
            records.extend(std::mem::replace(clients, new).kill9());
        }
    }
    trouble.last(&clients);
    trouble.mend(cluster);
    cluster.wait_until_whole();
    go_on(&clients.each_ref(), CALLS_AFTERWARDS);
    for clients in clients {
        records.extend(clients.finish());
    }
    for (index, mount) in (0..).zip(&cluster.mounts) {
        let seen = look(&mount.dir().join(&crowd.name), index);
        records.extend(seen.expect("both mounts are whole again"));
    }
    History { records }
}

fn run(cluster: &mut Replicated, (number, trouble): (usize, Trouble), seed: u64) {
    let history = history(cluster, (number, trouble), seed);
    let summary = check(&history).unwrap_or_else(|fault| {
        panic!("{trouble:?}, seed {seed}: {fault}\n{}", keep(&history));
    });
    eprintln!("{trouble:?}, seed {seed}: {summary:?}");
    assert!(
        is_worth_something(&summary),
        "{summary:?}\n{}",
        keep(&history)
    );
    if !trouble.may_fail_calls() {
        let failed = history.records.iter().find(|record| record.has_failed());
        let failed = failed.map(Record::to_string);
        assert_eq!(failed, None, "{trouble:?}: no program notices");
    }
}

fn is_worth_something(summary: &Summary) -> bool {
    summary.calls >= 700
        && summary.overlaps >= OVERLAPS_MIN * summary.calls
        && summary.undecided == 0
}

/// Says where the history is now.
fn keep(history: &History) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = path.join(format!("history-{}.json", std::process::id()));
    match history.save(&path) {
        Ok(()) => format!("the history is in {}", path.display()),
        Err(error) => format!("the history cannot be kept: {error}"),
    }
}

fn seed() -> u64 {
    let seed = std::env::var("VDFS_TEST_SEED").ok();
    seed.map_or(1, |seed| seed.parse().expect("a number"))
}

fn run_all(troubles: &[Trouble]) {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = Replicated::start();
    for (number, trouble) in troubles.iter().enumerate() {
        run(&mut cluster, (number, *trouble), seed());
    }
}

#[test]
fn clients_see_one_machine_while_volumes_are_killed_and_cut_off() {
    run_all(&[
        Trouble::VolumeKilled(0),
        Trouble::VolumeCut(1),
        Trouble::ClientsKilled,
    ]);
}

#[test]
#[ignore = "takes three minutes"]
fn clients_see_one_machine_while_single_volumes_are_in_trouble() {
    let each = |trouble: fn(usize) -> Trouble| (0..3).map(trouble);
    let troubles = each(Trouble::VolumeKilled)
        .chain(each(Trouble::VolumeCut))
        .chain(each(Trouble::VolumeFrozen))
        .chain(each(Trouble::VolumeUnheard));
    run_all(&troubles.collect::<Vec<_>>());
}

#[test]
#[ignore = "takes three minutes"]
fn clients_see_one_machine_while_links_are_cut_and_much_is_killed() {
    run_all(&[
        Trouble::VolumesApart(0, 1),
        Trouble::VolumesApart(1, 2),
        Trouble::MountApart(0, 2),
        Trouble::MountApart(1, 0),
        Trouble::MasterKilled,
        Trouble::ServersKilled,
        Trouble::TwoKilled(0, 1),
        Trouble::TwoKilled(2, 0),
        Trouble::MountCut(0),
        Trouble::MountCut(1),
        Trouble::ServersKilled,
    ]);
}
