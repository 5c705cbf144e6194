//! `fcntl(2)` and `flock(2)` between the programs of two mounts.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vdfs_tests::lock_torture::{self, Plan, Way as LockWay};
use vdfs_tests::locker::Locker;
use vdfs_tests::{Filesystem, Mount, Options, Way, eventually, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    locks_exclude_and_share_between_mounts,
    locks_carry_data_along,
    signals_end_a_wait,
    waits_go_on_over_a_restart_and_ends_release,
    killed_mount_holds_a_lock_for_at_most_14_s,
    lock_torture_with_killed_programs,
    locks_of_parts_of_one_page_keep_the_page_right,
);

/// The longest that one client may hold up another: its lease, the fence, the wait of the volumes.
const HELD_UP_MAX: Duration = Duration::from_secs(14);
/// Of what waits for nobody.
const SOON: Duration = Duration::from_secs(5);

struct Scene {
    vdfs: Filesystem,
    second: Mount,
}

impl Scene {
    fn new(way: Way) -> Self {
        let vdfs = way.start(Options::default());
        let second = vdfs.second_mount();
        fs::write(vdfs.dir().join("f"), "0123456789").expect("writes");
        Scene { vdfs, second }
    }

    fn dirs(&self) -> [PathBuf; 2] {
        [self.vdfs.dir(), self.second.dir()]
    }

    /// A process with the file open, on each mount.
    fn lockers(&self) -> [Locker; 2] {
        self.dirs().map(|dir| Locker::on(&dir.join("f")))
    }
}

fn locks_exclude_and_share_between_mounts(way: Way) {
    let scene = Scene::new(way);
    ranges_and_kinds(&scene);
    what_getlk_says(&scene);
    flock_and_open_file_locks(&scene);
    closes_release(&scene);
    deadlocks_are_refused(&scene);
}

fn ranges_and_kinds(scene: &Scene) {
    let [mut a, mut b] = scene.lockers();
    a.ok("try f r 0 10");
    b.ok("try f r 5 10");
    b.refused("try f w 9 1", libc::EAGAIN);
    b.ok("try f w 10 5");
    a.refused("try f r 0 11", libc::EAGAIN);
    b.ok("try f un 0 0");
    a.ok("try f w 0 0");
    b.refused("try f r 1000000 1", libc::EAGAIN);
    b.tell("lock f w 3 4");
    b.waits();
    a.ok("try f un 0 3");
    b.waits();
    a.ok("try f un 3 4");
    b.ok_within(SOON);
    a.refused("try f r 6 1", libc::EAGAIN);
    a.ok("try f r 7 1");
}

fn what_getlk_says(scene: &Scene) {
    let [mut a, mut b] = scene.lockers();
    let mut neighbour = Locker::on(&scene.vdfs.dir().join("f"));
    a.ok("try f w 10 5");
    assert_eq!(a.ask("test f w 0 0"), "free", "its own");
    assert_eq!(
        neighbour.ask("test f r 0 0"),
        format!("w 10 5 {}", a.pid()),
        "a process of the same mount"
    );
    assert_eq!(b.ask("test f r 0 0"), "w 10 5 0", "of another mount");
    let listed = scene.vdfs.cli(&["locks", "--json", "/f"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["held"][0]["pid"], a.pid(), "{listed}");
    assert_eq!(listed["held"][0]["kind"], "write", "{listed}");
    assert_eq!(listed["held"][0]["last_bytes"], 14, "{listed}");
    let listed = scene.vdfs.cli(&["sessions", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let sessions = listed["sessions"].as_array().expect("a list");
    let locks: Option<u64> = sessions.iter().map(|each| each["locks"].as_u64()).sum();
    assert_eq!(locks, Some(1), "{listed}");
    b.tell("lock f r 12 1");
    b.waits();
    let path = scene.vdfs.dir().join("f");
    let path = path.to_str().expect("scratch paths are plain");
    let listed = scene.vdfs.cli(&["locks", path]);
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.contains("waiting  read"), "{listed}");
    assert!(listed.contains(&format!("pid {}", b.pid())), "{listed}");
    drop(a);
    b.ok_within(SOON);
}

fn flock_and_open_file_locks(scene: &Scene) {
    let [mut a, mut b] = scene.lockers();
    a.ok("flock f sh");
    b.ok("flock f try-sh");
    b.refused("flock f try-ex", libc::EAGAIN);
    a.ok("flock f un");
    b.ok("flock f try-ex");
    a.tell("flock f ex");
    a.waits();
    b.ok("flock f un");
    a.ok_within(SOON);
    b.refused("try f r 5 1", libc::EAGAIN);
    a.ok("close f");
    b.tell("lock f w 0 0");
    b.ok_within(SOON);
    b.ok("try f un 0 0");
    b.ok("try-ofd f w 0 1");
    b.ok("close f");
    let path = scene.vdfs.dir().join("f");
    a.ok(&format!("open f {}", path.display()));
    a.tell("lock f w 0 0");
    a.ok_within(SOON);
}

/// Any close of the file by a process gives up its `fcntl` locks, and so does its end.
fn closes_release(scene: &Scene) {
    let [mut a, mut b] = scene.lockers();
    let path = scene.vdfs.dir().join("f");
    a.ok(&format!("open-to-read again {}", path.display()));
    a.ok("try f w 0 0");
    a.ok("close again");
    b.ok("try f w 0 0");
    a.tell("lock f w 0 0");
    a.waits();
    b.kill9();
    a.ok_within(SOON);
    let mut waiter = Locker::on(&scene.second.dir().join("f"));
    waiter.tell("lock f w 0 0");
    waiter.waits();
    waiter.kill9();
    a.ok("try f un 0 0");
    let mut next = Locker::on(&scene.second.dir().join("f"));
    next.ok("try f w 0 0");
}

fn deadlocks_are_refused(scene: &Scene) {
    let [mut a, mut b] = scene.lockers();
    let mut c = Locker::on(&scene.second.dir().join("f"));
    a.ok("try f w 0 1");
    b.ok("try f w 1 1");
    c.ok("try f w 2 1");
    a.tell("lock f w 1 1");
    a.waits();
    b.tell("lock f w 2 1");
    b.waits();
    c.refused("lock f w 0 1", libc::EDEADLK);
    c.ok("try f un 2 1");
    b.ok_within(SOON);
    b.ok("try f un 0 0");
    a.ok_within(SOON);
}

/// Whoever gets a lock sees what was written under the one before: by `write` or through a mapping,
/// read without a cache, from a mapping, or from a descriptor whose pages were cached long before.
fn locks_carry_data_along(way: Way) {
    let scene = Scene::new(way);
    let mut cached = Locker::start();
    let path = scene.second.dir().join("f");
    cached.ok(&format!("open-to-read f {}", path.display()));
    assert_eq!(cached.ask("read f 0 20"), "0123456789");
    let [mut a, mut b] = scene.lockers();
    a.ok("map f 10");
    assert_eq!(a.ask("map-read f"), "0123456789");
    for round in 0..9 {
        let text = format!("{round:010}");
        let by_flock = round % 2 == 1;
        let writer = if round % 3 == 2 { &mut b } else { &mut a };
        writer.ok(if by_flock {
            "flock f ex"
        } else {
            "lock f w 0 0"
        });
        match round % 3 {
            0 => writer.ok(&format!("map-write f {text}")),
            _ => writer.ok(&format!("write f 0 {text}")),
        }
        let shared = if by_flock {
            "flock f sh"
        } else {
            "lock f r 0 0"
        };
        cached.tell(shared);
        cached.waits();
        let unlock = if by_flock {
            "flock f un"
        } else {
            "try f un 0 0"
        };
        writer.ok(unlock);
        cached.ok_within(SOON);
        a.ok(shared);
        b.ok(shared);
        for reader in [&mut a, &mut b, &mut cached] {
            assert_eq!(reader.ask("read f 0 20"), text, "round {round}");
        }
        assert_eq!(a.ask("map-read f"), text, "round {round}");
        for reader in [&mut a, &mut b, &mut cached] {
            reader.ok(unlock);
        }
    }
    a.ok("lock f w 0 0");
    a.ok("write f 10 longer");
    a.ok("try f r 0 0");
    b.ok("lock f r 0 0");
    assert_eq!(b.ask("read f 8 20"), "08longer", "a lock that was loosened");
}

fn signals_end_a_wait(way: Way) {
    let mut scene = Scene::new(way);
    let [mut a, mut b] = scene.lockers();
    a.ok("try f w 0 0");
    b.ok("interrupt-after 1");
    let begin = Instant::now();
    b.refused("lock f w 0 0", libc::EINTR);
    let waited = begin.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    b.tell("flock f ex");
    b.waits();
    ends_within_a_second(b, Signal::INT);
    a.ok("try f un 0 0");
    let mut b = Locker::on(&scene.second.dir().join("f"));
    b.ok("try f w 0 0");
    let mut waits = Locker::on(&scene.second.dir().join("f"));
    waits.tell("lock f w 0 0");
    waits.waits();
    scene.vdfs.freeze_servers();
    ends_within_a_second(waits, Signal::TERM);
    scene.vdfs.thaw_servers();
    b.ok("try f un 0 0");
    a.ok("lock f w 0 0");
}

fn ends_within_a_second(mut waiter: Locker, signal: Signal) {
    waiter.signal(signal);
    eventually("it ends", Duration::from_secs(1), || waiter.is_gone());
}

fn waits_go_on_over_a_restart_and_ends_release(way: Way) {
    let mut scene = Scene::new(way);
    // Of the second mount, as the first one dies with the rest.
    let path = scene.second.dir().join("f");
    let mut a = Locker::on(&path);
    let mut b = Locker::on(&path);
    a.ok("try f w 0 5");
    a.ok("write f 0 abcde");
    b.tell("lock f w 0 1");
    b.waits();
    scene.vdfs.kill9();
    scene.vdfs.run_again();
    b.waits();
    let mut c = Locker::on(&scene.vdfs.dir().join("f"));
    c.refused("try f r 4 1", libc::EAGAIN);
    a.kill9();
    b.ok_within(HELD_UP_MAX);
    c.ok("lock f w 4 1");
    assert_eq!(c.ask("read f 0 20"), "abcde56789");
}

fn killed_mount_holds_a_lock_for_at_most_14_s(way: Way) {
    let mut scene = Scene::new(way);
    let [mut a, mut b] = scene.lockers();
    b.ok("try f w 0 0");
    b.ok("write f 0 a");
    b.ok("try f r 0 0");
    let mut waits = Locker::on(&scene.second.dir().join("f"));
    waits.tell("lock f w 0 0");
    a.tell("lock f w 0 0");
    a.waits();
    scene.second.kill9();
    a.ok_within(HELD_UP_MAX);
    assert_eq!(a.ask("read f 0 1"), "a", "committed with the lock");
    scene.second.part.start();
    let mut again = Locker::on(&scene.second.dir().join("f"));
    again.refused("try f r 0 1", libc::EAGAIN);
    a.ok("try f un 0 0");
    again.tell("lock f w 0 0");
    again.ok_within(SOON);
}

fn lock_torture_with_killed_programs(way: Way) {
    let scene = Scene::new(way);
    let plan = Plan {
        seed: 1,
        time: Duration::from_secs(u64::from(way.share(8))),
        workers: 3,
        ways: &LockWay::ALL,
    };
    let summary = lock_torture::run(&scene.dirs(), plan, |_| {});
    eprintln!("{summary:?}");
    assert_eq!(summary.failed, 0, "workers end only when they are killed");
    assert!(summary.counted > 50 && summary.killed > 2, "{summary:?}");
}

/// Pages are dropped for whoever gets a lock, while others on the same mount write to them.
fn locks_of_parts_of_one_page_keep_the_page_right(way: Way) {
    let scene = Scene::new(way);
    let plan = Plan {
        seed: 3,
        time: Duration::from_secs(8),
        workers: 3,
        ways: &[LockWay::Tries],
    };
    let summary = lock_torture::run(&scene.dirs()[..1], plan, |_| {});
    assert!(summary.counted > 50, "{summary:?}");
}

mod long {
    use super::*;

    on_up_and_on_a_cluster!(
        #[ignore = "takes minutes"]
        lock_torture_with_killed_programs_and_mounts,
    );

    /// Programs are killed all the time, and one of the mounts every 20 s.
    fn lock_torture_with_killed_programs_and_mounts(way: Way) {
        let mut scene = Scene::new(way);
        let dirs = scene.dirs();
        let plan = Plan {
            seed: 2,
            time: Duration::from_secs(180),
            workers: 3,
            ways: &LockWay::ALL,
        };
        let mut kills = 0;
        let summary = lock_torture::run(&dirs, plan, |elapsed| {
            if elapsed > Duration::from_secs(20) * (kills + 1) {
                kills += 1;
                scene.second.kill9();
                scene.second.part.start();
            }
        });
        eprintln!("{summary:?}, {kills} kills of the mount");
        assert!(summary.counted > 1000 && kills > 5 && summary.failed > 0);
    }
}
