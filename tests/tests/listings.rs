//! Listing directories that change meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{Dir, Mode, OFlags, RawDir, SeekFrom};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    names_that_stay_are_listed_once_while_others_come_and_go,
    position_of_a_listing_can_be_kept_and_returned_to,
    #[ignore = "takes some minutes"]
    directory_of_a_million_names_is_listed_in_little_memory,
);

const STAYING: usize = 3000;
const ROUNDS: usize = 15;

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.into_string().expect("plain")
    };
    fs::read_dir(dir).expect("lists").map(name).collect()
}

/// Two mounts list, two make and remove and rename beside what stays.
fn names_that_stay_are_listed_once_while_others_come_and_go(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let (here, there) = (vdfs.dir().join("d"), second.dir().join("d"));
    fs::create_dir(&here).expect("a directory");
    let staying: BTreeSet<String> = (0..STAYING)
        .map(|number| format!("stays-{number}"))
        .collect();
    for name in &staying {
        File::create(here.join(name)).expect("creates");
    }
    let is_over = AtomicBool::new(false);
    let churn = |dir: &Path, own: &str| {
        let mut rounds = 0;
        while !is_over.load(Ordering::Relaxed) {
            for number in 0..200 {
                let (name, other) = (format!("{own}-{number}"), format!("{own}-moved-{number}"));
                File::create(dir.join(&name)).expect("creates");
                fs::rename(dir.join(&name), dir.join(&other)).expect("renames");
            }
            for number in 0..200 {
                fs::remove_file(dir.join(format!("{own}-moved-{number}"))).expect("removes");
            }
            rounds += 1;
        }
        rounds
    };
    let list = |dir: &Path| {
        for round in 0..ROUNDS {
            let listed = names(dir);
            let stayed: Vec<_> = listed
                .iter()
                .filter(|name| name.starts_with("stays"))
                .collect();
            let distinct: BTreeSet<_> = stayed.iter().copied().cloned().collect();
            assert_eq!(stayed.len(), distinct.len(), "doubled in round {round}");
            assert_eq!(distinct, staying, "round {round}");
        }
    };
    thread::scope(|scope| {
        let churning = [
            scope.spawn(|| churn(&here, "a")),
            scope.spawn(|| churn(&there, "b")),
        ];
        let listing = [scope.spawn(|| list(&here)), scope.spawn(|| list(&there))];
        let listed = listing.map(thread::ScopedJoinHandle::join);
        is_over.store(true, Ordering::Relaxed);
        for rounds in churning {
            assert!(rounds.join().expect("churns") > 0, "nothing came and went");
        }
        listed.into_iter().for_each(|done| done.expect("lists"));
    });
}

/// telldir(3), seekdir(3) and rewinddir(3) are `lseek(2)` of the directory.
fn position_of_a_listing_can_be_kept_and_returned_to(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let dir = vdfs.dir().join("d");
    fs::create_dir(&dir).expect("a directory");
    for number in 0..1000 {
        File::create(dir.join(number.to_string())).expect("creates");
    }
    let there = second.dir().join("d");
    let open = rustix::fs::open(&there, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty());
    let open = open.expect("opens");
    let all = entries(&open);
    assert_eq!(all.len(), 1002);
    // Every fifth name goes and as many come; behind each position is what was there.
    for number in (0..1000).step_by(5) {
        fs::remove_file(dir.join(number.to_string())).expect("removes");
        File::create(dir.join(format!("new-{number}"))).expect("creates");
    }
    let stays = |name: &str| name.parse::<u32>().is_ok_and(|number| number % 5 != 0);
    for at in [0, 1, 2, 3, 500, 999, 1001] {
        seek(&open, all[at].1);
        let rest = entries(&open);
        let rest: Vec<_> = rest.iter().filter(|(name, _)| stays(name)).collect();
        let expected: Vec<_> = all[at + 1..]
            .iter()
            .filter(|(name, _)| stays(name))
            .collect();
        assert_eq!(rest, expected, "behind entry {at}");
    }
    // A rewound listing is a new one.
    seek(&open, 0);
    let names: Vec<String> = entries(&open).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names.iter().filter(|name| name.starts_with("new")).count(),
        200
    );
    assert_eq!(names[..2], [".", ".."]);
}

/// What is left of a listing: names, each with the position behind it.
fn entries(dir: &OwnedFd) -> Vec<(String, u64)> {
    let mut buffer = Vec::with_capacity(4096);
    let mut listing = RawDir::new(dir.as_fd(), buffer.spare_capacity_mut());
    let mut entries = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_str().expect("plain").to_owned();
        entries.push((name, entry.next_entry_cookie()));
    }
    entries
}

fn seek(dir: &OwnedFd, position: u64) {
    rustix::fs::seek(dir, SeekFrom::Start(position)).expect("a position that was given");
}

fn directory_of_a_million_names_is_listed_in_little_memory(way: Way) {
    const COUNT: usize = 1_000_000;
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let dir = vdfs.dir().join("d");
    fs::create_dir(&dir).expect("a directory");
    thread::scope(|scope| {
        for part in 0..8 {
            let dir = &dir;
            scope.spawn(move || {
                for number in (part..COUNT).step_by(8) {
                    rustix::fs::mknodat(
                        rustix::fs::CWD,
                        dir.join(format!("name-{number:07}")),
                        rustix::fs::FileType::RegularFile,
                        Mode::from(0o644),
                        0,
                    )
                    .expect("makes a file");
                }
            });
        }
    });
    let rss_kib = || {
        let status = fs::read_to_string(format!("/proc/{}/status", second.part.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().split(' ').next());
        number
            .and_then(|number| number.parse::<u64>().ok())
            .expect("a number")
    };
    let before = rss_kib();
    let open = rustix::fs::open(
        second.dir().join("d"),
        OFlags::DIRECTORY | OFlags::RDONLY,
        Mode::empty(),
    );
    let (mut seen, mut sum) = (0usize, 0usize);
    for entry in Dir::new(open.expect("opens")).expect("lists") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_str().expect("plain");
        if let Some(number) = name.strip_prefix("name-") {
            // In the long form: with the attributes of each.
            let path = second.dir().join("d").join(name);
            assert_eq!(fs::symlink_metadata(path).expect("stats").len(), 0);
            seen += 1;
            sum += number.parse::<usize>().expect("a number");
        }
    }
    assert_eq!((seen, sum), (COUNT, COUNT * (COUNT - 1) / 2));
    let grown_kib = rss_kib().saturating_sub(before);
    eprintln!("listing a million names took {grown_kib} KiB of the mount");
    assert!(grown_kib < 64 << 10, "{grown_kib} KiB");
}
